"""The signed configuration update: its canonical form, signature, encoding and strict decoding.

One object of exactly seven keys, sent on `system/config/<service>` and kept in snapshot files. What is signed is
`version|service|canonical config|checksum|config_epoch|issued_at`, with Ed25519 (RFC 8032).
"""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tars_config import _strict

MAX_CONFIG_BYTES: Final = 256 * 1024
"""Largest canonical config."""

MAX_MESSAGE_BYTES: Final = MAX_CONFIG_BYTES + 32 * 1024
"""Largest encoded update: a config, the other six keys, and room for white space."""

KEYS: Final = ("service", "config", "version", "config_epoch", "checksum", "signature", "issued_at")

_MAX_VERSION = 2**63 - 1
_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?\+00:00")


class Reason(StrEnum):
    """Why an update was refused; the words that the applied report counts under."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    EXTRA_KEY = "extra_key"
    UNSIGNED = "unsigned"
    CHECKSUM = "checksum"
    BAD_SIGNATURE = "bad_signature"
    WRONG_SERVICE = "wrong_service"
    STALE = "stale"
    FUTURE = "future"
    CONFLICT = "conflict"
    DOWNGRADED = "downgraded"
    LEFT_EPOCH = "left_epoch"
    REPLAYED = "replayed"


class Refused(Exception):
    """An update that must not be applied; `reason` is for machines, the text for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedUpdate:
    """One service's whole non-secret configuration at one version, signed.

    Having one proves nothing about its signature: `verify` does.
    """

    service: str
    config: Mapping[str, Any]
    version: int
    config_epoch: str
    checksum: str
    signature: str
    issued_at: datetime

    def encode(self) -> bytes:
        """Give the compact JSON for the wire or a snapshot file."""
        return _encode(
            service=self.service,
            config_canonical=canonical(self.config),
            version=self.version,
            config_epoch=self.config_epoch,
            checksum=self.checksum,
            signature=self.signature,
            issued_at=self.issued_at.isoformat(),
        )


def canonical(value: object) -> bytes:
    """Give the canonical JSON: UTF-8, sorted keys, no white space, no ASCII escapes.

    Raises:
        ValueError: a number that is not finite, or that does not fit 64 bits; a lone surrogate; a key that is not
            a string; a type that JSON does not have.
    """
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be written as canonical JSON: {error}") from None
    # orjson writes NaN and the infinities as null; a signer must not sign a value that nobody set.
    if b"null" in encoded and not _finite(value):
        raise ValueError("cannot be written as canonical JSON: a number is not finite")
    return encoded


def checksum(config: object) -> str:
    """Give the lower-case hex SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(config)).hexdigest()


def sign(
    private_key: Ed25519PrivateKey,
    *,
    service: str,
    config: Mapping[str, Any],
    version: int,
    config_epoch: str,
    issued_at: datetime,
    config_canonical: bytes | None = None,
    config_checksum: str | None = None,
) -> SignedUpdate:
    """Sign one update.

    `config_canonical` and `config_checksum` save computing them where they are known; they are trusted.
    A whole second gets one microsecond added: the wire promises microseconds, and `isoformat` drops zeros.

    Raises:
        ValueError: a field that no reader would accept; the message names it.
    """
    body = canonical(config) if config_canonical is None else config_canonical
    digest = hashlib.sha256(body).hexdigest() if config_checksum is None else config_checksum
    issued = _issued(issued_at)
    _check_signable(service, body, version, config_epoch, digest)
    data = signed_bytes(
        version=version,
        service=service,
        config_canonical=body,
        config_checksum=digest,
        config_epoch=config_epoch,
        issued_at=issued.isoformat(),
    )
    return SignedUpdate(
        service=service,
        config=config,
        version=version,
        config_epoch=config_epoch,
        checksum=digest,
        signature=base64.b64encode(private_key.sign(data)).decode(),
        issued_at=issued,
    )


def encode_signed(
    private_key: Ed25519PrivateKey,
    *,
    service: str,
    config_canonical: bytes,
    config_checksum: str,
    version: int,
    config_epoch: str,
    issued_at: datetime,
) -> bytes:
    """Sign and encode from the canonical config in one go, without parsing it: what a signer does most.

    Gives the same bytes as `sign(...).encode()` and raises the same errors.
    """
    _check_signable(service, config_canonical, version, config_epoch, config_checksum)
    issued = _issued(issued_at).isoformat()
    data = signed_bytes(
        version=version,
        service=service,
        config_canonical=config_canonical,
        config_checksum=config_checksum,
        config_epoch=config_epoch,
        issued_at=issued,
    )
    return _encode(
        service=service,
        config_canonical=config_canonical,
        version=version,
        config_epoch=config_epoch,
        checksum=config_checksum,
        signature=base64.b64encode(private_key.sign(data)).decode(),
        issued_at=issued,
    )


def signed_bytes(
    *,
    version: int,
    service: str,
    config_canonical: bytes,
    config_checksum: str,
    config_epoch: str,
    issued_at: str,
) -> bytes:
    """Give the bytes that the signature covers.

    No field can hold another one's `|`: all but the config have a fixed alphabet without it.
    """
    head = f"{version}|{service}|".encode()
    tail = f"|{config_checksum}|{config_epoch}|{issued_at}".encode()
    return head + config_canonical + tail


def decode(payload: bytes) -> SignedUpdate:
    """Parse one message strictly; the signature is not looked at.

    Raises:
        Refused: `too_large`, `malformed` (not strict JSON, a key missing or of a wrong type), `extra_key` or
            `unsigned` (no signature at all).
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise Refused(Reason.TOO_LARGE, f"{len(payload)} bytes, at most {MAX_MESSAGE_BYTES} are read")
    try:
        message = _strict.loads(payload)
    except _strict.NotStrictJson as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    if not isinstance(message, dict):
        raise Refused(Reason.MALFORMED, "not a JSON object")
    extra = message.keys() - set(KEYS)
    if extra:
        raise Refused(Reason.EXTRA_KEY, f"{len(extra)} unknown, such as {min(extra)[:64]!r}")
    signature = message.get("signature")
    if signature is None or signature == "":
        raise Refused(Reason.UNSIGNED, "no signature")
    missing = [key for key in KEYS if key not in message]
    if missing:
        raise Refused(Reason.MALFORMED, f"{missing[0]} is missing")
    config, version = message["config"], message["version"]
    if not isinstance(config, dict):
        raise Refused(Reason.MALFORMED, "config is not an object")
    if type(version) is not int or not 1 <= version <= _MAX_VERSION:
        raise Refused(Reason.MALFORMED, "version is not an integer from 1")
    return SignedUpdate(
        service=_matching(message, "service", _SERVICE),
        config=config,
        version=version,
        config_epoch=_matching(message, "config_epoch", _UUID),
        checksum=_matching(message, "checksum", _SHA256),
        signature=_signature_text(signature),
        issued_at=_time(_matching(message, "issued_at", _TIME)),
    )


