"""Makes the test vectors: deterministic, so that a test can say whether they are up to date.

python client/vectors/make.py           # write the files beside this one
"""
# ruff: noqa: INP001 - a script beside its data, not a package

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tars_config import control, wire

HERE = Path(__file__).parent
SERVICE = "stt-worker"
# Fixed and public: good for vectors and for nothing else.
TRUSTED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NEXT = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
NOW = datetime(2026, 11, 20, 8, 30, 0, 250_000, UTC)
EPOCHS = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(10)]
CONFIG = {"vad_threshold": 0.5, "whisper_model": "base.en", "greeting": "Grüß Gott\n\u001b|", "ws_url": None}


def signed(key: Ed25519PrivateKey = TRUSTED, **changes: Any) -> bytes:
    """Give an encoded update."""
    fields: dict[str, Any] = {
        "service": SERVICE,
        "config": CONFIG,
        "version": 7,
        "config_epoch": EPOCHS[1],
        "issued_at": NOW,
    } | changes
    return wire.sign(key, **fields).encode()


def edited(base: bytes | None = None, **changes: Any) -> bytes:
    """Give an update changed after it was signed; `...` removes a key."""
    message = orjson.loads(base or signed()) | changes
    return orjson.dumps({key: value for key, value in message.items() if value is not ...})


def commanded(key: Ed25519PrivateKey = TRUSTED, **changes: Any) -> bytes:
    """Give an encoded control signal."""
    fields: dict[str, Any] = {
        "service": SERVICE,
        "command": "restart",
        "reason": "Grüß Gott \U0001f916\n\u001b|",
        "config_epoch": EPOCHS[1],
        "version": 7,
        "issued_at": NOW,
    } | changes
    return control.sign(key, **fields).encode()


def canonical_cases() -> Iterable[dict[str, Any]]:
    """Give values, their canonical JSON, and its checksum."""
    values: dict[str, Any] = {
        "empty": {},
        "keys are sorted at every level": {"b": 1, "a": {"d": [], "c": None}},
        "keys are sorted by code point, not by UTF-16 unit": {"\ue000": 1, "\U0001f916": 2, "z": 3, "é": 4},
        "nothing but control characters, quote and backslash is escaped": {
            "a": 'é漢\U0001f916 "\\ / \x00\x08\t\n\x0c\r\x1b \x7f \u2028'
        },
        "lists keep their order": {"a": [3, 1, 2]},
        "integers up to 64 bits": {"a": [0, -1, -(2**63), 2**63, 2**64 - 1]},
        "floats in their shortest form": {"a": [0.1, 1.0, -0.0, 1.5e300, 5e-324, 1e-7, 1e15, 1e16, 123456789.125]},
        "where floats get an exponent": {
            "a": [0.0001, 0.00001, 0.000015, 9.9e-6, 1e-6, 2.5e-10, 9999999999999998.0, 1.5e16, 1e21, 1e22]
        },
        "truth and null": {"a": [True, False, None]},
    }
    for name, value in values.items():
        text = wire.canonical(value).decode()
        yield {"name": name, "value": value, "canonical": text, "checksum": wire.checksum(value)}


