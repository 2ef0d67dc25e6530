"""What a changed manifest asks for, service by service: the plan of a reload."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from schemas.manifest._models import Manifest, Service
from schemas.types import ServiceName

RESTART_KEYS: Final = frozenset(
    {
        "kind", "command", "cwd", "user", "group", "environment", "pass_environment", "umask", "nice", "rlimits",
        "memory_limit", "model", "watchdog",
    }
)  # fmt: skip
"""What a process has from its start on. Some of it could be changed while it runs (prlimit(2), a cgroup's limit), but then what
runs is not what the next start would give.
"""

POLICY_KEYS: Final = frozenset(
    {
        "health_topic", "start_after", "readiness", "liveness", "restart", "success_exit_codes", "success_signals",
        "backoff", "intensity", "stop_signal", "grace", "probation", "output", "restart_command",
    }
)  # fmt: skip
"""What only the supervisor goes by. `readiness` is of the other kind where it gives or takes the notify socket."""


class Change(StrEnum):
    """What a reload does to one service."""

    ADDED = "added"
    REMOVED = "removed"
    RESTART = "restart"
    """The worker is restarted, with everything that changed."""
    POLICY = "policy"
    """The supervisor goes by new rules from now on; the worker is left alone."""
    UNCHANGED = "unchanged"


class Difference(Struct, frozen=True):
    """`keys`: which ones changed, in the models' order; none where the service is new, gone, or the same."""

    service: ServiceName
    change: Change
    keys: tuple[str, ...] = ()


class Differences(Struct, frozen=True):
    """`services`: one for each service of either manifest, in the new one's order, then those that are gone in the old one's."""

    services: tuple[Difference, ...]
    concurrent_starts: bool
    """Whether the number of concurrent starts changed."""

    @property
    def nothing(self) -> bool:
        """Nothing is to be done."""
        return not self.concurrent_starts and all(each.change is Change.UNCHANGED for each in self.services)


def differences(old: Manifest, new: Manifest) -> Differences:
    """What makes `new` of `old`. The order of services, or of a table's keys, is no difference; that of a list is."""
    before: Mapping[ServiceName, Service] = {service.name: service for service in old.services}
    after = {service.name for service in new.services}
    found = [_difference(before.get(service.name), service) for service in new.services]
    found += [Difference(name, Change.REMOVED) for name in before if name not in after]
    return Differences(tuple(found), old.concurrent_starts != new.concurrent_starts)


def _difference(old: Service | None, new: Service) -> Difference:
    if old is None:
        return Difference(new.name, Change.ADDED)
    keys = tuple(key for key in Service.model_fields if getattr(old, key) != getattr(new, key))
    if not keys:
        return Difference(new.name, Change.UNCHANGED)
    notify = ("notify" in (old.readiness.kind, new.readiness.kind)) and old.readiness.kind != new.readiness.kind
    restart = notify or not RESTART_KEYS.isdisjoint(keys)
    return Difference(new.name, Change.RESTART if restart else Change.POLICY, keys)
