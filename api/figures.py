"""What processes take of the machine, as the kernel counts it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from msgspec import Struct

T = TypeVar("T")

FRESH: Final = 1.0
"""Seconds for which figures count."""


class ProcessKey(NamedTuple):
    """A process, and the name of its start: a number alone may be given to a stranger later."""

    instance: str
    pid: int


class Figures(Struct, frozen=True):
    """Of one process, without its children. None: the kernel does not tell us.

    `cpu_s`: seconds of processor that it has used; `cpu_percent`: of one processor, since the last look. `memory`: bytes, and
    `memory_kind` what they are: `pss` shares what it has in common with others among them, `rss` counts it whole.
    """

    cpu_s: float | None = None
    cpu_percent: float | None = None
    memory: int | None = None
    memory_kind: Literal["pss", "rss"] | None = None
    fds: int | None = None
    threads: int | None = None


Readings: TypeAlias = Mapping[ProcessKey, Figures]


class FigureReader:
    """Reads them when somebody asks, at most once in `FRESH` seconds, for all who ask meanwhile.

    In a thread, which ends with the reading: the kernel walks through a large process's memory for milliseconds (proc(5),
    smaps_rollup). Whoever is cancelled while waiting for it cancels nothing.
    """

    def __init__(self) -> None:
        self._look = _Look()
        self._readings: Readings = {}
        self._until = float("-inf")
        self._reading: asyncio.Future[Readings] | None = None

    async def read(self, processes: Mapping[ProcessKey, object]) -> Readings:
        """Give the figures of `processes`, as far as there are any: none of those that ended, or began a moment ago."""
        loop = asyncio.get_running_loop()
        if self._reading is None and loop.time() >= self._until:
            thread = ThreadPoolExecutor(1, thread_name_prefix="figures")
            self._reading = loop.run_in_executor(thread, self._look.at, tuple(processes))
            self._reading.add_done_callback(self._done)
            thread.shutdown(wait=False)
        return self._readings if self._reading is None else await asyncio.shield(self._reading)

    def _done(self, reading: asyncio.Future[Readings]) -> None:
        self._reading = None
        self._until = reading.get_loop().time() + FRESH
        if not reading.cancelled() and reading.exception() is None:
            self._readings = reading.result()


class _Look:
    """Remembers what the percentages start from. Used by one thread at a time."""

    def __init__(self) -> None:
        self._processes: dict[ProcessKey, Any] = {}
        self._before: dict[ProcessKey, tuple[float, float]] = {}

    def at(self, keys: tuple[ProcessKey, ...]) -> Readings:
        # Imported here, since most of the time nobody looks: 15 ms and 3 MiB.
        import psutil  # noqa: PLC0415

        process_of: Any = psutil.Process
        processes, before = self._processes, self._before
        self._processes, self._before = {}, {}
        readings: dict[ProcessKey, Figures] = {}
        for key in keys:
            try:
                process = processes.get(key) or process_of(key.pid)
                # Compares the time of its start with that of the first look.
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                with process.oneshot():
                    readings[key] = self._figures(key, process, before.get(key))
            except psutil.Error:
                continue
            self._processes[key] = process
        return readings

    def _figures(self, key: ProcessKey, process: Any, before: tuple[float, float] | None) -> Figures:
        times = process.cpu_times()
        now, used = time.monotonic(), times.user + times.system
        self._before[key] = now, used
        percent = None
        if before is not None and now > before[0]:
            percent = round(max(0.0, used - before[1]) / (now - before[0]) * 100, 1)
        memory, kind = _told(lambda: process.memory_full_info().pss), "pss"
        if memory is None:
            memory, kind = process.memory_info().rss, "rss"
        return Figures(
            cpu_s=round(used, 2),
            cpu_percent=percent,
            memory=memory,
            memory_kind="pss" if kind == "pss" else "rss",
            fds=_told(process.num_fds),
            threads=process.num_threads(),
        )


def _told(ask: Callable[[], T]) -> T | None:
    """What the kernel keeps from whoever is not its owner: None."""
    import psutil  # noqa: PLC0415 - as above

    try:
        return ask()
    except psutil.AccessDenied:
        return None
