"""What the supervisor tells the broker: the model of its configuration file, and the command that starts it."""

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from actors.broker.rules import SUPERVISOR_HEALTH, Role
from actors.broker.settings import Limits
from actors.files import write_atomically
from actors.mqtt.topics import is_topic
from schemas.base import Model
from schemas.broker_address import Listener
from schemas.types import Checksum, ServiceName

__all__ = [
    "BrokerConfig",
    "BrokerUser",
    "Limits",
    "Listener",
    "Role",
    "broker_command",
    "hash_password",
    "write_config",
]

UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


def hash_password(password: str) -> Checksum:
    """What the broker keeps of a password: its SHA-256 in hexadecimal.

    Safe for generated passwords only (`secrets.token_urlsafe(32)`); one that a person chose could be guessed.
    """
    return Checksum(hashlib.sha256(password.encode()).hexdigest())


class BrokerUser(Model):
    """One login. Client ids: empty, its name, or its name, a hyphen and anything."""

    name: UserName
    password_hash: Checksum = Field(repr=False)
    role: Role
    service: ServiceName | None = None
    """Whose worker it is; for workers only."""
    health_topic: str | None = None
    """Where this worker reports its health; `system/health/<service>` if not given."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.role is Role.WORKER) != (self.service is not None):
            raise ValueError(f"user {self.name}: a worker needs `service`, other roles have none")
        if self.health_topic is None:
            return self
        if self.role is not Role.WORKER:
            raise ValueError(f"user {self.name}: only a worker has a health_topic")
        if not is_topic(self.health_topic) or not _may_be_a_workers(self.health_topic):
            raise ValueError(
                f"user {self.name}: health_topic must be below system/health/ and not {SUPERVISOR_HEALTH}, "
                "or outside system/"
            )
        return self


class BrokerConfig(Model):
    """The child's configuration file, as JSON."""

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=0, le=65535)
    """MQTT in clear; 0 takes a free one, told in the child's `listening` line."""
    listeners: tuple[Listener, ...] = ()
    """Others beside that one, in the order in which the `listening` line tells their ports."""
    certificate: Path | None = None
    """PEM file for the TLS listeners, with the chain; read again at SIGHUP."""
    private_key: Path | None = None
    """PEM file, without passphrase."""
    users: tuple[BrokerUser, ...] = ()
    anonymous_read: bool = False
    """Clients without credentials may read `system/#` from loopback addresses."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [user.name for user in self.users]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"users named twice: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _tls_has_its_files(self) -> Self:
        if any(each.tls for each in self.listeners) and (self.certificate is None or self.private_key is None):
            raise ValueError("a listener with TLS needs `certificate` and `private_key`")
        return self


def write_config(path: Path, config: BrokerConfig) -> None:
    """Replace the file atomically, mode 0600. A running broker reads it again at SIGHUP.

    Blocks for two fsyncs. Raises OSError.
    """
    write_atomically(path, config.model_dump_json().encode())


def broker_command(path: Path) -> list[str]:
    """Command line of the child for the configuration file at `path`."""
    return [sys.executable, "-m", "actors.broker", "--config", str(path)]


def _may_be_a_workers(topic: str) -> bool:
    return topic != SUPERVISOR_HEALTH and (
        topic.startswith("system/health/") or not (topic + "/").startswith(("system/", "$"))
    )
