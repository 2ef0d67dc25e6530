"""The memory that a worker and its children use: looked at where the kernel does not keep to a limit for us."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from contextvars import Context
from pathlib import Path

LOOK_EVERY = 5.0
"""Seconds from one look to the next; so long a worker may be over its limit."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def used_by(pid: int) -> int:
    """Bytes in memory of a process and those below it (proc_pid_statm(5)); shared pages count for each that has them."""
    total, left = 0, [pid]
    seen: set[int] = set()
    while left:
        present = left.pop()
        if present in seen:
            continue
        seen.add(present)
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{present}/statm").read_text().split()[1]) * _PAGE
            for task in Path(f"/proc/{present}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return total


class MemoryWatch:
    """Calls `on_over` with a sentence, once, when a worker uses more than its limit. One timer; `close` ends it."""

    def __init__(self, pid: int, limit: int, on_over: Callable[[str], None]) -> None:
        self._pid = pid
        self._limit = limit
        self._on_over = on_over
        self._timer: asyncio.TimerHandle | None = None
        self._again()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look, context=Context())

    def _look(self) -> None:
        used = used_by(self._pid)
        if used <= self._limit:
            self._again()
            return
        self._timer = None
        mib = 1024 * 1024
        self._on_over(
            f"it uses {used / mib:.0f} MiB of memory, more than its memory_limit of {self._limit / mib:.0f} MiB"
        )
