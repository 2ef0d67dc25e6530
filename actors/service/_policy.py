"""When a worker that has ended is started again: restart policy, backoff, intensity. Neither clock nor randomness of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from signal import SIGTERM, Signals
from typing import Self

from schemas.manifest import Backoff, DelayProbe, HealthTopicProbe, Intensity, NoProbe, Restart, Service

SILENT_AFTER = 5.0
"""Seconds after which a worker that has not said anything of itself is said to run without a word."""

LONGEST_TURN = 30.0
"""Seconds for which one that loads may keep others from their turn to start, where no `start_period` bounds that."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the manifest says about the life of one worker, in the terms of `_lifecycle`. Times are in seconds.

    `success`: ends that are no failure, exit statuses and, negative, signals. `start_period`: a worker that is not ready
    by then is ended, as a failure; None: it may take as long as it wants. `silent_after`: one that has not said anything
    of itself is then said to run `silently`, which is a sentence, and no longer keeps others from starting.
    """

    restart: Restart = Restart.ALWAYS
    success: frozenset[int] = frozenset({0})
    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity = field(default_factory=Intensity)
    stop_signal: Signals = SIGTERM
    grace: float = 10.0
    start_period: float | None = None
    silent_after: float | None = SILENT_AFTER
    silently: str = "running; it has not said that it is ready"

    @classmethod
    def of(cls, service: Service) -> Self:
        """Read it from the manifest."""
        readiness = service.readiness
        silent_after = SILENT_AFTER if isinstance(readiness, HealthTopicProbe) else None
        return cls(
            restart=service.restart,
            success=frozenset(service.success_exit_codes) | {-Signals[name] for name in service.success_signals},
            backoff=service.backoff,
            intensity=service.intensity,
            stop_signal=Signals[service.stop_signal],
            grace=service.grace,
            start_period=None if isinstance(readiness, DelayProbe | NoProbe) else readiness.start_period,
            silent_after=silent_after,
            silently=f"running; it has not said on {service.health_topic} that it is ready",
        )

    def again(self, code: int | None) -> bool:
        """Whether one that ended by itself is started again. `code` as in `subprocess`; None: nobody knows."""
        return self.restart is Restart.ALWAYS or (self.restart is Restart.ON_FAILURE and code not in self.success)


def delay_of(backoff: Backoff, failures: int, draw: float) -> float:
    """Give the seconds until the next start after so many failures in a row; `draw`, from 0 to 1, is the chance in it."""
    # Beyond that many a power would leave the range of a float.
    grown = backoff.first * backoff.factor ** min(failures - 1, 64)
    return min(backoff.max, grown) * (1.0 - backoff.jitter * draw)


class Mishaps:
    """Counts a worker's ends that nobody asked for. Times are of one steady clock, in seconds."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """`draw` gives numbers from 0 to 1, such as `random.random`."""
        self._draw = draw
        self._failures = 0
        self._ends: list[float] = []

    def forgive(self) -> None:
        """Forget all: somebody has asked for another try."""
        self._failures = 0
        self._ends.clear()

    def not_spawned(self, policy: Policy) -> float:
        """Take a start that did not come to a process: seconds until the next. The worker is not to blame for it."""
        self._failures += 1
        return delay_of(policy.backoff, self._failures, self._draw())

    def ended(self, policy: Policy, now: float, spawned_at: float | None, ready_at: float | None) -> float | None:
        """Take an end: seconds until the next start, or None where that were too many."""
        backoff, intensity = policy.backoff, policy.intensity
        steady_since = spawned_at if ready_at is None else ready_at
        if steady_since is not None and now - steady_since >= backoff.reset_after:
            self._failures = 0
        self._failures += 1
        if intensity.restarts:
            self._ends.append(now)
            while self._ends[0] <= now - intensity.window or len(self._ends) > intensity.restarts + 1:
                del self._ends[0]
            if len(self._ends) > intensity.restarts:
                return None
        if ready_at is not None and self._failures == 1 and backoff.at_once_if_ready:
            return 0.0
        return delay_of(backoff, self._failures, self._draw())

    def at_once_from(self, policy: Policy, ready_at: float) -> float | None:
        """From when on `ended` of one that was ready at that time gives 0, if nothing else happens; None: never."""
        backoff, intensity = policy.backoff, policy.intensity
        if not backoff.at_once_if_ready:
            return None
        at = ready_at + backoff.reset_after if self._failures else ready_at
        if intensity.restarts and len(self._ends) >= intensity.restarts:
            at = max(at, self._ends[-intensity.restarts] + intensity.window)
        return at
