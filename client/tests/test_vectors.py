"""The published vectors: they are up to date, the library passes them, and so does a reader without it."""

import asyncio
import base64
import hashlib
import importlib.util
import json
import re
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tars_config import ConfigLibrary, Surroundings, control, wire
from tars_config.keys import parse_public_keys

HERE = Path(__file__).parents[1] / "vectors"
CANONICAL, MESSAGES, RATCHET, CONTROL = (
    json.loads((HERE / name).read_bytes())
    for name in ("canonical.json", "messages.json", "ratchet.json", "control.json")
)


def named(cases):
    return {"argvalues": cases, "ids": [case["name"] for case in cases]}


def payload_of(case) -> bytes:
    if "payload_repeated" in case:
        character, count = case["payload_repeated"]
        return character.encode() * count
    return base64.b64decode(case["payload_base64"])


def test_the_files_are_what_the_script_makes():
    spec = importlib.util.spec_from_file_location("make_vectors", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name, content in make.files().items():
        assert (HERE / name).read_bytes() == content, f"run client/vectors/make.py: {name} is out of date"


def test_every_reason_occurs():
    seen = {case["expect"] for case in MESSAGES["cases"]}
    seen |= {step.get("expect") for sequence in RATCHET["sequences"] for step in sequence["steps"]}
    assert set(wire.Reason) <= seen


@pytest.mark.parametrize("case", **named(CANONICAL["cases"]))
def test_canonical(case):
    assert wire.canonical(case["value"]).decode() == case["canonical"]
    assert wire.checksum(case["value"]) == case["checksum"]


@pytest.mark.parametrize("case", **named(MESSAGES["cases"]))
def test_message(case):
    keys = parse_public_keys(MESSAGES["public_keys"].encode())
    try:
        wire.verify(wire.decode(payload_of(case)), keys)
        result = "accepted"
    except wire.Refused as refused:
        result = refused.reason.value
    assert result == case["expect"]


@pytest.mark.parametrize("sequence", **named(RATCHET["sequences"]))
async def test_ratchet(sequence, tmp_path):
    """Each step through the library's own doors; a restart is a new library on the same folder."""
    fail, taken, now = False, [], ""

    def callback(values):
        taken.append(values)
        if fail:
            raise ValueError("as the vector says")

    async def start(snapshot=None):
        around = Surroundings(
            public_keys=parse_public_keys(RATCHET["public_keys"].encode()),
            state_directory=tmp_path / "state",
            snapshot=snapshot,
        )
        library = ConfigLibrary(RATCHET["service"], surroundings=around, clock=lambda: datetime.fromisoformat(now))
        await library.initialize()
        await library.get_values()
        await library.subscribe_values(callback)
        return library

    now = sequence["steps"][0]["now"]
    library = await start()
    for number, step in enumerate(sequence["steps"]):
        now = step["now"]
        if step["do"] == "restart":
            await library.close()
            library = await start()
            continue
        if step["do"] == "start from snapshot":
            await library.close()
            snapshot = tmp_path / "snapshot.json"
            snapshot.write_text(step["message"])
            library = await start(snapshot)
            assert library.version == json.loads(step["message"])["version"]
            continue
        fail, taken[:], refused = step.get("callback") == "fails", [], dict(library.refused)
        library.receive(step["message"].encode())
        async with asyncio.timeout(30):
            await library.settle()
        fresh = {reason for reason, count in library.refused.items() if count != refused.get(reason, 0)}
        got = fresh.pop() if fresh else "apply" if taken else "quiet"
        expected = {"repeat": "quiet", "failed before": "quiet"}.get(step["expect"], step["expect"])
        assert got == expected, f"step {number + 1}"
    await library.close()


@pytest.mark.parametrize("case", **named(CONTROL["cases"]))
def test_control_signal(case):
    keys = parse_public_keys(CONTROL["public_keys"].encode())
    try:
        control.verify(control.decode(payload_of(case)), keys)
        result = "accepted"
    except wire.Refused as refused:
        result = refused.reason.value
    assert result == case["expect"]


@pytest.mark.parametrize("sequence", **named(CONTROL["sequences"]))
async def test_control_sequence(sequence, tmp_path):
    fail, acted, now = False, [], sequence["steps"][0]["now"]

    def handler(signal):
        acted.append(signal)
        if fail:
            raise ValueError("as the vector says")

    async def start():
        keys = parse_public_keys(CONTROL["public_keys"].encode())
        around = Surroundings(public_keys=keys, state_directory=tmp_path / "state")
        library = ConfigLibrary(CONTROL["service"], surroundings=around, clock=lambda: datetime.fromisoformat(now))
        library.on_control(handler)
        await library.initialize()
        return library

    library = await start()
    for number, step in enumerate(sequence["steps"]):
        now = step["now"]
        if step["do"] == "restart":
            await library.close()
            library = await start()
            continue
        fail, acted[:], refused = step.get("handler") == "fails", [], dict(library.refused)
        library.receive_control(step["message"].encode())
        async with asyncio.timeout(30):
            await library.settle()
        fresh = {reason for reason, count in library.refused.items() if count != refused.get(reason, 0)}
        got = fresh.pop() if fresh else "act" if acted else "nothing"
        assert got == step["expect"], f"step {number + 1}"
    await library.close()


class StandAlone:
    """What the README tells an author in another language, in the plainest words: no library, no orjson."""

    FORMS = {  # noqa: RUF012 - it is a constant
        "service": r"[a-z][a-z0-9-]{0,62}",
        "command": r"[a-z][a-z0-9-]{0,62}",
        "config_epoch": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "checksum": r"[0-9a-f]{64}",
        "signature": r"[A-Za-z0-9+/]{85}[AQgw]==",
        "issued_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00",
    }

    def __init__(self, pem: str) -> None:
        blocks = re.findall(r"-----BEGIN.*?END PUBLIC KEY-----", pem, re.DOTALL)
        self.keys = [load_pem_public_key(block.encode()) for block in blocks]

    def accepts(self, payload: bytes) -> bool:
        message = self.opened(payload, 288 * 1024, {"version", "config", *self.FORMS} - {"command"})
        if message is None or not isinstance(message["config"], dict):
            return False
        canonical = self.canonical(message["config"])
        if hashlib.sha256(canonical.encode()).hexdigest() != message["checksum"]:
            return False
        order = ("version", "service", None, "checksum", "config_epoch", "issued_at")
        data = "|".join(str(message[key]) if key else canonical for key in order).encode()
        return any(self.signed_by(key, base64.b64decode(message["signature"]), data) for key in self.keys)

    def accepts_control(self, payload: bytes) -> bool:
        forms = {"version", "reason", *self.FORMS} - {"checksum"}
        message = self.opened(payload, 8 * 1024, forms)
        if message is None or not isinstance(message["reason"], str) or len(message["reason"]) > 500:
            return False
        signature = base64.b64decode(message.pop("signature"))
        data = f"tars-control-v1\n{self.canonical(message)}".encode()
        return any(self.signed_by(key, signature, data) for key in self.keys)

    def opened(self, payload, limit, keys):
        try:
            if len(payload) > limit:
                return None
            text = payload.decode()
            message = json.loads(text, object_pairs_hook=self.unique, parse_constant=self.no, parse_float=self.short)
            if set(message) != keys or type(message["version"]) is not int or message["version"] < 1:
                return None
            if re.search(r"\\u[0-9a-f]*[A-F]", text):
                return None
            if not all(re.fullmatch(form, message[key], re.ASCII) for key, form in self.FORMS.items() if key in keys):
                return None
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        return message

    @staticmethod
    def canonical(value):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def signed_by(key, signature, data):
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @staticmethod
    def unique(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("repeated key")
        return dict(pairs)

    @staticmethod
    def no(name):
        raise ValueError(name)

    @staticmethod
    def short(text):
        if repr(float(text)) != text:
            raise ValueError("not in its shortest form")
        return float(text)


@pytest.mark.parametrize("case", **named(MESSAGES["cases"]))
def test_the_vectors_suffice_to_write_a_reader(case):
    assert StandAlone(MESSAGES["public_keys"]).accepts(payload_of(case)) == (case["expect"] == "accepted")


@pytest.mark.parametrize("case", **named(CONTROL["cases"]))
def test_the_vectors_suffice_to_write_a_reader_of_control_signals(case):
    assert StandAlone(CONTROL["public_keys"]).accepts_control(payload_of(case)) == (case["expect"] == "accepted")


def test_orjson_writes_what_the_vectors_promise():
    """Its form of floats from 1e16 on changed once (3.11.7): a reader with another one refuses such a config."""
    assert orjson.dumps(1e16) == b"1e+16"
