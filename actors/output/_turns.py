"""Who may look at lines now: a slice of the loop's time for all services together, in turn."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context

from actors.output._settings import PAUSE, PAUSE_IN_FLOOD, SLICE

Work = Callable[[float], bool]
"""Works until the given `time.perf_counter()`; tells whether there is more to do."""


class Turns:
    """Runs work in slices of `SLICE`, with a pause after each in which the loop is everybody else's.

    Those with more to do than a slice go to the end of the queue. Runs nothing while there is nothing to do.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Work] = deque()
        self._handle: asyncio.Handle | None = None
        self.floods = 0
        """Streams that are being dropped from: while there is one the pauses are longer, since reading comes first."""

    def ask(self, work: Work) -> None:
        """Give `work` a turn, one if it was asked for several."""
        if work not in self._queue:
            self._queue.append(work)
        if self._handle is None:
            self._handle = self._loop.call_soon(self._run, context=Context())

    def close(self) -> None:
        self._queue.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        until = time.perf_counter() + SLICE
        while self._queue:
            work = self._queue.popleft()
            if work(until):
                self._queue.append(work)
            if time.perf_counter() >= until:
                break
        if self._queue and self._handle is None:
            pause = PAUSE_IN_FLOOD if self.floods else PAUSE
            self._handle = self._loop.call_later(pause, self._run, context=Context())
