"""What readers see without asking: finished answers, put there by the actors that own the facts.

Each entry is immutable and replaced as a whole, on the loop's thread, so a reader never sees half a change and never waits.
"""

from dataclasses import dataclass, field

from schemas.health import ComponentHealth, HealthReport
from schemas.messages import StateMessage


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service's GET, finished: bodies and their ETags (RFC 9110, section 8.8.3, quotes included)."""

    service: str
    version: int
    config_epoch: str
    body: bytes
    etag: str
    body_without_fields: bytes
    etag_without_fields: str


@dataclass(slots=True)
class Board:
    """`services` keeps the manifest's order; each service's actor writes its own entry, the health actor the rest."""

    services: dict[str, ServiceView] = field(default_factory=dict)
    states: dict[str, StateMessage] = field(default_factory=dict)
    health: HealthReport = field(default_factory=HealthReport)
    components: dict[str, ComponentHealth] = field(default_factory=dict)
