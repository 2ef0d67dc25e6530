"""What the routes stand on, handed over once by whoever wires the program."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from actors import Board
from api.hosts import HostRule
from api.tokens import Tokens
from schemas.changes import ChangeAccepted, ConfigChange


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


AccessLog: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class ApiState:
    """Reads are answered from `board`; `change` asks the actor of the service that the change names.

    `change` raises what `schemas.changes` and `schemas.problems.ConfigInvalid` say, and the runtime's `Rejected`
    and `OutcomeUnknown`. `csrf_key`: 32 secret bytes that stay the same across restarts. `version`: the program's.
    `access_log` gets an entry for each request: method, path, status, ms, caller, address, request_id. None: no such log.
    """

    board: Board
    change: Callable[[ConfigChange], Awaitable[ChangeAccepted]]
    tokens: Tokens
    csrf_key: bytes = field(repr=False)
    hosts: HostRule
    version: str
    access_log: AccessLog | None = None
    limits: Limits = field(default_factory=Limits)
