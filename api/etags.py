"""Entity tags in requests (RFC 9110, sections 8.8.3, 13.1.1 and 13.1.2)."""

import re
from collections.abc import Iterable

from litestar.types import Scope
from msgspec import Struct

from api.headers import fields
from api.problems import Problem
from api.responses import JSON_TYPE, REVALIDATE, Finished

# Enough for any list that makes sense; each element costs a step.
_MAX_TAGS = 100
_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_LIST = re.compile(rb"[ \t,]*" + _TAG + rb"(?:[ \t]*,[ \t,]*" + _TAG + rb")*[ \t,]*")
_EACH = re.compile(_TAG)
# "<epoch8>-<version>-<digest of the body>"
_OURS = re.compile(rb'"([0-9a-f]{8})-([0-9]{1,18})-[0-9A-Za-z_-]+"')


class SeenVersion(Struct, frozen=True):
    """What an `If-Match` tells of the representation that its sender has seen."""

    epoch8: str
    version: int


def none_match(field: bytes, etag: str) -> bool:
    """Whether `If-None-Match: field` matches the current `etag`, by weak comparison.

    What cannot be read matches nothing: the client then gets the whole answer, which is always right.
    """
    # What a client sends that has seen nothing else.
    if field == etag.encode():
        return True
    if field.strip() == b"*":
        return True
    return _LIST.fullmatch(field) is not None and etag.encode() in (
        tag.removeprefix(b"W/") for tag in _EACH.findall(field)[:_MAX_TAGS]
    )


def seen_versions(field: bytes) -> tuple[SeenVersion, ...]:
    """The versions that `If-Match: field` names; nothing for `*`, which matches whatever there is.

    Only epoch and version count: the digest differs with and without `fields`, and with the environment.

    Raises:
        Problem: 400 where it is no list of entity tags, 412 where none of them can match (weak ones never do).
    """
    if field.strip() == b"*":
        return ()
    if _LIST.fullmatch(field) is None:
        raise Problem(
            "malformed", "If-Match is not a list of entity tags: send one as the GET gave it, quotes included."
        )
    ours = [match for tag in _EACH.findall(field)[:_MAX_TAGS] if (match := _OURS.fullmatch(tag)) is not None]
    if not ours:
        raise Problem(
            "precondition-failed",
            "If-Match holds no entity tag that this server gives: send one as the GET gave it, not a weak one (W/).",
        )
    return tuple(SeenVersion(match[1].decode(), int(match[2])) for match in ours)


def revalidated(scope: Scope, body: bytes, etag: str, media_type: bytes = JSON_TYPE) -> Finished:
    """`body` under `etag`, or 304 where the client has it already."""
    headers = [(b"etag", etag.encode()), REVALIDATE]
    seen = joined(fields(scope, b"if-none-match"))
    if seen is not None and none_match(seen, etag):
        return Finished(b"", headers, status=304)
    return Finished(body, [(b"content-type", media_type), *headers])


def joined(fields: Iterable[bytes]) -> bytes | None:
    """Several fields of one name as one (RFC 9110, section 5.3); None where there is none."""
    found = b", ".join(fields)
    return found or None