def message_cases() -> Iterable[dict[str, Any]]:
    """Give messages, and what decoding and verifying them comes to."""
    good = signed()
    plain = json.loads(good)
    tail = good[-1:]
    shifted = good.replace(b"0.5", b"0.6", 1)
    cases: list[tuple[str, str, bytes]] = [
        ("as a supervisor sends it", "accepted", good),
        ("other key order and white space", "accepted", json.dumps(plain, indent=2, sort_keys=True).encode()),
        ("ASCII escapes in lower case", "accepted", json.dumps(plain).encode()),
        ("signed with the second trusted key", "accepted", signed(NEXT)),
        ("an empty config", "accepted", signed(config={})),
        ("one bit of the config flipped", "checksum", shifted),
        ("version changed", "bad_signature", edited(version=8)),
        ("service changed", "bad_signature", edited(service="tts-worker")),
        ("epoch changed", "bad_signature", edited(config_epoch=EPOCHS[2])),
        ("time changed", "bad_signature", edited(issued_at=(NOW + timedelta(seconds=1)).isoformat())),
        (
            "config and checksum changed",
            "bad_signature",
            edited(config={"a": 1}, checksum=wire.checksum({"a": 1})),
        ),
        ("signed by a stranger", "bad_signature", signed(STRANGER)),
        ("no signature", "unsigned", edited(signature=...)),
        ("an empty signature", "unsigned", edited(signature="")),
        ("an eighth key", "extra_key", edited(note="x")),
        ("an eighth key that is null", "extra_key", edited(note=None)),
        ("a missing key", "malformed", edited(checksum=...)),
        ("a repeated key", "malformed", good[:-1] + b',"version":7' + tail),
        ("a repeated key inside the config", "malformed", good.replace(b'{"greeting"', b'{"ws_url":1,"greeting"')),
        ("version as text", "malformed", edited(version="7")),
        ("version as float", "malformed", edited(version=7.0)),
        ("version 0", "malformed", edited(version=0)),
        ("config as a list", "malformed", edited(config=[])),
        ("checksum in upper case", "malformed", edited(checksum=plain["checksum"].upper())),
        (
            "unused bits of the signature's base64 set",
            "malformed",
            edited(signature=_with_unused_bits(plain["signature"])),
        ),
        ("time with Z", "malformed", edited(issued_at=plain["issued_at"].replace("+00:00", "Z"))),
        (
            "time with a space",
            "malformed",
            edited(issued_at=plain["issued_at"].replace("T", " ")),
        ),
        ("a float not in its shortest form", "malformed", good.replace(b"0.5", b"0.50", 1)),
        ("an escape in upper case", "malformed", good.replace(b"\\u001b", b"\\u001B")),
        ("NaN", "malformed", good.replace(b"0.5", b"NaN", 1)),
        ("not UTF-8", "malformed", good.replace("ü".encode(), b"\xfc", 1)),
        ("cut off", "malformed", good[:-1]),
        ("something after it", "malformed", good + b"x"),
        ("nested 33 levels deep", "malformed", good.replace(b"0.5", b"[" * 31 + b"]" * 31, 1)),
        ("not an object", "malformed", b"[]"),
        ("too large", "too_large", b" " * (wire.MAX_MESSAGE_BYTES + 1)),
    ]
    for name, expect, payload in cases:
        yield _case(name, expect, payload)


def _case(name: str, expect: str, payload: bytes) -> dict[str, Any]:
    if len(set(payload)) == 1:
        return {"name": name, "expect": expect, "payload_repeated": [payload[:1].decode(), len(payload)]}
    return {"name": name, "expect": expect, "payload_base64": base64.b64encode(payload).decode()}


def control_cases() -> Iterable[dict[str, Any]]:
    """Give control signals, and what decoding and verifying them comes to."""
    good = commanded()
    plain = json.loads(good)

    def changed(**changes: Any) -> bytes:
        return edited(good, **changes)

    def signed_over(data: bytes) -> bytes:
        return changed(signature=base64.b64encode(TRUSTED.sign(data)).decode())

    rest = wire.canonical({key: value for key, value in plain.items() if key != "signature"})
    cases: list[tuple[str, str, bytes]] = [
        ("as a supervisor sends it", "accepted", good),
        ("other key order and white space", "accepted", json.dumps(plain, indent=2, sort_keys=True).encode()),
        ("signed with the second trusted key", "accepted", commanded(NEXT)),
        ("signed over the line and the canonical JSON", "accepted", signed_over(b"tars-control-v1\n" + rest)),
        ("no reason, another command", "accepted", commanded(reason="", command="clear-cache")),
        (
            "the longest reason, escaped",
            "accepted",
            json.dumps(json.loads(commanded(reason="\U0001f916" * 500))).encode(),
        ),
        ("signed without the line", "bad_signature", signed_over(rest)),
        ("signed with another line", "bad_signature", signed_over(b"tars-control-v2\n" + rest)),
        ("service changed", "bad_signature", changed(service="tts-worker")),
        ("command changed", "bad_signature", changed(command="stop")),
        ("reason changed", "bad_signature", changed(reason="")),
        ("epoch changed", "bad_signature", changed(config_epoch=EPOCHS[2])),
        ("version changed", "bad_signature", changed(version=8)),
        ("time changed", "bad_signature", changed(issued_at=(NOW + timedelta(seconds=1)).isoformat())),
        ("signed by a stranger", "bad_signature", commanded(STRANGER)),
        ("a configuration update", "extra_key", signed()),
        ("no signature", "unsigned", changed(signature=...)),
        ("an empty signature", "unsigned", changed(signature="")),
        ("an eighth key", "extra_key", changed(note="x")),
        ("a missing key", "malformed", changed(reason=...)),
        ("a repeated key", "malformed", good[:-1] + b',"command":"restart"}'),
        ("command in upper case", "malformed", changed(command="Restart")),
        ("an empty command", "malformed", changed(command="")),
        ("reason as null", "malformed", changed(reason=None)),
        ("a reason of 501 characters", "malformed", changed(reason="x" * 501)),
        ("version as text", "malformed", changed(version="7")),
        ("version 0", "malformed", changed(version=0)),
        ("time with Z", "malformed", changed(issued_at=plain["issued_at"].replace("+00:00", "Z"))),
        (
            "unused bits of the signature's base64 set",
            "malformed",
            changed(signature=_with_unused_bits(plain["signature"])),
        ),
        ("an escape in upper case", "malformed", good.replace(b"\\u001b", b"\\u001B", 1)),
        ("not UTF-8", "malformed", good.replace("ü".encode(), b"\xfc", 1)),
        ("cut off", "malformed", good[:-1]),
        ("not an object", "malformed", b"[]"),
        ("too large", "too_large", b" " * (control.MAX_MESSAGE_BYTES + 1)),
    ]
    for name, expect, payload in cases:
        yield _case(name, expect, payload)


