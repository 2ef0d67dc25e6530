"""What every signed message has: the reasons to refuse it, the forms of its fields, and its Ed25519 signature."""

import base64
import binascii
import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tars_config import _strict

SERVICE: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?\+00:00")
_MAX_VERSION = 2**63 - 1


class Reason(StrEnum):
    """Why an update or a control signal was refused; the words that the applied report counts under."""

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
    """A message that must not be acted on; `reason` is for machines, the text for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


def opened(payload: bytes, *, keys: Collection[str], limit: int) -> dict[str, Any]:
    """Parse a message of exactly these keys, `signature` among them; their values are not looked at.

    Raises:
        Refused: `too_large`, `malformed` (not strict JSON, not an object, a key missing), `extra_key` or
            `unsigned` (no signature at all).
    """
    if len(payload) > limit:
        raise Refused(Reason.TOO_LARGE, f"{len(payload)} bytes, at most {limit} are read")
    try:
        message = _strict.loads(payload)
    except _strict.NotStrictJson as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    if not isinstance(message, dict):
        raise Refused(Reason.MALFORMED, "not a JSON object")
    extra = message.keys() - set(keys)
    if extra:
        raise Refused(Reason.EXTRA_KEY, f"{len(extra)} unknown, such as {min(extra)[:64]!r}")
    if message.get("signature") in (None, ""):
        raise Refused(Reason.UNSIGNED, "no signature")
    missing = [key for key in keys if key not in message]
    if missing:
        raise Refused(Reason.MALFORMED, f"{missing[0]} is missing")
    return message


def matching(message: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    """Give a text of this form. Raises Refused (`malformed`), as the other readers of fields do."""
    value = message[key]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused(Reason.MALFORMED, f"{key} is not of the form {pattern.pattern}")
    return value


def service_of(message: dict[str, Any]) -> str:
    return matching(message, "service", SERVICE)


def epoch_of(message: dict[str, Any]) -> str:
    return matching(message, "config_epoch", _UUID)


def version_of(message: dict[str, Any]) -> int:
    version = message["version"]
    if not _is_version(version):
        raise Refused(Reason.MALFORMED, "version is not an integer from 1")
    return int(version)


def time_of(message: dict[str, Any]) -> datetime:
    text = matching(message, "issued_at", _TIME)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"issued_at: {error}") from None


def signature_of(message: dict[str, Any]) -> str:
    """Give the signature's text.

    Its last character before the padding has four bits that decoding ignores: only one of sixteen spellings counts.
    """
    value = message["signature"]
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == 64 and base64.b64encode(raw).decode() == value:
            return value
    raise Refused(Reason.MALFORMED, "signature is not the padded base64 of 64 bytes")


def signature_over(data: bytes, private_key: Ed25519PrivateKey) -> str:
    return base64.b64encode(private_key.sign(data)).decode()


def check_signature(signature: str, data: bytes, keys: Iterable[Ed25519PublicKey]) -> None:
    """Check that the holder of one of these keys signed exactly this.

    Raises:
        Refused: `malformed` (not base64) or `bad_signature`.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    for key in keys:
        try:
            key.verify(raw, data)
        except InvalidSignature:
            continue
        return
    raise Refused(Reason.BAD_SIGNATURE, "the signature is of no trusted key")


def check_signable(service: str, version: int, config_epoch: str) -> None:
    """Raise a ValueError that names the field which no reader would accept."""
    if not SERVICE.fullmatch(service):
        raise ValueError(f"service {service!r} is not a service's name ({SERVICE.pattern})")
    if not _is_version(version):
        raise ValueError(f"version {version!r} is not an integer from 1")
    if not _UUID.fullmatch(config_epoch):
        raise ValueError(f"config_epoch {config_epoch!r} is not a UUID in lower case")


def issued(when: datetime) -> datetime:
    """Give the time as the wire has it: UTC, and never a whole second, whose microseconds `isoformat` would drop.

    Raises:
        ValueError: it has no time zone.
    """
    if when.tzinfo is None:
        raise ValueError("issued_at has no time zone")
    when = when.astimezone(UTC)
    return when if when.microsecond else when.replace(microsecond=1)


def _is_version(value: object) -> bool:
    return type(value) is int and 1 <= value <= _MAX_VERSION
