"""The way back to settings of earlier."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from schemas.changes import GroupAccepted
from schemas.history import Point
from schemas.plans import ChangePlan
from schemas.types import Epoch, ServiceName, Version


class PastSettings(Struct, frozen=True):
    """What a service had set at a point, and the version that it is at now.

    `values` is the database layer of then. Of secrets the history has no values: `secrets` are the keys of those that were set,
    or not set, otherwise than now.
    """

    service: ServiceName
    version: Version
    config_epoch: Epoch
    values: Mapping[str, Any]
    secrets: tuple[str, ...]


class UnknownEntries(Exception):
    """These are no entries of that service's history."""

    def __init__(self, service: str, ids: tuple[int, ...]) -> None:
        super().__init__(service, ids)
        self.service = service
        self.ids = ids

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.ids[:20]))
        return f"The history of {self.service} has no entries {shown}{', …' if len(self.ids) > 20 else ''}."


class Restore(Struct, frozen=True, kw_only=True):
    """What somebody wants back: everything as it was at a `point`, or what these `entries` of one service changed undone.

    No `service`: all of them, those aside that have left the manifest.
    """

    service: ServiceName | None
    point: Point | None = None
    entries: tuple[int, ...] = ()
    changed_by: str
    request_id: str
    reason: str | None = None
    address: str | None = None

    def why(self) -> str:
        """The reason for the history."""
        if self.reason:
            return self.reason
        if self.point is None:
            return f"undid {len(self.entries)} entries of the history" if len(self.entries) > 1 else "undid a change"
        if self.point.version is not None:
            return f"restored version {self.point.version}"
        if self.point.revision is not None:
            return f"restored revision {self.point.revision}"
        moment: datetime | None = self.point.moment
        return f"restored what was in force at {moment.isoformat()}" if moment is not None else "restored"


class Restored(Struct, frozen=True):
    """What came of it, or would. `plans`: where it was only planned. `left_out`: by service, keys that the model has no more.
    `secrets`: by service, keys of secrets that are as they are now, and were set otherwise then.
    """

    made: GroupAccepted
    plans: tuple[ChangePlan, ...]
    left_out: Mapping[str, tuple[str, ...]]
    secrets: Mapping[str, tuple[str, ...]]