def verify(update: SignedUpdate, keys: Iterable[Ed25519PublicKey]) -> None:
    """Check checksum and signature: that the holder of a trusted key said exactly this.

    Whether it is meant for this reader, fresh and newer than what is applied is `tars_config.ratchet`'s part.

    Raises:
        Refused: `too_large`, `malformed`, `checksum` or `bad_signature` (of no trusted key).
    """
    try:
        body = canonical(update.config)
        signature = base64.b64decode(update.signature, validate=True)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    if len(body) > MAX_CONFIG_BYTES:
        raise Refused(Reason.TOO_LARGE, f"the config has {len(body)} bytes, at most {MAX_CONFIG_BYTES} are read")
    if hashlib.sha256(body).hexdigest() != update.checksum:
        raise Refused(Reason.CHECKSUM, "the checksum is not that of the config")
    data = signed_bytes(
        version=update.version,
        service=update.service,
        config_canonical=body,
        config_checksum=update.checksum,
        config_epoch=update.config_epoch,
        issued_at=update.issued_at.isoformat(),
    )
    for key in keys:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            continue
        return
    raise Refused(Reason.BAD_SIGNATURE, "the signature is of no trusted key")


def _encode(
    *,
    service: str,
    config_canonical: bytes,
    version: int,
    config_epoch: str,
    checksum: str,
    signature: str,
    issued_at: str,
) -> bytes:
    # None of these strings can hold a character that JSON escapes.
    head = f'{{"service":"{service}","config":'.encode()
    tail = (
        f',"version":{version},"config_epoch":"{config_epoch}","checksum":"{checksum}"'
        f',"signature":"{signature}","issued_at":"{issued_at}"}}'
    )
    return head + config_canonical + tail.encode()


def _check_signable(service: str, body: bytes, version: int, config_epoch: str, digest: str) -> None:
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"service {service!r} is not a service's name ({_SERVICE.pattern})")
    if not body.startswith(b"{"):
        raise ValueError("config is not an object")
    if len(body) > MAX_CONFIG_BYTES:
        raise ValueError(f"config has {len(body)} bytes of canonical JSON, at most {MAX_CONFIG_BYTES} are read")
    # The message around it is one level more.
    if _strict.too_deep(body, _strict.MAX_DEPTH - 1):
        raise ValueError(f"config is nested deeper than {_strict.MAX_DEPTH - 1} levels")
    if type(version) is not int or not 1 <= version <= _MAX_VERSION:
        raise ValueError(f"version {version!r} is not an integer from 1")
    if not _UUID.fullmatch(config_epoch):
        raise ValueError(f"config_epoch {config_epoch!r} is not a UUID in lower case")
    if not _SHA256.fullmatch(digest):
        raise ValueError("config_checksum is not a lower-case hex SHA-256")


def _issued(when: datetime) -> datetime:
    if when.tzinfo is None:
        raise ValueError("issued_at has no time zone")
    when = when.astimezone(UTC)
    return when if when.microsecond else when.replace(microsecond=1)


def _matching(message: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = message[key]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused(Reason.MALFORMED, f"{key} is not of the form {pattern.pattern}")
    return value


def _signature_text(value: object) -> str:
    # The last character before the padding has four bits that decoding ignores: only one of sixteen spellings counts.
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == 64 and base64.b64encode(raw).decode() == value:
            return value
    raise Refused(Reason.MALFORMED, "signature is not the padded base64 of 64 bytes")


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"issued_at: {error}") from None


def _finite(value: object) -> bool:
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Enum):
            item = item.value
        if isinstance(item, float):
            if not math.isfinite(item):
                return False
        elif isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
    return True
