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
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"
    BACKING_OFF = "backing-off"
    EXTERNAL = "external"
    CONFIG_ONLY = "config-only"


RUNNING_STATES: Final = frozenset({Lifecycle.STARTING, Lifecycle.READY, Lifecycle.UNHEALTHY})
"""There is a process and it is wanted."""


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
