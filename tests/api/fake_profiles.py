"""Profiles that remember what they were asked, and answer what they were given."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from schemas.changes import GroupAccepted
from schemas.profiles import Activated, Activation, Author, Compared, Profile, ProfileChange, ProfileEntry

MADE = datetime(2026, 11, 20, 20, tzinfo=UTC)


class FakeProfiles:
    """Set `failure` to have it raise."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.failure: Exception | None = None
        self.entry = ProfileEntry("Evening", "quiet", ("stt-worker",), MADE, "owner", MADE, "guest")
        self.beside = Compared(Profile(self.entry, {"stt-worker": {"vad_threshold": 0.4}}), (), {}, ())
        self.activated = Activated(GroupAccepted(None, {}), (), {}, (), refused=False)

    async def entries(self) -> tuple[ProfileEntry, ...]:
        self._note("entries")
        return (self.entry,)

    async def save(
        self, name: str, *, description: str | None, services: Collection[str] | None, replace: bool, author: Author
    ) -> ProfileEntry:
        self._note((name, description, services, replace, author))
        return self.entry

    async def compared(self, name: str, author: Author) -> Compared:
        self._note((name, author))
        return self.beside

    async def change(self, wanted: ProfileChange) -> ProfileEntry:
        self._note(wanted)
        return self.entry

    async def delete(self, name: str, author: Author) -> None:
        self._note((name, author))

    async def activate(self, wanted: Activation, *, only_plan: bool) -> Activated:
        self._note((wanted, only_plan))
        return self.activated

    def _note(self, asked: Any) -> None:
        self.asked.append(asked)
        if self.failure is not None:
            raise self.failure
