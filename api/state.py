"""What the routes stand on, handed over once by whoever wires the program."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from actors import Board, Events, Output
from api.hosts import HostRule
from api.streams import Streams
from api.tokens import Tokens
from schemas.changes import ChangeAccepted, ConfigChange
from schemas.history import Difference, Point
from schemas.manifest import Differences
from schemas.plans import ChangePlan
from schemas.profiles import Activated, Activation, Author, Compared, ProfileChange, ProfileEntry
from schemas.records import HistoryEntry, HistoryQuery
from schemas.restores import Restore, Restored
from schemas.status import Outcome, Verb
from schemas.types import ServiceName


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a client may send, and on how long it may take. Sizes in bytes, times in seconds."""

    body: int = 1024 * 1024
    """A request's content; more is 413."""
    depth: int = 32
    """Arrays and objects inside one another in a JSON body."""
    head: int = 32 * 1024
    """Request line and header fields together; more is 431."""
    connections: int = 256
    """Open at once; from here on a request is answered by 503, from twice as many on a connection is dropped."""
    head_seconds: float = 10.0
    """From a connection's start, or the first byte of a later request, to the end of the head."""
    body_seconds: float = 30.0
    """From the end of the head to the end of the content; then 408."""
    keep_alive_seconds: float = 30.0
    """Between two requests of a connection."""
    write_seconds: float = 30.0
    """For a client to take any of an answer that waits for it."""
    drain_seconds: float = 5.0
    """For a client to finish sending what was answered already: closing on it at once could lose the answer."""
    streams: int = 64
    streams_of_a_token: int = 16
    """Answers without an end, open at once; more is 429."""
    heartbeat_seconds: float = 15.0
    """Between two signs of life of a stream that has nothing to say."""


AccessLog: TypeAlias = Callable[[dict[str, Any]], None]


class Command(Protocol):
    """Asks a worker, or all of them (`service` is None), and waits for it up to `wait_s` seconds.

    `dependants`: those that start after it, too, or of a start those that it starts after; `rolling`: one after the other.
    `by` is the caller's name, `reason` what they said, if anything. Raises `schemas.status.CommandRefused`, and the runtime's
    `Rejected` and `OutcomeUnknown`.
    """

    def __call__(
        self,
        service: str | None,
        verb: Verb,
        *,
        dependants: bool,
        rolling: bool,
        by: str,
        reason: str | None,
        wait_s: float,
    ) -> Awaitable[Outcome]: ...


class Reload(Protocol):
    """Reads the manifest anew, and does what it asks for; or, `only_plan`, only tells that. Raises
    `schemas.status.ReloadRefused`.
    """

    def __call__(self, *, only_plan: bool) -> Awaitable[Differences]: ...


class History(Protocol):
    """Looks back. Both raise `schemas.records.UnknownService` and `StoreUnavailable`, and the runtime's `Rejected` and
    `OutcomeUnknown`; `difference` raises `schemas.history.NotReached`, too.
    """

    def page(self, query: HistoryQuery) -> Awaitable[tuple[HistoryEntry, ...]]: ...

    def difference(self, service: ServiceName | None, old: Point, new: Point) -> Awaitable[Difference]: ...


class Restores(Protocol):
    """Brings earlier settings back; or, `only_plan`, only tells what that would do. Raises what `History` and `change` raise,
    `schemas.restores.UnknownEntries` and `schemas.changes.GroupRefused`.
    """

    def __call__(self, wanted: Restore, *, only_plan: bool) -> Awaitable[Restored]: ...


class Profiles(Protocol):
    """Keeps what is set now under names, and puts it in force again.

    All raise `schemas.records.StoreUnavailable`, and the runtime's `Rejected` and `OutcomeUnknown`; all but `entries` and `save`
    raise `schemas.profiles.UnknownProfile`, `save` and `change` its `ProfileExists`, `save` its `TooManyProfiles`. What writes
    raises `schemas.changes.ReadOnly`, and `activate` `GroupRefused`, too.
    """

    def entries(self) -> Awaitable[tuple[ProfileEntry, ...]]: ...

    def save(
        self, name: str, *, description: str | None, services: Collection[str] | None, replace: bool, author: Author
    ) -> Awaitable[ProfileEntry]: ...

    def compared(self, name: str, author: Author) -> Awaitable[Compared]: ...

    def change(self, wanted: ProfileChange) -> Awaitable[ProfileEntry]: ...

    def delete(self, name: str, author: Author) -> Awaitable[None]: ...

    def activate(self, wanted: Activation, *, only_plan: bool) -> Awaitable[Activated]: ...


@dataclass(frozen=True, slots=True)
class ApiState:
    """Reads are answered from `board`; `change` asks the actor of the service that the change names.

    `change` raises what `schemas.changes` and `schemas.problems.ConfigInvalid` say, and the runtime's `Rejected`
    and `OutcomeUnknown`; `plan` tells what it would do, and raises as `change` does. `csrf_key`: 32 secret bytes that stay the
    same across restarts. `version`: the program's. `access_log` gets an entry for each request: method, path, status, ms,
    caller, address, request_id. None: no such log. `output` gives a service's output, None where nothing of it is read here.
    `broker_pid` gives that of the embedded broker, None while there is no process of it; it is not given where no broker is
    embedded.
    """

    board: Board
    change: Callable[[ConfigChange], Awaitable[ChangeAccepted]]
    plan: Callable[[ConfigChange], Awaitable[ChangePlan]]
    tokens: Tokens
    csrf_key: bytes = field(repr=False)
    hosts: HostRule
    version: str
    command: Command
    reload: Reload
    history: History
    restore: Restores
    profiles: Profiles
    output: Callable[[str], Output | None]
    events: Events
    broker_pid: Callable[[], int | None] | None = None
    access_log: AccessLog | None = None
    limits: Limits = field(default_factory=Limits)
    streams: Streams = field(default_factory=Streams)
