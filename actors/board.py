"""What readers see without asking: answers that need nothing more, put there by the actors that own the facts.

Each entry is immutable and replaced as a whole, on the loop's thread, so a reader never sees half a change and never waits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from schemas.health import ComponentHealth, HealthReport
from schemas.service_schema import ServiceSchema
from schemas.status import ServiceStatus
from schemas.types import JSON


class Representation:
    """A body and its ETag (RFC 9110, section 8.8.3, quotes included), made when somebody first asks for one of them.

    A change that nobody reads costs no rendering; what is read is rendered once.
    """

    def __init__(self, render: Callable[[], tuple[bytes, str]]) -> None:
        """`render` gives the body and the ETag, the same whenever it is called."""
        self._render = render

    @cached_property
    def _made(self) -> tuple[bytes, str]:
        return self._render()

    @property
    def body(self) -> bytes:
        return self._made[0]

    @property
    def etag(self) -> str:
        return self._made[1]


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service's GET, with `fields` in it (`full`) and without (`short`).

    `values` gives its `config` as an object, secrets masked; it is made anew at each call.
    """

    service: str
    version: int
    config_epoch: str
    full: Representation
    short: Representation
    schema: ServiceSchema
    values: Callable[[], Mapping[str, JSON]]


@dataclass(slots=True)
class Board:
    """`services` keeps the manifest's order; each service's actor writes its own entry, the health actor the rest."""

    services: dict[str, ServiceView] = field(default_factory=dict)
    statuses: dict[str, ServiceStatus] = field(default_factory=dict)
    health: HealthReport = field(default_factory=HealthReport)
    components: dict[str, ComponentHealth] = field(default_factory=dict)
