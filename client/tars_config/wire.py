"""The signed configuration update: its canonical form, signature, encoding and strict decoding.

One object of exactly seven keys, sent on `system/config/<service>` and kept in snapshot files. What is signed is
`version|service|canonical config|checksum|config_epoch|issued_at`, with Ed25519 (RFC 8032).
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tars_config import _envelope, _strict
from tars_config._envelope import Reason, Refused

__all__ = [
    "KEYS",
    "MAX_CONFIG_BYTES",
    "MAX_MESSAGE_BYTES",
    "Reason",
    "Refused",
    "SignedUpdate",
    "canonical",
    "checksum",
    "decode",
    "encode_signed",
    "sign",
    "signed_bytes",
    "verify",
]

MAX_CONFIG_BYTES: Final = 256 * 1024
"""Largest canonical config."""

MAX_MESSAGE_BYTES: Final = MAX_CONFIG_BYTES + 32 * 1024
"""Largest encoded update: a config, the other six keys, and room for white space."""

KEYS: Final = ("service", "config", "version", "config_epoch", "checksum", "signature", "issued_at")

_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    issued = _envelope.issued(issued_at)
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
        signature=_envelope.signature_over(data, private_key),
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
    issued = _envelope.issued(issued_at).isoformat()
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
        signature=_envelope.signature_over(data, private_key),
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
    message = _envelope.opened(payload, keys=KEYS, limit=MAX_MESSAGE_BYTES)
    config = message["config"]
    if not isinstance(config, dict):
        raise Refused(Reason.MALFORMED, "config is not an object")
    return SignedUpdate(
        service=_envelope.service_of(message),
        config=config,
        version=_envelope.version_of(message),
        config_epoch=_envelope.epoch_of(message),
        checksum=_envelope.matching(message, "checksum", _SHA256),
        signature=_envelope.signature_of(message),
        issued_at=_envelope.time_of(message),
    )


def verify(update: SignedUpdate, keys: Iterable[Ed25519PublicKey]) -> None:
    """Check checksum and signature: that the holder of a trusted key said exactly this.

    Whether it is meant for this reader, fresh and newer than what is applied is `tars_config.ratchet`'s part.

    Raises:
        Refused: `too_large`, `malformed`, `checksum` or `bad_signature` (of no trusted key).
    """
    try:
        body = canonical(update.config)
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
    _envelope.check_signature(update.signature, data, keys)


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
    _envelope.check_signable(service, version, config_epoch)
    if not body.startswith(b"{"):
        raise ValueError("config is not an object")
    if len(body) > MAX_CONFIG_BYTES:
        raise ValueError(f"config has {len(body)} bytes of canonical JSON, at most {MAX_CONFIG_BYTES} are read")
    # The message around it is one level more.
    if _strict.too_deep(body, _strict.MAX_DEPTH - 1):
        raise ValueError(f"config is nested deeper than {_strict.MAX_DEPTH - 1} levels")
    if not _SHA256.fullmatch(digest):
        raise ValueError("config_checksum is not a lower-case hex SHA-256")


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
