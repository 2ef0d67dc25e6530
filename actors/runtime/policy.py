"""What a supervisor is told: whom to start, when to restart, how often, how soon.

Terms and meaning are those of Erlang/OTP's "supervisor" behaviour; the backoff is ours.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from actors.runtime._ref import Ref
from actors.runtime.errors import Foreseen
from actors.runtime.handle import Handle


class Restart(Enum):
    """When a child that ended is started again. One that is never is forgotten, so that its name is free."""

    PERMANENT = "always"
    TRANSIENT = "unless it stopped in order"
    TEMPORARY = "never"


class Strategy(Enum):
    """Which children a restart takes along. They are stopped when the one ends, not when its backoff is over."""

    ONE_FOR_ONE = "the one that ended"
    REST_FOR_ONE = "the one that ended and those started after it"


@dataclass(frozen=True, slots=True)
class Intensity:
    """More than `restarts` within `window` seconds, and the supervisor gives up and fails itself."""

    restarts: int = 5
    window: float = 30.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the n-th restart within the intensity's window: at once, then doubling, with up to 20 % jitter."""

    initial: float = 0.05
    maximum: float = 5.0

    def delay(self, restarts: int) -> float:
        if restarts <= 1:
            return 0.0
        grown: float = self.initial * 2.0 ** min(restarts - 2, 30)
        return min(self.maximum, grown) * random.uniform(0.8, 1.0)  # noqa: S311  # jitter


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor starts and keeps one child.

    `start` gives a newly started actor's reference (`SomeActor.start(...)`); others reach it through `handle`. Times are in
    seconds: `start_timeout` for `on_start`; `stop_timeout` for what waits in the mailbox and `on_stop`, after which it is
    cancelled. A supervisor as a child needs as long as its own children together.
    """

    handle: Handle[Any]
    start: Callable[[], Ref[Any]]
    restart: Restart = Restart.PERMANENT
    start_timeout: float = 15.0
    stop_timeout: float = 5.0

    @property
    def name(self) -> str:
        return self.handle.name


class Escalation(Foreseen):
    """A supervisor gave up on a child: it ended more often than its intensity allows."""