def _with_unused_bits(signature: str) -> str:
    last = signature[-3]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return signature[:-3] + alphabet[alphabet.index(last) + 1] + "=="


def sequences() -> Iterable[dict[str, Any]]:
    """Give what happens to one reader, step by step, and what it has to answer."""

    def at(seconds: float) -> datetime:
        return NOW + timedelta(seconds=seconds)

    def receive(
        expect: str, version: int, *, seconds: float, epoch: int = 1, issued: float | None = None, **more: Any
    ) -> dict[str, Any]:
        issued_at = at(seconds - 0.001 if issued is None else issued)
        message = signed(version=version, config_epoch=EPOCHS[epoch], issued_at=issued_at, **more)
        return {
            "do": "receive",
            "now": at(seconds).isoformat(),
            "message": message.decode(),
            "expect": expect,
        }

    def fails(step: dict[str, Any]) -> dict[str, Any]:
        return step | {"callback": "fails"}

    def snapshot(version: int, *, seconds: float, epoch: int = 1, issued: float = -86400) -> dict[str, Any]:
        message = signed(version=version, config_epoch=EPOCHS[epoch], issued_at=at(issued))
        return {"do": "start from snapshot", "now": at(seconds).isoformat(), "message": message.decode()}

    def restart(seconds: float) -> dict[str, Any]:
        return {"do": "restart", "now": at(seconds).isoformat()}

    yield {
        "name": "versions only rise, also over a restart",
        "steps": [
            receive("apply", 5, seconds=0),
            receive("repeat", 5, seconds=1),
            receive("downgraded", 4, seconds=2),
            receive("conflict", 5, seconds=3, config={"other": 1}),
            restart(4),
            receive("repeat", 5, seconds=5),
            receive("downgraded", 4, seconds=6),
            receive("conflict", 5, seconds=7, config={"other": 1}),
            receive("apply", 9, seconds=8),
        ],
    }
    yield {
        "name": "five minutes either way",
        "steps": [
            receive("stale", 1, seconds=0, issued=-300.000001),
            receive("apply", 1, seconds=0, issued=-300),
            receive("future", 2, seconds=0, issued=300.000001),
            receive("apply", 2, seconds=0, issued=300),
            receive("apply", 3, seconds=1, issued=0),
        ],
    }
    yield {
        "name": "another service",
        "steps": [receive("wrong_service", 1, seconds=0, service="tts-worker"), receive("apply", 1, seconds=1)],
    }
    yield {
        "name": "a rebuild starts a new epoch; the old one never comes back",
        "steps": [
            receive("apply", 5, seconds=0, epoch=1),
            receive("apply", 6, seconds=10, epoch=2),
            receive("left_epoch", 7, seconds=11, epoch=1),
            restart(12),
            receive("left_epoch", 7, seconds=13, epoch=1),
            receive("apply", 1, seconds=14, epoch=3),
            receive("left_epoch", 9, seconds=15, epoch=2),
            receive("apply", 2, seconds=16, epoch=3),
        ],
    }
    yield {
        "name": "a new epoch has to be issued later than anything accepted, repeats included",
        "steps": [
            receive("apply", 5, seconds=0, issued=-1),
            receive("repeat", 5, seconds=60, issued=59),
            receive("replayed", 6, seconds=61, epoch=2, issued=58),
            receive("replayed", 6, seconds=61, epoch=2, issued=59),
            receive("apply", 6, seconds=61, epoch=2, issued=59.000001),
        ],
    }
    yield {
        "name": "a clock that once ran ahead does not lock out",
        "steps": [
            receive("apply", 5, seconds=864000),
            restart(0),
            receive("replayed", 6, seconds=1, epoch=2, issued=-1),
            receive("apply", 6, seconds=2, epoch=2, issued=1),
        ],
    }
    yield {
        "name": "a snapshot sets the ratchet, whatever its age, also backwards and into a left epoch",
        "steps": [
            snapshot(5, seconds=0),
            receive("downgraded", 4, seconds=1),
            receive("repeat", 5, seconds=2),
            receive("apply", 6, seconds=3),
            snapshot(5, seconds=4),
            receive("apply", 6, seconds=5),
            receive("apply", 7, seconds=6, epoch=2),
            snapshot(3, seconds=7, epoch=1),
            receive("apply", 4, seconds=8, epoch=1),
            receive("left_epoch", 8, seconds=9, epoch=2),
        ],
    }
    yield {
        "name": "a failed callback moves nothing; the same version comes again after a restart only",
        "steps": [
            receive("apply", 5, seconds=0),
            fails(receive("apply", 6, seconds=1)),
            receive("failed before", 6, seconds=2),
            receive("repeat", 5, seconds=3),
            restart(4),
            receive("apply", 6, seconds=5),
            fails(receive("apply", 7, seconds=6)),
            receive("apply", 8, seconds=7),
        ],
    }


