"""A history that remembers what it was asked, and answers what it was given."""

from datetime import UTC, datetime
from typing import Any

from schemas.history import Difference, KeyDifference, Point
from schemas.records import ABSENT, HistoryEntry, HistoryQuery
from schemas.types import Revision, ServiceName, Version

STT = ServiceName("stt-worker")


class FakeHistory:
    """Set `failure` to have it raise."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.failure: Exception | None = None
        self.entries = (
            entry(2, key="vad_threshold", old_value=None, new_value=0.5),
            entry(1, key="log_level", old_value=ABSENT, new_value="debug", change_reason=None, origin=None),
        )
        self.keys = (
            KeyDifference(
                service=STT,
                key="vad_threshold",
                title="Threshold",
                old=0.4,
                new=0.5,
                old_is_default=True,
                new_is_default=False,
                apply="live",
                is_secret=False,
            ),
        )

    async def page(self, query: HistoryQuery) -> tuple[HistoryEntry, ...]:
        self._note(query)
        return self.entries

    async def difference(self, service: ServiceName | None, old: Point, new: Point) -> Difference:
        self._note((service, old, new))
        return Difference(old, Point(revision=Revision(9)) if new == Point() else new, self.keys)

    def _note(self, asked: Any) -> None:
        self.asked.append(asked)
        if self.failure is not None:
            raise self.failure


def entry(number: int, **members: Any) -> HistoryEntry:
    return HistoryEntry(
        **{
            "id": number,
            "service": STT,
            "version": Version(number + 1),
            "revision": Revision(number + 1),
            "changed_at": datetime(2026, 11, 20, 8, 0, number, 250000, tzinfo=UTC),
            "changed_by": "owner",
            "change_reason": "why",
            "is_secret": False,
            "origin": "rest",
            **members,
        }
    )
