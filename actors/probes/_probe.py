"""What all probes are: something that is started, finds out, says so, and is stopped."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from math import ceil

MAX_TEXT = 500
"""Characters that are shown of what a probe says, or a notify socket hears. It is cut by who shows it, once secrets are struck
out of it: half of one would not be found.
"""

OnResult = Callable[[bool, str], None]
"""Takes whether it is well, and a sentence."""


class Probe:
    """One probe of one instance of a worker. Started once and stopped once, on the loop's thread.

    `on_result` is called on the loop when the verdict changes, or its sentence does; never from within `start`, never after
    `stop`. What the worker itself says is handed to every probe; those whom it does not concern let it pass. Of a probe that
    is not started, or has been stopped, there is neither task, timer, process nor descriptor, at the latest when `gone` returns.
    """

    listens = False
    """It wants the lines of the worker's output. A class's, and no longer so where it has found what it looked for."""

    def __init__(self, on_result: OnResult) -> None:
        self._on_result: OnResult | None = on_result
        self._last: tuple[bool, str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin: the worker was spawned (readiness), or is ready (liveness). Needs a running loop."""

    def stop(self) -> None:
        """End; cancels what is under way. May be called again, also by `on_result`."""
        self._on_result = self._last = None
        self._at(None)

    async def gone(self) -> None:
        """Return when nothing is left of it, after `stop`. Takes as long as a process needs to die of SIGKILL."""

    def heard(self, ok: bool, text: str) -> None:
        """Take what the worker has said on its health topic."""

    def line(self, line: str) -> None:
        """Take a line of its output."""

    def notified_ready(self, text: str) -> None:
        """Take `READY=1` on its notify socket."""

    def _say(self, ok: bool, text: str) -> None:
        said = (ok, text)
        if self._on_result is not None and said != self._last:
            self._last = said
            self._on_result(*said)

    def _at(self, when: float | None, method: Callable[[], None] | None = None) -> None:
        """Call it at this time of the loop, instead of what else was to be called."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None and method is not None:
            # A probe outlives the request in whose context it may have been started.
            self._timer = asyncio.get_running_loop().call_at(when, method, context=Context())


class Count:
    """Successes and failures in a row, made into verdicts by thresholds. Times are the loop's, in seconds."""

    def __init__(self, *, successes: int, failures: int, start_until: float) -> None:
        """Failures before `start_until` do not count, as long as there was no success."""
        self._successes = successes
        self._failures = failures
        self._start_until = start_until
        self._row = 0
        self.verdict: bool | None = None

    def take(self, ok: bool, now: float) -> bool:
        """Take the outcome of a try: whether there is a verdict that agrees with it."""
        if not ok and self.verdict is None and now < self._start_until:
            self._row = 0
            return False
        self._row = max(self._row, 0) + 1 if ok else min(self._row, 0) - 1
        if self._row >= self._successes:
            self.verdict = True
        elif -self._row >= self._failures:
            self.verdict = False
        return self.verdict is ok


def aligned(now: float, delay: float) -> float:
    """Give a time not before `delay` seconds from now on which others fall too, so that many timers make one wake-up.

    At most a quarter later, and at most a second. Each raster is a multiple of the finer ones.
    """
    raster = 1.0
    while raster > delay / 4.0:
        raster /= 2.0
        if raster < 0.01:
            return now + delay
    return ceil((now + delay) / raster) * raster
