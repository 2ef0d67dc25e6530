"""The signed control signal: what a supervisor tells a worker that it does not run itself, such as to restart.

One object of exactly seven keys, sent on `system/control/<service>`. Signed, with Ed25519 (RFC 8032), are a line that
keeps the signature from standing for anything else, `tars-control-v1`, and the canonical JSON of the other six keys.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tars_config import _envelope
from tars_config._envelope import Reason, Refused
from tars_config._sealed import SealedFile
from tars_config.ratchet import WINDOW, check_meant
from tars_config.wire import canonical

RESTART: Final = "restart"
"""The one command that means something without a worker's handler."""

MAX_REASON_CHARS: Final = 500
"""Longest `reason`, in characters."""

MAX_MESSAGE_BYTES: Final = 8 * 1024
"""Largest encoded signal: 500 characters take 6000 bytes at most, escaped as pairs."""

KEYS: Final = ("service", "command", "reason", "config_epoch", "version", "issued_at", "signature")

MAX_ACTED: Final = 16
"""How many signals acted on are remembered by their time of issue."""

_HEAD = b"tars-control-v1\n"
_COMMAND = re.compile(r"[a-z][a-z0-9-]{0,62}")
_REASON = re.compile(rf".{{0,{MAX_REASON_CHARS}}}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSignal:
    """One command to one service's worker, for people with its reason.

    `config_epoch` and `version` are the configuration that the supervisor wanted the worker to run with when it sent
    this. Having one proves nothing about its signature: `verify` does. A handler gets verified ones only.
    """

    service: str
    command: str
    reason: str
    config_epoch: str
    version: int
    issued_at: datetime
    signature: str

    def encode(self) -> bytes:
        """Give the compact JSON for the wire."""
        return orjson.dumps(self._said() | {"signature": self.signature})

    def signed_bytes(self) -> bytes:
        """Give the bytes that the signature covers."""
        return _HEAD + canonical(self._said())

    def _said(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "command": self.command,
            "reason": self.reason,
            "config_epoch": self.config_epoch,
            "version": self.version,
            "issued_at": self.issued_at.isoformat(),
        }


def sign(
    private_key: Ed25519PrivateKey,
    *,
    service: str,
    command: str,
    reason: str,
    config_epoch: str,
    version: int,
    issued_at: datetime,
) -> ControlSignal:
    """Sign one control signal. A whole second gets one microsecond added, as with updates.

    Raises:
        ValueError: a field that no reader would accept; the message names it.
    """
    _envelope.check_signable(service, version, config_epoch)
    if not _COMMAND.fullmatch(command):
        raise ValueError(f"command {command!r} is not a command's name ({_COMMAND.pattern})")
    if not _REASON.fullmatch(reason):
        raise ValueError(f"reason has {len(reason)} characters, at most {MAX_REASON_CHARS} are read")
    fields: dict[str, Any] = {
        "service": service,
        "command": command,
        "reason": reason,
        "config_epoch": config_epoch,
        "version": version,
        "issued_at": _envelope.issued(issued_at),
    }
    try:
        data = ControlSignal(**fields, signature="").signed_bytes()
    except ValueError as error:
        raise ValueError(f"reason {error}") from None  # a lone surrogate; nothing else is left to be wrong
    return ControlSignal(**fields, signature=_envelope.signature_over(data, private_key))


def decode(payload: bytes) -> ControlSignal:
    """Parse one message strictly; the signature is not looked at.

    Raises:
        Refused: `too_large`, `malformed` (not strict JSON, a key missing or of a wrong type or form), `extra_key` or
            `unsigned` (no signature at all).
    """
    message = _envelope.opened(payload, keys=KEYS, limit=MAX_MESSAGE_BYTES)
    return ControlSignal(
        service=_envelope.service_of(message),
        command=_envelope.matching(message, "command", _COMMAND),
        reason=_envelope.matching(message, "reason", _REASON),
        config_epoch=_envelope.epoch_of(message),
        version=_envelope.version_of(message),
        issued_at=_envelope.time_of(message),
        signature=_envelope.signature_of(message),
    )


def verify(signal: ControlSignal, keys: Iterable[Ed25519PublicKey]) -> None:
    """Check the signature: that the holder of a trusted key said exactly this. `judge` says whether it counts.

    Raises:
        Refused: `malformed` or `bad_signature` (of no trusted key).
    """
    try:
        data = signal.signed_bytes()
    except ValueError as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    _envelope.check_signature(signal.signature, data, keys)


def judge(acted: Sequence[datetime], signal: ControlSignal, *, service: str, now: datetime) -> None:
    """Decide on a verified signal. `acted` are the times of issue of those acted on, in the order of acting.

    It has to be fresh and later than the last one acted on. A last one more than 5 minutes ahead of the clock does
    not hold off later ones: a clock that once ran ahead must not lock a reader out until that time comes. What it
    acted on meanwhile stays refused by its very time, which a signer never gives twice.

    Raises:
        Refused: `wrong_service`, `stale`, `future` or `replayed`.
    """
    check_meant(signal.service, signal.issued_at, service=service, now=now)
    last = acted[-1] if acted else None
    after_last = last is None or last - now > WINDOW or signal.issued_at > last
    if signal.issued_at in acted or not after_last:
        raise Refused(
            Reason.REPLAYED,
            f"issued at {signal.issued_at.isoformat()}, which is not later than the last one acted on",
        )


class ControlFile:
    """The times of issue of the signals acted on, on disk."""

    def __init__(self, path: Path, service: str) -> None:
        self._file = SealedFile(
            path,
            service,
            name="control",
            without_it="a control signal that is at most 5 minutes old could be replayed",
        )

    def load(self) -> tuple[datetime, ...]:
        """Read the times; none where there is no file or it is damaged, which is logged."""
        return self._file.load(_parsed) or ()

    def store(self, acted: Sequence[datetime]) -> None:
        """Write the times durably.

        Raises:
            OSError: such as a full disk; the file is as before.
        """
        self._file.store({"acted": [issued_at.isoformat() for issued_at in acted]})


def _parsed(body: dict[str, Any]) -> tuple[datetime, ...]:
    acted = tuple(datetime.fromisoformat(text) for text in body["acted"])
    if any(issued_at.tzinfo is None for issued_at in acted):
        raise ValueError("a time has no zone")
    return acted
