"""The child's log: one JSON object per line on standard output, never blocking the loop."""

import json
import logging
import os
import stat
import time
from typing import Any

_STDOUT = 1
_MAX_LINE = 4096  # PIPE_BUF: a line up to this is written to a pipe whole or not at all (pipe(7))
_BURST = 50


class Log:
    """At most 50 lines of one event per second; what is left out is counted in the next line of that event.

    If standard output is a pipe that nobody reads, lines are dropped instead of waiting.
    """

    def __init__(self) -> None:
        if stat.S_ISFIFO(os.fstat(_STDOUT).st_mode):
            os.set_blocking(_STDOUT, False)
        self._windows: dict[str, tuple[int, int]] = {}
        self._dropped = 0

    def info(self, event: str, **details: Any) -> None:
        self._write("info", event, details)

    def warning(self, event: str, **details: Any) -> None:
        self._write("warning", event, details)

    def fault(self, event: str, **details: Any) -> None:
        self._write("error", event, details)

    def _write(self, level: str, event: str, details: dict[str, Any]) -> None:
        now = time.time()
        second, count = self._windows.get(event, (0, 0))
        if second != int(now):
            if count > _BURST:
                details["left_out"] = count - _BURST
            second, count = int(now), 0
        self._windows[event] = (second, count + 1)
        if count >= _BURST:
            return
        if self._dropped:
            details["lines_dropped"] = self._dropped
        line = json.dumps({"event": event, "level": level, "time": round(now, 3), **details}).encode()
        if len(line) >= _MAX_LINE:
            line = json.dumps({"event": event, "level": level, "time": round(now, 3), "too_long": True}).encode()
        try:
            os.write(_STDOUT, line + b"\n")
        except OSError:
            # Nobody reads, or nobody can any more. The broker's work does not depend on being watched.
            self._dropped += 1
        else:
            self._dropped = 0


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()[:500]
        if record.exc_info and record.exc_info[0] is not None:
            message += f" ({record.exc_info[0].__name__}: {str(record.exc_info[1])[:500]})"
        self._log._write(record.levelname.lower(), "library", {"logger": record.name, "message": message})  # noqa: SLF001 - the same module


def take_over_logging(log: Log) -> None:
    """Send what amqtt and asyncio have to say, from warnings upwards, to `log`."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward(log)], force=True)
