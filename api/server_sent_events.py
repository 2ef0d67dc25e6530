"""The text of server-sent events (WHATWG HTML, section 9.2.6): what stands between two empty lines."""

import re
from typing import Final

MEDIA_TYPE: Final = b"text/event-stream"

HEARTBEAT: Final = b":\n\n"
"""A comment, which readers ignore."""

# Only these end a line there; in JSON and most other text there is none.
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def event(name: str, data: bytes, event_id: str) -> bytes:
    """An event; a reader gets `data` with each line end as a line feed.

    Raises:
        ValueError: name or id hold a line end, or the id a NUL, which would have readers ignore it.
    """
    _checked(name)
    lines = b"".join(b"data: %b\n" % line for line in _LINE_END.split(data))
    return b"%bevent: %b\n%b\n" % (_id(event_id), name.encode(), lines)


def beginning(retry_ms: int, event_id: str | None) -> bytes:
    """What a stream begins with: when to come back after it broke, and the id to resume after, where there is one yet.

    A block without data is no event, but its id is taken (section 9.2.6, "dispatch the event", first step): a reader
    that loses the connection before the first event comes back as one that has missed something.
    """
    return b"retry: %d\n%b\n" % (retry_ms, b"" if event_id is None else _id(event_id))


def _id(event_id: str) -> bytes:
    _checked(event_id)
    return b"id: %b\n" % event_id.encode()


def _checked(text: str) -> None:
    if any(end in text for end in "\r\n\0"):
        raise ValueError(f"{text!r} does not fit on a line of its own")
