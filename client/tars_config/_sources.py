"""Where a configuration comes from at start: snapshot, own copy, store, last known good, defaults.

Each step that is tried tells in the log what it found. None of them raises: the last one always works.
Everything here blocks on files and is called in a thread.
"""

import hashlib
import hmac
import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tars_config import wire
from tars_config._files import read_bounded
from tars_config._surroundings import Surroundings
from tars_config.keys import TrustedKeys
from tars_config.wire import Reason, Refused, SignedUpdate

_MAX_LKG_BYTES = 64 * 1024 * 1024
_STORE_TIMEOUT_S = 0.5

_log = logging.getLogger(__name__)


class Origin(Enum):
    """Which source the configuration in force came from."""

    UPDATE = "update"
    SNAPSHOT = "snapshot"
    COPY = "last applied copy"
    STORE = "store"
    LKG = "last known good"
    DEFAULTS = "defaults"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration and where it is from. `update` is there only for the signed sources."""

    origin: Origin
    config: Mapping[str, Any]
    config_epoch: str | None = None
    version: int | None = None
    update: SignedUpdate | None = None


class _Unusable(Exception):
    """A source has nothing to offer; the message says why."""


def load_first(service: str, surroundings: Surroundings, keys: TrustedKeys, copy: Path | None) -> Loaded:
    """Give the first source that holds, in the order of the contract."""
    steps: list[tuple[Origin, Path | None]] = [
        (Origin.SNAPSHOT, surroundings.snapshot),
        (Origin.COPY, copy),
        (Origin.STORE, surroundings.database),
        (Origin.LKG, surroundings.lkg),
    ]
    for origin, path in steps:
        if path is None:
            _log.debug("%s: no %s given", service, origin.value)
            continue
        try:
            loaded = _load(origin, path, service, surroundings, keys)
        except FileNotFoundError:
            level = logging.INFO if origin is Origin.COPY else logging.WARNING
            _log.log(level, "%s: no %s at %s", service, origin.value, path)
        except (_Unusable, OSError) as error:
            _log.warning("%s: %s %s cannot be used: %s", service, origin.value, path, error)
        except Refused as refusal:
            _log.warning("%s: %s %s refused: %s", service, origin.value, path, refusal)
        else:
            _log.info(
                "%s: config from the %s: version %s of epoch %s",
                service,
                origin.value,
                loaded.version or "unknown",
                loaded.config_epoch or "unknown",
            )
            return loaded
    _log.warning("%s: no source holds a config, starting with the defaults", service)
    return Loaded(origin=Origin.DEFAULTS, config={})


def _load(origin: Origin, path: Path, service: str, surroundings: Surroundings, keys: TrustedKeys) -> Loaded:
    if origin is Origin.STORE:
        return _from_store(path, service)
    if origin is Origin.LKG:
        return _from_lkg(path, service, surroundings.lkg_key)
    update = read_signed(path, service, keys)
    return Loaded(
        origin=origin,
        config=update.config,
        config_epoch=update.config_epoch,
        version=update.version,
        update=update,
    )


def read_signed(path: Path, service: str, keys: TrustedKeys) -> SignedUpdate:
    """Read a snapshot: signature, checksum and service have to hold; its age and version do not matter.

    Raises:
        Refused: it must not be used.
        OSError: it is not there or cannot be read.
    """
    update = wire.decode(read_bounded(path, wire.MAX_MESSAGE_BYTES))
    verify_with(partial(wire.verify, update), keys)
    if update.service != service:
        raise Refused(Reason.WRONG_SERVICE, f"it is for {update.service}, this is {service}")
    return update


def verify_with(verify: Callable[[tuple[Ed25519PublicKey, ...]], None], keys: TrustedKeys) -> None:
    """Verify, and read the keys once more where the signature is unknown: they may just have rotated.

    Raises:
        Refused: as `wire.verify` does.
    """
    try:
        verify(keys.current())
    except Refused as refusal:
        if refusal.reason is not Reason.BAD_SIGNATURE:
            raise
        verify(keys.reread())


def _from_store(path: Path, service: str) -> Loaded:
    """Read one row of the store, read-only: it is never created, and nothing waits for its writer for long."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=_STORE_TIMEOUT_S)) as store:
            row = store.execute(
                "SELECT config_json, version, config_epoch FROM service_configs"
                " WHERE service = ? AND length(config_json) <= ?",
                (service, wire.MAX_CONFIG_BYTES),
            ).fetchone()
    except sqlite3.Error as error:
        raise _Unusable(str(error)) from None
    if row is None:
        raise _Unusable("it has no row for this service")
    try:
        config = orjson.loads(row[0])
    except (orjson.JSONDecodeError, TypeError):
        config = None
    if not isinstance(config, dict) or not isinstance(row[1], int) or not isinstance(row[2], str):
        raise _Unusable("its row for this service is malformed")
    return Loaded(origin=Origin.STORE, config=config, config_epoch=row[2], version=row[1])


def _from_lkg(path: Path, service: str, key: bytes | None) -> Loaded:
    if not key:
        raise _Unusable("LKG_HMAC_KEY_BASE64 is not given, so it cannot be checked")
    try:
        document = orjson.loads(read_bounded(path, _MAX_LKG_BYTES))
        outer, signature = document["payload"], document["signature"]
        expected = hmac.new(key, wire.canonical(outer), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), str(signature).encode()):
            raise _Unusable("its HMAC does not match")
        config, epoch = outer["payload"].get(service), outer["config_epoch"]
        version = outer.get("versions", {}).get(service)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Unusable(f"malformed ({type(error).__name__})") from None
    if config is None:
        raise _Unusable("it has nothing for this service")
    if not isinstance(config, dict) or not isinstance(epoch, str):
        raise _Unusable("its part for this service is malformed")
    return Loaded(
        origin=Origin.LKG,
        config=config,
        config_epoch=epoch,
        version=version if type(version) is int else None,
    )
