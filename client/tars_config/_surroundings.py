"""Where a reader finds its things: from the supervisor, by hand, or passed explicitly."""

import base64
import binascii
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tars_config._broker import BrokerAddress
from tars_config.keys import KeysUnusable, parse_public_keys

_log = logging.getLogger(__name__)


class SurroundingsError(ValueError):
    """Something that the worker was given cannot be used; the message names the variable and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything a `ConfigLibrary` reads from outside. What is None is not there, which is always allowed.

    `environment` is where overrides `<KEY IN UPPER CASE>` are looked up. `database` and `lkg` are for workers that
    run by hand on the supervisor's machine; a supervised worker has neither.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    snapshot: Path | None = None
    public_keys: Path | tuple[Ed25519PublicKey, ...] | None = None
    state_directory: Path | None = None
    credentials_directory: Path | None = None
    broker: BrokerAddress | None = None
    database: Path | None = None
    lkg: Path | None = None
    lkg_key: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Surroundings":
        """Read the documented variables; an empty one counts as absent.

        Raises:
            SurroundingsError: `MQTT_URL` or a key that is given as text is malformed.
        """

        def path(name: str) -> Path | None:
            return Path(environment[name]) if environment.get(name) else None

        url = environment.get("MQTT_URL")
        try:
            broker = BrokerAddress.parse(url) if url else None
        except ValueError as error:
            raise SurroundingsError(f"MQTT_URL: {error}") from None
        given = {"instance": environment["TARS_INSTANCE"]} if environment.get("TARS_INSTANCE") else {}
        return cls(
            environment=environment,
            snapshot=path("TARS_CONFIG_SNAPSHOT"),
            public_keys=path("TARS_CONFIG_PUBLIC_KEYS") or _keys_as_text(environment),
            state_directory=path("TARS_STATE_DIRECTORY"),
            credentials_directory=path("CREDENTIALS_DIRECTORY"),
            broker=broker,
            database=path("CONFIG_DB_PATH"),
            lkg=path("CONFIG_LKG_CACHE_PATH"),
            lkg_key=_base64(environment, "LKG_HMAC_KEY_BASE64"),
            **given,
        )


def _keys_as_text(environment: Mapping[str, str]) -> tuple[Ed25519PublicKey, ...] | None:
    pem = environment.get("CONFIG_SIGNATURE_PUBLIC_KEY", "").encode()
    name = "CONFIG_SIGNATURE_PUBLIC_KEY"
    if not pem:
        name = "CONFIG_SIGNATURE_PUBLIC_KEY_B64"
        pem = _base64(environment, name) or b""
    if not pem:
        return None
    try:
        return parse_public_keys(pem)
    except KeysUnusable as error:
        raise SurroundingsError(f"{name}: {error}; it has to hold the supervisor's public key as PEM") from None


def _base64(environment: Mapping[str, str], name: str) -> bytes | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SurroundingsError(f"{name} is not base64") from None
