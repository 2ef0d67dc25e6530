"""Profiles: what services had set at some time, under a name, to be activated again."""

import unicodedata
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from schemas.changes import GroupAccepted
from schemas.plans import ChangePlan
from schemas.records import StoreError
from schemas.types import ServiceName

MOST_PROFILES: Final = 100
LONGEST_NAME: Final = 64


def profile_name(text: str) -> str:
    """`text` as a profile's name: trimmed, and in Unicode's composed form, so that what looks the same is the same.

    Raises:
        ValueError: it is none; the message says what is allowed.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"A profile's name has 1 to {LONGEST_NAME} characters; this has {len(name)}.")
    if not name.isprintable() or "/" in name:
        raise ValueError("A profile's name has printable characters, and no slash.")
    if name in {".", ".."}:
        # Clients take these out of a path before they send it.
        raise ValueError("A profile cannot be named by dots alone: no path leads there.")
    return name


class ProfileEntry(Struct, frozen=True):
    """A profile without what it holds."""

    name: str
    description: str
    services: tuple[str, ...]
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


class Profile(Struct, frozen=True):
    """A whole profile. `settings`: by service its database layer of then, without secrets."""

    entry: ProfileEntry
    settings: Mapping[str, Mapping[str, Any]]


class Author(Struct, frozen=True):
    """Who asks for it, for the history and the access log."""

    name: str
    request_id: str
    address: str | None = None


class NewProfile(Struct, frozen=True, kw_only=True):
    """The present, to be saved as `name`. `services`: by service the keys that may be in a profile.

    `description`: None leaves that of the one which is replaced.
    """

    name: str
    description: str | None
    services: Mapping[ServiceName, AbstractSet[str]]
    replace: bool
    author: Author


class ProfileChange(Struct, frozen=True, kw_only=True):
    """Another name, another description; None leaves it as it is."""

    name: str
    new_name: str | None
    description: str | None
    author: Author


class Activation(Struct, frozen=True, kw_only=True):
    """What a profile holds shall be in force. `drop_unknown`: without what is no setting, or no service, any more."""

    name: str
    drop_unknown: bool
    author: Author
    reason: str | None = None

    def why(self) -> str:
        """The reason for the history."""
        return f"activated profile {self.name}{f': {self.reason}' if self.reason else ''}"


class Compared(Struct, frozen=True):
    """A profile beside the present.

    `plans`: of each service that would change, or refuses. `unknown_keys`: by service, what is no setting of its model any
    more, or a secret now. `unknown_services` have left the manifest.
    """

    profile: Profile
    plans: tuple[ChangePlan, ...]
    unknown_keys: Mapping[str, tuple[str, ...]]
    unknown_services: tuple[str, ...]


class Activated(Struct, frozen=True):
    """What came of it, or would; see `Compared`. `plans`: where it was only planned. `refused`: then, it would be refused."""

    made: GroupAccepted
    plans: tuple[ChangePlan, ...]
    unknown_keys: Mapping[str, tuple[str, ...]]
    unknown_services: tuple[str, ...]
    refused: bool


class UnknownProfile(StoreError):
    """There is no profile of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f'There is no profile "{self.name[:LONGEST_NAME]}"; GET /api/config/profiles lists what there is.'


class ProfileExists(StoreError):
    """Another one has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f'There is a profile "{self.name}" already. Nothing was changed.'


class TooManyProfiles(StoreError):
    """There is no room for another one."""

    def __str__(self) -> str:
        return (
            f"There are {MOST_PROFILES} profiles, as many as there can be: delete or replace one. Nothing was changed."
        )


class ServiceGone(Exception):
    """The manifest has it no more."""

    def __str__(self) -> str:
        return "The manifest has no such service any more; `drop_unknown` leaves it out."
