"""What goes into the store, what comes out of it, and how it refuses.

Structs rather than Pydantic models: every one of these is made by our own code out of
values that were validated at the door, a commit makes a dozen of them, and validating (and copying) them once
more costs as much as the rows do. Where a value comes from outside, such as a request's body, its closed
model stands in front of these. The mappings inside are not frozen: whoever makes a record hands them over for
good.

Times are aware and in UTC. A JSON value is what `orjson` reads and writes.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from schemas.types import Checksum, Epoch, Revision, ServiceName, Version

DatabaseStatus: TypeAlias = Literal["healthy", "locked", "corrupted", "schema-mismatch"]
"""`locked`: sound as far as known, but unusable now (held by another, disk full, read-only, I/O error)."""

Origin: TypeAlias = Literal["rest", "cli", "migration", "rollback", "restore", "import", "profile", "system"]
"""What brought a commit about. `migration`: a release changed a default; `system`: the supervisor itself."""

SECRET_MARK: Final = "********"  # noqa: S105  # it hides one
"""Stands for the value of a secret that is set, in the history and in the derived items."""


class Absent(enum.Enum):
    """The type of `ABSENT`, which is not `None`: a key may be set to JSON's null."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT
"""The key is not in the database layer: its default is in force."""


# What comes out of the store.


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret under the master key `key_id` (AES-256-GCM); `ciphertext` ends in the tag."""

    ciphertext: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    key_id: str


class StoredService(Struct, frozen=True):
    """One service's row: what the owner set, without defaults and without secrets.

    `checksum` is that of the configuration on the wire at this version: one (epoch, service, version) has
    one checksum for ever. `published_version` is the highest version of this epoch that the broker
    acknowledged. `request_id` is that of the commit that made this version: a retry after a lost answer
    recognises itself by it.
    """

    service: ServiceName
    config: Mapping[str, Any]
    version: Version
    config_epoch: Epoch
    checksum: Checksum
    updated_at: datetime
    updated_by: str
    published_version: Version | None
    request_id: str


class StoreState(Struct, frozen=True):
    """Everything a start needs. `secrets`: by service, then by key."""

    config_epoch: Epoch
    revision: Revision
    schema_version: int
    created_at: datetime
    services: Mapping[ServiceName, StoredService]
    secrets: Mapping[ServiceName, Mapping[str, SealedSecret]]


class HistoryEntry(Struct, frozen=True):
    """One key's change. A secret's values are marks (`SECRET_MARK` where it was set, `ABSENT` where not).

    `origin`: where the commit came from; None where the access log has it no more.
    """

    id: int
    service: ServiceName
    key: str
    old_value: Any
    new_value: Any
    version: Version
    revision: Revision
    changed_at: datetime
    changed_by: str
    change_reason: str | None
    is_secret: bool
    origin: Origin | None


# What goes in.


class NewService(Struct, frozen=True):
    """A service that has to have a row; `checksum` is that of its configuration on the wire, nothing set."""

    service: ServiceName
    checksum: Checksum


class HistoryChange(Struct, frozen=True):
    """One key of the database layer, before and after; either may be `ABSENT`."""

    key: str
    old: Any
    new: Any


class ItemRow(Struct, frozen=True):
    """The derived, searchable row of one key.

    `value` is what is in force, or `ABSENT` to drop the row. That of a secret is never stored, only whether
    it is set (anything but `None`).
    """

    key: str
    value: Any
    type: str
    complexity: str
    description: str
    help_text: str | None = None
    examples: tuple[Any, ...] = ()
    is_secret: bool = False


class SecretChange(Struct, frozen=True):
    """`sealed=None` deletes the secret."""

    key: str
    sealed: SealedSecret | None


class Change(Struct, frozen=True):
    """One service's next version.

    `config` is the whole database layer as it will be. The commit goes through only if the service is at
    `expected_version` (and, where given, the store in `expected_epoch`); its version is then one higher.
    History rows of secrets are made by the store out of `secrets`.
    """

    service: ServiceName
    config: Mapping[str, Any]
    expected_version: Version
    checksum: Checksum
    expected_epoch: Epoch | None = None
    history: tuple[HistoryChange, ...] = ()
    items: tuple[ItemRow, ...] = ()
    secrets: tuple[SecretChange, ...] = ()


class CommitRequest(Struct, frozen=True):
    """Changes of one or several services: one revision, all or nothing."""

    changes: tuple[Change, ...]
    changed_by: str
    origin: Origin
    request_id: str
    reason: str | None = None
    address: str | None = None


class Committed(Struct, frozen=True):
    """It is on disk. `versions`: by service."""

    revision: Revision
    committed_at: datetime
    versions: Mapping[ServiceName, Version]
    config_epoch: Epoch


class AccessEntry(Struct, frozen=True):
    """One line of the access log, for what is not a commit (a commit writes its own)."""

    user_id: str | None
    action: str
    success: bool
    service: ServiceName | None = None
    key: str | None = None
    reason: str | None = None
    request_id: str | None = None
    address: str | None = None


class HistoryQuery(Struct, frozen=True):
    """`start` and `end` are inclusive; `before` is the id of the last entry of the page before."""

    service: ServiceName | None = None
    key: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    limit: int = 100
    before: int | None = None


# How it refuses. In each case nothing of the request has been stored.


class StoreError(Exception):
    """What the database actor answers instead of a result."""


class VersionMismatch(StoreError):
    """Somebody else's change came first. `request_id` is that of the commit which made `current`."""

    def __init__(
        self, service: ServiceName, expected: Version, current: Version, config_epoch: Epoch, request_id: str
    ) -> None:
        super().__init__(service, expected, current, config_epoch, request_id)
        self.service = service
        self.expected = expected
        self.current = current
        self.config_epoch = config_epoch
        self.request_id = request_id

    def __str__(self) -> str:
        if self.expected == self.current:
            return f"Version mismatch: the store has started a new epoch, {self.config_epoch}"
        return f"Version mismatch: expected {self.expected}, current is {self.current}"


class UnknownService(StoreError):
    """The store has no row of that name."""

    def __init__(self, service: ServiceName) -> None:
        super().__init__(service)
        self.service = service

    def __str__(self) -> str:
        return f"The store has no service {self.service!r}"


class StoreUnavailable(StoreError):
    """The store cannot be used: `reason` says why and what to do, `database_status` is for the health report.

    Nothing was acknowledged. Only after a failing disk (an I/O error while the commit was being written) and
    a crash right after it can the change turn out to be there; the version tells.
    """

    def __init__(self, reason: str, database_status: DatabaseStatus) -> None:
        super().__init__(reason, database_status)
        self.reason = reason
        self.database_status: DatabaseStatus = database_status

    def __str__(self) -> str:
        return self.reason
