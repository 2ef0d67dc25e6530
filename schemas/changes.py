"""A change of one service's settings, as a caller asks for it, and the answers to it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from schemas.records import Origin


class ConfigChange(Struct, frozen=True):
    """What a caller wants, before any rule of the domain has looked at it.

    `merge`: `config` is an RFC 7396 merge patch of the settings, else the whole object as a GET shows it. `layer`: it is the
    database layer itself, without secrets, which stay as they are; what the environment overrides is stored all the same.
    `expected_version` and `expected_epoch` are what the caller has seen; None where it named none.
    """

    service: str
    config: Mapping[str, Any]
    merge: bool
    expected_version: int | None
    expected_epoch: str | None
    changed_by: str
    origin: Origin
    request_id: str
    reason: str | None = None
    address: str | None = None
    layer: bool = False


class ChangeAccepted(Struct, frozen=True):
    """It is on disk (or nothing differed, and `revision` is None). `live` and `restart` name the changed keys."""

    version: int
    config_epoch: str
    revision: int | None
    live: tuple[str, ...]
    restart: tuple[str, ...]
    message: str


class GroupAccepted(Struct, frozen=True):
    """Changes of several services are on disk as one revision, None where nothing differed. `services`: each one's own answer."""

    revision: int | None
    services: Mapping[str, ChangeAccepted]


class ChangeRefused(Exception):
    """Nothing was changed."""


class GroupRefused(ChangeRefused):
    """At least one of several changes is refused, so none was made. `reasons`: by service."""

    def __init__(self, reasons: Mapping[str, Exception]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return " ".join(f"{service}: {reason}" for service, reason in self.reasons.items())


class StaleVersion(ChangeRefused):
    """Somebody else's change came first. `request_id` is that of the change which made the current version."""

    def __init__(self, expected: int, current: int, config_epoch: str, request_id: str) -> None:
        super().__init__(expected, current, config_epoch, request_id)
        self.expected = expected
        self.current = current
        self.config_epoch = config_epoch
        self.request_id = request_id

    def __str__(self) -> str:
        if self.expected == self.current:
            return f"Version mismatch: the store has started a new epoch, {self.config_epoch}"
        return f"Version mismatch: expected {self.expected}, current is {self.current}"


class OverriddenByEnvironment(ChangeRefused):
    """These keys are set by the supervisor's environment, which wins over the store."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(keys)
        self.keys = keys

    def __str__(self) -> str:
        names = ", ".join(f"{key} (by {key.upper()})" for key in self.keys)
        return f"Set by the environment, which wins over the store: {names}. Remove the variable to change it here."


class ReadOnly(ChangeRefused):
    """The store cannot be written now; `retry_after` is in seconds."""

    def __init__(self, reason: str, retry_after: int = 5) -> None:
        super().__init__(reason, retry_after)
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.reason
