"""Who may write and read which topics (contract, section 2). Pure functions, the only place with these rules."""

from dataclasses import dataclass
from enum import StrEnum

from actors.mqtt.topics import matches, overlaps

SUPERVISOR_HEALTH = "system/health/config-manager"


class Role(StrEnum):
    SUPERVISOR = "supervisor"
    WORKER = "worker"
    READER = "reader"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a connection speaks for. An anonymous client is the reader without a name."""

    name: str
    role: Role
    service: str = ""
    health_topic: str = ""


ANONYMOUS = Principal("", Role.READER)


def may_publish(who: Principal, topic: str) -> bool:
    """Whether `who` may write to the valid `topic`, by publish, retained publish or last will."""
    if topic.startswith("$"):
        return False
    if who.role is Role.SUPERVISOR:
        return True
    if who.role is Role.READER:
        return False
    if topic == SUPERVISOR_HEALTH:
        return False
    return _is_outside(topic) or topic in (f"system/applied/{who.service}", who.health_topic)


def may_read(who: Principal, topic: str) -> bool:
    """Whether messages on the valid `topic` are delivered to `who`."""
    if topic.startswith("$"):
        return False
    if who.role is Role.SUPERVISOR:
        return True
    if who.role is Role.READER:
        return not _is_outside(topic)
    return _is_outside(topic) or any(matches(granted, topic) for granted in _worker_reads(who))


def may_subscribe(who: Principal, topic_filter: str) -> bool:
    """Whether a subscription to the valid `topic_filter` is granted.

    It is granted where it can match anything that `who` may read, and every single message is then checked by
    `may_read` on delivery: so `#` or `system/#` works for everybody, shows each what it may see, and a filter
    that could never deliver anything is refused (SUBACK 0x80) instead of staying silent.
    """
    if topic_filter.startswith("$"):
        return False
    if who.role is Role.SUPERVISOR:
        return True
    if who.role is Role.READER:
        return overlaps(topic_filter, "system/#")
    first, _, _ = topic_filter.partition("/")
    return first != "system" or any(overlaps(granted, topic_filter) for granted in _worker_reads(who))


def _worker_reads(who: Principal) -> tuple[str, ...]:
    """What a worker reads below `system/`."""
    return (
        f"system/config/{who.service}",
        f"system/control/{who.service}",
        "system/health/#",
        "system/state/#",
    )


def _is_outside(topic: str) -> bool:
    """Outside `system/`. The bare topic `system` belongs inside: `system/#` matches it."""
    return topic != "system" and not topic.startswith("system/")
