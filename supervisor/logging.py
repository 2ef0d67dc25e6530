"""Logging of the process: JSON lines on standard error, or short coloured ones where that is a terminal.

structlog and the standard library's `logging` (which the other rooms and all libraries use) end in the same
place: one function renders the event, known secrets are struck out, and one write(2) hands the line to the
descriptor. Context variables bound with `structlog.contextvars.bind_contextvars` (request ids) are in both.
"""

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from supervisor._redact import Redactor
from supervisor._render import PRIORITY, Event, Render, json_line, terminal_line

__all__ = ["Log", "Redactor", "configure_logging"]


@contextlib.contextmanager
def _without_rich() -> Iterator[None]:
    """Keep rich out: structlog imports it where it is, 30 ms and 3 MB for tracebacks that nobody here draws."""
    if "rich" in sys.modules:
        yield
        return
    # Documented in "The import system": None makes the import raise ModuleNotFoundError.
    sys.modules["rich"] = None  # type: ignore[assignment] # the stub does not know of None
    try:
        yield
    finally:
        del sys.modules["rich"]


with _without_rich():
    import structlog

# Libraries that tell at "info" what only their authors want to know.
_TALKATIVE = ("aiomqtt", "amqtt", "asyncio", "httptools", "paho", "pykka", "transitions", "uvicorn")

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_STANDARD_COUNT = len(vars(logging.makeLogRecord({})))
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(
    level: str, *, environ: Mapping[str, str], redactor: Redactor | None = None, descriptor: int = 2
) -> "Log":
    """Send every log line of this process to `descriptor`, from `level` (a name of LOG_LEVEL) on.

    Called once, by the process's entry point; a second call replaces the first, for the standard library at once and for
    structlog's loggers that have not been used yet.
    """
    redactor = redactor or Redactor()
    number = _LEVELS[level]
    sink = _Sink(descriptor, _renderer(descriptor, environ), redactor, _is_journal(descriptor, environ))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _name_and_send,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda name=None, *_: _Logger(sink, name),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(_Handler(sink))
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.captureWarnings(capture=True)
    # Nothing of this is in a line: "Optimization" in the standard library's Logging HOWTO.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return Log(sink, redactor, number)


class Log:
    """The process's log, for whoever has more to do with it than to write an event."""

    def __init__(self, sink: "_Sink", redactor: Redactor, level: int) -> None:
        self._sink = sink
        self._redactor = redactor
        self.tells_access = level <= logging.INFO
        """Whether the level lets lines of `access` through."""

    def add(self, secrets: Iterable[str]) -> None:
        """Strike these out too, from the next line on."""
        self._redactor.add(secrets)

    def access(self, entry: Event) -> None:
        """Write one request's line. Only its `path` is foreign text, so only that is searched for secrets.

        Beside structlog, which costs three times as much: this is done for each request.
        """
        path = entry["path"].encode("utf-8", "replace")
        cleaned = self._redactor.clean(path)
        if cleaned is not path:
            entry["path"] = cleaned.decode()
        self._sink.send_clean({"event": "request", **entry, "logger": "api.access"})


def _renderer(descriptor: int, environ: Mapping[str, str]) -> Render:
    if not os.isatty(descriptor):
        return json_line
    return terminal_line(colour=not environ.get("NO_COLOR") and environ.get("TERM") != "dumb")


def _is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether the descriptor leads straight to systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


class _Sink:
    """Renders, cleans and writes, from any thread. Never raises: a line that cannot be written is counted."""

    def __init__(self, descriptor: int, render: Render, redactor: Redactor, journal: bool) -> None:
        self._descriptor = descriptor
        self._render = render
        self._redactor = redactor
        self._journal = journal
        self._lock = threading.Lock()
        self._dropped = 0

    def send(self, event: Event) -> None:
        level = event.get("level", "info")
        self._put(level, self._redactor.clean(self._render(event)))

    def send_clean(self, event: Event) -> None:
        """The same at the level `info` for an event without any secret."""
        self._put("info", self._render(event))

    def _put(self, level: str, line: bytes) -> None:
        if self._journal:
            line = PRIORITY.get(level, b"<6>") + line
        with self._lock:
            if self._dropped and self._write(self._loss()):
                self._dropped = 0
            if not self._write(line):
                self._dropped += 1

    def _loss(self) -> bytes:
        # Half of the last line may have gone out.
        return b"\n" + self._render({"level": "warning", "event": "log lines were lost", "lost": self._dropped})

    def _write(self, line: bytes) -> bool:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            # The terminal is gone, the disk is full, or somebody made the descriptor non-blocking and its
            # reader is slow. A log is no reason to die, and none to stop the loop.
            return False
        return True


class _Logger:
    """What structlog wraps: the name it was asked for, and the sink."""

    def __init__(self, sink: _Sink, name: str | None) -> None:
        self.name = name
        self.send = sink.send

    def msg(self, **event: Any) -> None:
        self.send(event)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


def _name_and_send(logger: Any, _method: str, event: Event) -> Event:
    if logger.name is not None:
        event.setdefault("logger", logger.name)
    return event


class _Handler(logging.Handler):
    """The standard library's end: the same event as structlog would make of it."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        event: dict[str, Any] = structlog.contextvars.get_contextvars()
        fields = vars(record)
        if len(fields) != _STANDARD_COUNT:
            event.update((name, value) for name, value in fields.items() if name not in _STANDARD_FIELDS)
        try:
            event["event"] = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments that do not fit cost the text, not the process
            event["event"] = f"{record.msg} (its arguments do not fit: {error})"
        event["level"] = record.levelname.lower()
        event["logger"] = record.name
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        elif record.exc_text:
            event["exception"] = record.exc_text
        if record.stack_info:
            event["stack"] = record.stack_info
        self._sink.send(event)
