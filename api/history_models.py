"""What the answers about the history look like; see `api.models`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from schemas.base import Model
from schemas.records import Origin


class HistoryEntry(Model):
    """One setting's change. Values are those of the store; a secret's are marks."""

    id: Annotated[int, Field(description="Higher is newer.")]
    service: str
    key: str
    old_value: JsonValue
    new_value: JsonValue
    old_set: Annotated[
        bool, Field(description="False: it was not set, and its default was in force; `old_value` is null.")
    ]
    new_set: Annotated[bool, Field(description="False: it has returned to its default; `new_value` is null.")]
    is_secret: bool
    version: Annotated[int, Field(description="Of the service, which this change made.")]
    revision: Annotated[int, Field(description="Of the store; changes that were made together have the same.")]
    changed_at: datetime
    changed_by: str
    change_reason: str | None
    origin: Annotated[Origin | None, Field(description="Where it came from; null where that is not known any more.")]


class HistoryPage(Model):
    """Changes, the newest first."""

    entries: list[HistoryEntry]
    total_returned: int


class HistoryPoint(Model):
    """A point in the history, as it was understood: one of the three is given."""

    version: int | None
    revision: int | None
    moment: datetime | None


class DifferentSetting(Model):
    """One setting that differs. Values are those of the store or the default; a secret's are marks."""

    service: str
    key: str
    title: str
    old: JsonValue
    new: JsonValue
    old_is_default: Annotated[bool, Field(description="It was not set; `old` is the default of this release.")]
    new_is_default: bool
    apply: Annotated[
        Literal["live", "restart", "none"],
        Field(
            description="How a worker gets such a change; `none`: the values are the same, or there is no such setting any more."
        ),
    ]
    is_secret: bool


class HistoryDifference(Model):
    """What differs between two points of the history."""

    service: Annotated[str | None, Field(description="Null: all of them.")]
    old_point: Annotated[HistoryPoint, Field(alias="from")]
    new_point: Annotated[HistoryPoint, Field(alias="to")]
    changes: list[DifferentSetting]
