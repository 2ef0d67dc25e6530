"""What is known of a service and its worker, for readers; commands to it, and what came of them."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from schemas.base import Model
from schemas.messages import VersionMark
from schemas.states import Kind, Lifecycle


class Verb(StrEnum):
    """What can be asked of a worker."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class EndStatus(Model):
    """One end of a worker. `reason`: why it was ended, or how it ended by itself.

    `exit_code` and `signal` (its name) tell how its first process ended; both are None where nobody knows. `memory` is in
    bytes, at its end or its peak; `ran_s` in seconds. `restarted`: another start followed by itself.
    """

    at: datetime
    instance: str
    reason: str
    exit_code: int | None = None
    signal: str | None = None
    last_lines: tuple[str, ...] = ()
    memory: int | None = None
    ran_s: float | None = None
    restarted: bool = False


class ServiceStatus(Model):
    """A service as it is now. Figures of its process are read by `pid` when somebody asks.

    `wanted`: what the owner wants, whatever the worker does. `restarts` and `ends` (the last 20, the oldest first) are of
    this life of the supervisor. `waits_for` names services; `due` is when the next start is tried. `diverged` are keys
    that the worker still runs with other values of than are in force, where it tells.
    """

    service: str
    kind: Kind
    state: Lifecycle
    since: datetime
    reason: str
    wanted: bool
    instance: str | None = None
    pid: int | None = None
    started_at: datetime | None = None
    ready_at: datetime | None = None
    restarts: int = 0
    ends: tuple[EndStatus, ...] = ()
    waits_for: tuple[str, ...] = ()
    due: datetime | None = None
    desired: VersionMark
    published: VersionMark | None = None
    reported: VersionMark | None = None
    diverged: tuple[str, ...] = ()


class Outcome(Model):
    """What came of a command. `done`: all of it came true within its time.

    `services` are those it was about, as they are now, in the order of the manifest. `trouble` says why something has not
    come true, by service; `untouched` are those that a rolling restart did not come to.
    """

    done: bool
    services: tuple[ServiceStatus, ...]
    trouble: dict[str, str] = Field(default_factory=dict)
    untouched: tuple[str, ...] = ()


class CommandRefused(Exception):
    """The command makes no sense for this service, and nothing happened. The message is a sentence for a person."""


class ReloadRefused(Exception):
    """The manifest has mistakes, and nothing happened. `lines`: a sentence for each, with file and line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(self.lines))


class UnknownService(CommandRefused):
    """There is no such service."""