def control_sequences() -> Iterable[dict[str, Any]]:
    """Give what happens to one reader of control signals, step by step, and what it has to answer."""

    def at(seconds: float) -> datetime:
        return NOW + timedelta(seconds=seconds)

    def receive(expect: str, *, seconds: float, issued: float | None = None, **more: Any) -> dict[str, Any]:
        message = commanded(issued_at=at(seconds - 0.001 if issued is None else issued), **more)
        return {"do": "receive", "now": at(seconds).isoformat(), "message": message.decode(), "expect": expect}

    def fails(step: dict[str, Any]) -> dict[str, Any]:
        return step | {"handler": "fails"}

    def restart(seconds: float) -> dict[str, Any]:
        return {"do": "restart", "now": at(seconds).isoformat()}

    yield {
        "name": "each one is later than the last one acted on, also over a restart",
        "steps": [
            receive("act", seconds=0, issued=-1),
            receive("replayed", seconds=1, issued=-1),
            receive("replayed", seconds=2, issued=-2),
            receive("act", seconds=3, issued=-0.999999),
            restart(4),
            receive("replayed", seconds=5, issued=-0.999999),
            receive("replayed", seconds=6, issued=-1),
            receive("act", seconds=7, issued=6),
        ],
    }
    yield {
        "name": "five minutes either way",
        "steps": [
            receive("stale", seconds=0, issued=-300.000001),
            receive("act", seconds=0, issued=-300),
            receive("future", seconds=0, issued=300.000001),
            receive("act", seconds=0, issued=300),
            receive("replayed", seconds=1, issued=1),
            receive("act", seconds=2, issued=300.000001),
        ],
    }
    yield {
        "name": "another service",
        "steps": [receive("wrong_service", seconds=0, service="tts-worker"), receive("act", seconds=1)],
    }
    yield {
        "name": "version and epoch decide nothing",
        "steps": [
            receive("act", seconds=0, version=7),
            receive("act", seconds=1, version=3),
            receive("act", seconds=2, version=1, config_epoch=EPOCHS[2]),
            receive("act", seconds=3, version=9, config_epoch=EPOCHS[1]),
        ],
    }
    yield {
        "name": "one that failed was acted on",
        "steps": [
            fails(receive("act", seconds=0, issued=-1)),
            receive("replayed", seconds=1, issued=-1),
            restart(2),
            receive("replayed", seconds=3, issued=-1),
        ],
    }
    yield {
        "name": "a clock that once ran ahead does not lock out, and brings nothing back",
        "steps": [
            receive("act", seconds=3600),
            receive("act", seconds=3601),
            receive("act", seconds=0, issued=-1),
            receive("replayed", seconds=1, issued=-1),
            restart(2),
            receive("act", seconds=3, issued=2),
            receive("replayed", seconds=3599, issued=3599.999),
            receive("replayed", seconds=3602, issued=3600.999),
            receive("act", seconds=3603),
        ],
    }


def files() -> dict[str, bytes]:
    """Give every file's name and content."""

    def pem(key: Ed25519PrivateKey) -> str:
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    documents: dict[str, Any] = {
        "canonical.json": {"cases": list(canonical_cases())},
        "messages.json": {"public_keys": pem(TRUSTED) + pem(NEXT), "cases": list(message_cases())},
        "ratchet.json": {"service": SERVICE, "public_keys": pem(TRUSTED), "sequences": list(sequences())},
        "control.json": {
            "service": SERVICE,
            "public_keys": pem(TRUSTED) + pem(NEXT),
            "cases": list(control_cases()),
            "sequences": list(control_sequences()),
        },
    }
    return {name: json.dumps(document, indent=1).encode() + b"\n" for name, document in documents.items()}


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_bytes(content)
