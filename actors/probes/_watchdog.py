"""The deadline of `WATCHDOG=1` (sd_notify(3))."""

import asyncio
from collections.abc import Callable
from contextvars import Context

from actors.probes._probe import aligned

SECOND_LOOK = 0.05
"""Seconds after a missed deadline until it counts: what the worker has sent while this program was busy is read first."""


class Watchdog:
    """Calls `on_silence` once where `pat` is not called for `timeout` seconds from `start` on.

    A pat costs no timer: the one that runs looks at the time of the last. Time in which the machine sleeps does not count.
    """

    def __init__(self, timeout: float, on_silence: Callable[[str], None]) -> None:
        self._timeout = timeout
        self._on_silence = on_silence
        self._timer: asyncio.TimerHandle | None = None
        self._patted = 0.0

    def start(self) -> None:
        """Begin: the worker is ready."""
        self.stop()
        self.pat()
        self._look_at(aligned(self._patted, self._timeout))

    def pat(self) -> None:
        """Take a sign of life."""
        self._patted = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """End. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, when: float, *, second: bool = False) -> None:
        self._timer = asyncio.get_running_loop().call_at(when, self._look, second, context=Context())

    def _look(self, second: bool) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        left = self._patted + self._timeout - now
        if left > 0:
            self._look_at(aligned(now, left))
        elif not second:
            self._look_at(now + SECOND_LOOK, second=True)
        else:
            self._on_silence(f"its watchdog has heard nothing for {self._timeout:g} s")
