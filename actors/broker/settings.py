"""What the child is told: the file that `actors.broker.config` writes, read without Pydantic.

Pydantic would be a third of the child's memory. The file comes from our own supervisor and was validated when
it was written; what is checked again here is its shape.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from actors.broker.rules import ANONYMOUS, Principal, Role

_MAX_FILE_BYTES = 8 * 1024 * 1024
_MIB = 1024 * 1024


class SettingsError(Exception):
    """The file cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what clients may cost us."""

    # Pydantic reads this where the supervisor writes the file; it is not a field.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    connect_seconds: float = 5.0
    """Time from the connection to the whole CONNECT packet."""
    max_connect_bytes: int = 16 * 1024
    max_pending: int = 512
    """Connections that have not logged in yet; one more ends the oldest of them."""
    max_connections: int = 1024
    """Connections that have logged in; the supervisor is let in beyond it."""
    max_user_connections: int = 128
    """Of one user: a worker that someone else has taken over must not take all places. Not for the supervisor."""
    max_packet_bytes: int = _MIB
    max_unsent_bytes: int = 4 * _MIB
    """What waits for a subscriber that reads too slowly; beyond it the subscriber is dropped."""
    max_inflight: int = 100
    """Messages of QoS 1 sent to one client and not acknowledged by it."""
    max_inflight_bytes: int = _MIB
    """Their size together; one message more may be over it."""
    max_queued_messages: int = 1000
    """Messages of QoS 1 that wait for one client which is away or does not acknowledge."""
    max_queued_bytes: int = 4 * _MIB
    max_message_bytes: int = 64 * _MIB
    """What waits or is not acknowledged, of all clients together but the supervisor's."""
    max_user_message_bytes: int = 16 * _MIB
    """The same of one user's clients. A client that has acknowledged everything gets one message more."""
    max_subscriptions: int = 500
    """Per client."""
    max_sessions: int = 2048
    """Clients that are known, connected or away."""
    max_user_sessions: int = 256
    session_seconds: int = 24 * 3600
    """How long a persistent session outlives its connection."""
    max_retained_messages: int = 10_000
    """Retained messages of all clients but the supervisor, whose are not bounded."""
    max_retained_bytes: int = 32 * _MIB


@dataclass(frozen=True, slots=True)
class Account:
    principal: Principal
    password_hash: bytes = field(repr=False)
    """SHA-256 of the password. Passwords are 256 random bits, so a slow hash would only slow the login."""


STRANGER = Account(ANONYMOUS, b"")
"""Nobody logs in as it: it is what clients without credentials are."""


@dataclass(frozen=True, slots=True)
class Door:
    """A listener. All of them lead through the same gate."""

    host: str
    port: int
    websocket: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    doors: tuple[Door, ...]
    """The first one is plain TCP."""
    certificate: str
    private_key: str
    accounts: dict[str, Account]
    anonymous_read: bool
    limits: Limits

    def holds(self, account: Account) -> bool:
        """Whether who logged in with `account` would be let in now."""
        return self.anonymous_read if account is STRANGER else self.accounts.get(account.principal.name) == account


def load(path: Path) -> Settings:
    """Read the file. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            raise SettingsError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        document = json.loads(raw)
        accounts = [_account(**user) for user in document.pop("users")]
        return _settings(accounts, **document)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # Only the kind: the text of such an error may quote the file.
        raise SettingsError(f"{path}: not a configuration of the broker ({type(error).__name__})") from None


def _settings(
    accounts: list[Account],
    *,
    host: str,
    port: int,
    anonymous_read: bool,
    limits: dict[str, Any],
    listeners: list[dict[str, Any]],
    certificate: str | None,
    private_key: str | None,
) -> Settings:
    return Settings(
        doors=(Door(host, port), *(Door(**each) for each in listeners)),
        certificate=certificate or "",
        private_key=private_key or "",
        accounts={account.principal.name: account for account in accounts},
        anonymous_read=anonymous_read,
        limits=Limits(**limits),
    )


def _account(*, name: str, password_hash: str, role: str, service: str | None, health_topic: str | None) -> Account:
    if service is not None and health_topic is None:
        health_topic = f"system/health/{service}"
    who = Principal(name, Role(role), service or "", health_topic or "")
    return Account(who, bytes.fromhex(password_hash))
