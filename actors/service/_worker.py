"""The life of one worker as a state machine: what state it is in, and when it is started again. It does nothing itself.

            spawned     not-spawned  silent    well   ill        asked-to-end  ended         given-up
stopped     starting    backing-off  -         -      -          -             -             stopped
backing-off starting    backing-off  -         -      -          -             -             stopped
starting    -           -            starting  ready  starting   stopping      backing-off   -
ready       -           -            -         ready  unhealthy  stopping      backing-off   -
unhealthy   -           -            -         ready  unhealthy  stopping      backing-off   -
stopping    -           -            -         -      -          stopping      stopped       -

One that ends while it is not wanted is `stopped`, too. While it loads, "not yet" is no illness.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from schemas.states import RUNNING_STATES, Lifecycle

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between a failed start and the next one: doubling from the first to the longest, with jitter."""

STABLE_AFTER = 60.0
"""Seconds of readiness after which earlier failures no longer count; of running, for one that never says it is ready."""


class Event(Enum):
    """What happens to a worker."""

    SPAWNED = auto()
    NOT_SPAWNED = auto()
    SILENT = auto()
    WELL = auto()
    ILL = auto()
    ASKED_TO_END = auto()
    ENDED = auto()
    GIVEN_UP = auto()


_DOWN: Final = (Lifecycle.STOPPED, Lifecycle.BACKING_OFF)
NEXT: Final[Mapping[Event, Mapping[Lifecycle, Lifecycle]]] = {
    Event.SPAWNED: dict.fromkeys(_DOWN, Lifecycle.STARTING),
    Event.NOT_SPAWNED: dict.fromkeys(_DOWN, Lifecycle.BACKING_OFF),
    Event.SILENT: {Lifecycle.STARTING: Lifecycle.STARTING},
    Event.WELL: dict.fromkeys(RUNNING_STATES, Lifecycle.READY),
    Event.ILL: {**dict.fromkeys(RUNNING_STATES, Lifecycle.UNHEALTHY), Lifecycle.STARTING: Lifecycle.STARTING},
    Event.ASKED_TO_END: dict.fromkeys((*RUNNING_STATES, Lifecycle.STOPPING), Lifecycle.STOPPING),
    Event.ENDED: {**dict.fromkeys(RUNNING_STATES, Lifecycle.BACKING_OFF), Lifecycle.STOPPING: Lifecycle.STOPPED},
    Event.GIVEN_UP: dict.fromkeys(_DOWN, Lifecycle.STOPPED),
}
"""The table above; where it has a dash the event changes nothing."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One start of the worker."""

    name: str
    pid: int


class Worker:
    """Keeps the state. `wanted` is what the owner of the machine wants; the state follows it.

    `on_change` is called after each change of state or reason. Times are of `clock`, in seconds.
    """

    def __init__(self, *, on_change: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._spawned_at = 0.0
        self._ready_at: float | None = None
        self._heard = False
        self.wanted = False
        self.state = Lifecycle.STOPPED
        self.since = datetime.now(UTC)
        self.reason = "not started yet"
        self.instance: Instance | None = None
        self.restarts = 0

    @property
    def running(self) -> bool:
        """There is a process, wanted or not."""
        return self.instance is not None

    def spawned(self, instance: Instance, reason: str) -> None:
        """Take its start; it is `starting` until its health says otherwise."""
        assert not self.running
        self.instance = instance
        self._spawned_at = self._clock()
        self._ready_at = None
        self._heard = False
        self._move(Event.SPAWNED, reason)

    def not_spawned(self, reason: str) -> float:
        """Take a start that failed: seconds until the next."""
        self._failures += 1
        self._move(Event.NOT_SPAWNED, reason)
        return self._delay()

    def silent(self, reason: str) -> None:
        """Take that it has been given some time to speak: news where it has not said anything of itself."""
        if not self._heard:
            self._move(Event.SILENT, reason)

    def healthy(self, ok: bool, reason: str) -> None:
        """Take what it says of itself."""
        self._heard = True
        if ok and self.state in RUNNING_STATES and self._ready_at is None:
            self._ready_at = self._clock()
        # "Not yet" is told in its own words, too.
        self._move(Event.WELL if ok else Event.ILL, reason)

    def asked_to_end(self, reason: str) -> bool:
        """Take that it is to end: whether that is news."""
        news = self.state in RUNNING_STATES
        self._move(Event.ASKED_TO_END, reason)
        return news

    def given_up(self, reason: str) -> None:
        """Take that it is not wanted any more."""
        self.wanted = False
        self._move(Event.GIVEN_UP, reason)

    def ended(self, how: str) -> float | None:
        """Take its end: seconds until it is to be started again, or None where it is to stay down."""
        assert self.running
        asked = self.state is Lifecycle.STOPPING
        was_ready = self._ready_at is not None
        steady_since = self._spawned_at if self._ready_at is None else self._ready_at
        if self._clock() - steady_since >= STABLE_AFTER:
            self._failures = 0
        self.instance = None
        if self.wanted:
            self.restarts += 1
        if asked:
            self._move(Event.ENDED, self.reason)
        else:
            self._failures += 1
            self._move(Event.ENDED, how)
        if not self.wanted:
            self._move(Event.GIVEN_UP, self.reason)
            return None
        # A first mishap of one that worked is mended at once.
        return 0.0 if asked or (was_ready and self._failures == 1) else self._delay()

    def _delay(self) -> float:
        grown: float = FIRST_DELAY * 2.0 ** min(self._failures - 1, 16)
        return min(LONGEST_DELAY, grown) * random.uniform(0.8, 1.0)  # noqa: S311  # jitter

    def _move(self, event: Event, reason: str) -> None:
        state = NEXT[event].get(self.state)
        if state is None or (state, reason) == (self.state, self.reason):
            return
        if state is not self.state:
            self.since = datetime.now(UTC)
        self.state = state
        self.reason = reason
        self._on_change()
