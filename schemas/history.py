"""Looking back: points in the history, and what differs between two of them."""

from datetime import datetime
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from schemas.types import Revision, ServiceName, Version

Side: TypeAlias = Literal["from", "to"]


class Point(Struct, frozen=True, kw_only=True):
    """What was in force once that version of a service, or that revision, was made, or at that moment; one of them is given.

    None given: the present.
    """

    version: Version | None = None
    revision: Revision | None = None
    moment: datetime | None = None


class KeyDifference(Struct, frozen=True):
    """One setting that differs. `old` and `new` are the store's values, or the present default where none was set.

    A secret's are marks: `SECRET_MARK` where it was set, else None. `apply` is how the worker would get it: `none` where the
    values are the same (a default that was pinned, say), or where the model has no such setting any more. The environment is
    not looked at.
    """

    service: ServiceName
    key: str
    title: str
    old: Any
    new: Any
    old_is_default: bool
    new_is_default: bool
    apply: Literal["live", "restart", "none"]
    is_secret: bool


class Difference(Struct, frozen=True):
    """What differs between two points; by service, in the order of each one's model. The present is told as its revision."""

    old: Point
    new: Point
    keys: tuple[KeyDifference, ...]


class NotReached(Exception):
    """The history does not tell what was in force at that point; `side` is the one that is meant."""

    def __init__(self, side: Side, reason: str) -> None:
        super().__init__(side, reason)
        self.side: Side = side
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
