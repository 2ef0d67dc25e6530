"""Topics and filters: their syntax, and how they match (MQTT 3.1.1, section 4.7). Pure functions."""

import itertools

MAX_TOPIC_BYTES = 4096
MAX_LEVELS = 200
"""Levels of a topic or filter. The specification has no bound; this one is Mosquitto's."""


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
