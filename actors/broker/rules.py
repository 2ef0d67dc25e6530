"""Topics: their syntax, how filters match them, and who may write and read which (contract, section 2).

Pure functions, the only place with these rules. Source of syntax and matching: MQTT 3.1.1, section 4.7.
"""

import itertools
from dataclasses import dataclass
from enum import StrEnum

SUPERVISOR_HEALTH = "system/health/config-manager"
MAX_TOPIC_BYTES = 4096
MAX_LEVELS = 200
"""Levels of a topic or filter. The specification has no bound; this one is Mosquitto's."""


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


def is_topic(topic: str) -> bool:
    """Whether messages may carry it: not empty, no wildcard, no null character, within our bounds."""
    return _is_bounded(topic) and "+" not in topic and "#" not in topic


def is_filter(topic_filter: str) -> bool:
    """Whether one can subscribe to it: a wildcard is a whole level, and `#` is the last."""
    if not _is_bounded(topic_filter):
        return False
    *front, last = topic_filter.split("/")
    return all(level == "+" or ("+" not in level and "#" not in level) for level in front) and (
        last in ("+", "#") or ("+" not in last and "#" not in last)
    )


def _is_bounded(text: str) -> bool:
    return len(text) > 0 and len(text.encode()) <= MAX_TOPIC_BYTES and "\0" not in text and text.count("/") < MAX_LEVELS


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription to the valid `topic_filter` receives messages on the valid `topic`."""
    if topic_filter == topic:
        return True
    if "+" not in topic_filter and not topic_filter.endswith("#"):
        return False
    if topic.startswith("$") and topic_filter.startswith(("+", "#")):
        return False
    levels = topic.split("/")
    wanted = topic_filter.split("/")
    if wanted[-1] == "#":
        # `a/#` includes its parent `a` itself.
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


def overlaps(one: str, other: str) -> bool:
    """Whether some topic matches both filters."""
    for left, right in itertools.zip_longest(one.split("/"), other.split("/")):
        if "#" in (left, right):
            return True
        if left is None or right is None:
            return False
        if left != right and "+" not in (left, right):
            return False
    return True


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
