"""States, in named groups. Imports nothing of this project."""

from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a service is to the supervisor."""

    PROCESS = "process"
    EXTERNAL = "external"
    CONFIG_ONLY = "config-only"


class Lifecycle(StrEnum):
    """Where a worker is in its life. `external` and `config-only` services have no process here."""

    STOPPED = "stopped"
    """Nobody wants it: its owner has stopped it, or the supervisor ends or has not begun."""
    WAITING = "waiting"
    """It is wanted, and waits for what it starts after, or for its turn to start."""
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"
    """It is being ended, or has ended and left processes that are."""
    BACKING_OFF = "backing-off"
    FAILED = "failed"
    """It is given up until somebody asks for it or changes its configuration."""
    EXITED = "exited"
    """It has finished what it was for."""
    EXTERNAL = "external"
    CONFIG_ONLY = "config-only"


RUNNING_STATES: Final = frozenset({Lifecycle.STARTING, Lifecycle.READY, Lifecycle.UNHEALTHY})
"""There is a process and it is wanted."""

PROCESS_STATES: Final = RUNNING_STATES | {Lifecycle.STOPPING}
"""There is a process, or something of its tree, wanted or not; or there is about to be one."""

DOWN_STATES: Final = frozenset(
    {Lifecycle.STOPPED, Lifecycle.WAITING, Lifecycle.BACKING_OFF, Lifecycle.FAILED, Lifecycle.EXITED}
)
"""There is no process of it at all."""


class DatabaseStatus(StrEnum):
    HEALTHY = "healthy"
    LOCKED = "locked"
    CORRUPTED = "corrupted"
    SCHEMA_MISMATCH = "schema-mismatch"


class OperationalMode(StrEnum):
    NORMAL = "normal"
    READ_ONLY_FALLBACK = "read-only-fallback"
    REBUILDING = "rebuilding"


class LitestreamStatus(StrEnum):
    HEALTHY = "healthy"
    ERROR = "error"
    DISABLED = "disabled"


class Role(StrEnum):
    """What a token may do; each includes the ones before it."""

    READ = "config.read"
    WRITE = "config.write"
    ADMIN = "admin"


PERMISSIONS: Final[dict[Role, tuple[Role, ...]]] = {
    Role.READ: (Role.READ,),
    Role.WRITE: (Role.READ, Role.WRITE),
    Role.ADMIN: (Role.READ, Role.WRITE, Role.ADMIN),
}
