"""What happens to a worker, and what is to be done about it, as data: the words between `_lifecycle` and its actor.

They are `Struct`s, since so many dataclasses would be a fiftieth of a start.
"""

from dataclasses import dataclass
from datetime import datetime
from signal import Signals
from typing import NamedTuple

from msgspec import Struct

from schemas.states import Lifecycle


class Moment(NamedTuple):
    """A time twice: of CLOCK_MONOTONIC in seconds, which is counted with, and of the wall, which is told."""

    steady: float
    wall: datetime


class _Reasoned(Struct, frozen=True):
    reason: str


class _OfInstance(Struct, frozen=True):
    """Of one start. What comes of another than the present one changes nothing."""

    instance: str


# -- events: what is asked


class Begin(_Reasoned, frozen=True):
    """The supervisor has begun: up with it, if its owner wants it."""


class Start(_Reasoned, frozen=True):
    """Its owner wants it to run, from now on."""


class Stop(_Reasoned, frozen=True):
    """Its owner wants it not to run, until `Start` or `Restart`."""


class Restart(_Reasoned, frozen=True):
    """Its owner wants a new instance, from now on."""


class Renew(_Reasoned, frozen=True):
    """Something has changed that only a new instance knows: a setting, its command. Does not touch what the owner wants."""


class Retry(_Reasoned, frozen=True):
    """Something has changed that may be the cure of one that is down."""


class Close(_Reasoned, frozen=True):
    """The supervisor stops, and the worker with it. Not said where workers are to outlive the supervisor."""


class Hurry(Struct, frozen=True):
    """Whoever asked for an end does not want to wait for it."""


# -- events: of the order of starts (see `_start_order`)


class Granted(Struct, frozen=True):
    """It is its turn to start. Counts for the `Queue` of this ticket alone."""

    ticket: int


class Held(Struct, frozen=True):
    """It has to wait, and for what."""

    ticket: int
    reason: str


# -- events: of the process


class Spawned(_OfInstance, frozen=True):
    pid: int


class SpawnFailed(_OfInstance, frozen=True):
    """There is no process of this instance, and there will be none.

    `retry`: the cause may pass by itself (a folder cannot be written, the signer is down). Else, as where the program is missing
    or its user unknown, somebody has to mend something first.
    """

    reason: str
    retry: bool


class Ended(_OfInstance, frozen=True):
    """Its first process has ended, maybe before `Spawned` was seen.

    `code`: exit status, or minus the number of the signal; None where nobody knows. `how`: the same for people. `tree_gone`:
    nothing that it has started is left; else `TreeGone` follows. `memory`: bytes, when it was last looked at.
    """

    code: int | None
    how: str
    tree_gone: bool
    last_lines: tuple[str, ...] = ()
    memory: int | None = None


class TreeGone(_OfInstance, frozen=True):
    """Neither it nor anything that it has started is left, or will be."""


class Adopted(_OfInstance, frozen=True):
    """A process that an earlier supervisor has started is there. Times are of CLOCK_MONOTONIC."""

    pid: int
    spawned_at: float
    ready_at: float | None
    reason: str


# -- events: of its health


class Ready(_OfInstance, frozen=True):
    reason: str


class Unhealthy(_OfInstance, frozen=True):
    """It says, or a probe finds, that it is not well. While it starts that means: not yet."""

    reason: str


class Condemned(_OfInstance, frozen=True):
    """It has to go, and that counts as a failure: liveness probe, watchdog, memory limit."""

    reason: str
    signal: Signals | None = None
    """Instead of the policy's stop signal, such as SIGABRT for one that hangs."""


class Due(Struct, frozen=True):
    """The time of the last `Arm` has come."""

    at: float


Event = (
    Begin | Start | Stop | Restart | Renew | Retry | Close | Hurry | Granted | Held | Spawned | SpawnFailed
    | Ended | TreeGone | Adopted | Ready | Unhealthy | Condemned | Due
)  # fmt: skip


# -- actions


class Keep(Struct, frozen=True):
    """Write down, durably and before the actions after it, whether the owner wants it to run."""

    wanted: bool


class Queue(Struct, frozen=True):
    """Ask for a turn to start; `Granted` or `Held` of this ticket follow."""

    ticket: int


class Withdraw(Struct, frozen=True):
    """It does not ask any more."""

    ticket: int


class Release(Struct, frozen=True):
    """It does not keep others from their turn any more."""


class Spawn(_OfInstance, frozen=True):
    """Start it under this name, which is on record before the process is; `Spawned` or `SpawnFailed` follows."""

    reason: str


class Terminate(_OfInstance, frozen=True):
    """Ask it to end. `KillTree` follows after `grace` seconds by itself."""

    signal: Signals
    grace: float


class KillTree(_OfInstance, frozen=True):
    """Kill whatever is of this instance, and see to it that it is not spawned if it has not been yet.

    `TreeGone` follows, or `Ended` with `tree_gone`; where neither comes this action does, again and again. `reason` is for the
    log.
    """

    reason: str


class Arm(Struct, frozen=True):
    """Say `Due` at this time, instead of any earlier such wish; None: at no time."""

    at: float | None


class Tell(Struct, frozen=True):
    """State, reason, process or number of restarts have changed; `before` was the state. The last action, once at most."""

    before: Lifecycle


Action = Keep | Queue | Withdraw | Release | Spawn | Terminate | KillTree | Arm | Tell


@dataclass(frozen=True, slots=True)
class End:
    """One end of a worker, for people. `reason`: why it was ended, or how it ended by itself."""

    at: datetime
    instance: str
    reason: str
    code: int | None
    how: str
    ran_s: float | None
    last_lines: tuple[str, ...]
    memory: int | None
    restarted: bool
