"""Control signals: their wire form, when one counts, and what is kept of them on disk."""

import contextlib
import itertools
import json
import random
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tars_config import control
from tars_config.control import MAX_ACTED, ControlFile, ControlSignal
from tars_config.wire import Refused

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
EPOCH = "0b8f6d6e-6a6b-4c55-9a53-2f4c3f0f2b11"
NOW = datetime(2026, 11, 20, 8, 30, 0, 250_000, UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def signed(key=KEY, **changes) -> ControlSignal:
    fields = {
        "service": "stt-worker",
        "command": "restart",
        "reason": 'é漢\U0001f916 "\\/ \x1b\x00\x7f\u2028|',
        "config_epoch": EPOCH,
        "version": 7,
        "issued_at": NOW,
    }
    return control.sign(key, **(fields | changes))


def accept(payload: bytes) -> ControlSignal:
    signal = control.decode(payload)
    control.verify(signal, [KEY.public_key()])
    return signal


# --- the wire form ---


def test_a_signed_signal_comes_back_as_it_was():
    signal = signed()
    assert accept(signal.encode()) == signal
    assert set(orjson.loads(signal.encode())) == set(control.KEYS)


def test_the_signed_bytes_are_those_of_the_contract():
    assert signed(reason="ü").signed_bytes().decode() == (
        'tars-control-v1\n{"command":"restart","config_epoch":"' + EPOCH + '",'
        '"issued_at":"2026-11-20T08:30:00.250000+00:00","reason":"ü","service":"stt-worker","version":7}'
    )


SPELLINGS = {
    "compact": signed().encode(),
    "python": json.dumps(json.loads(signed().encode())).encode(),
    "indented": json.dumps(json.loads(signed().encode()), indent="\t", ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_any_single_bit_flipped_is_refused(spelling):
    whole = SPELLINGS[spelling]
    assert accept(whole) == signed()
    for position in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(Refused):
            accept(bytes(flipped))


def test_any_truncation_and_any_repeated_byte_is_refused():
    whole = SPELLINGS["compact"]
    for length in range(len(whole)):
        with pytest.raises(Refused):
            accept(whole[:length])
        if whole[length : length + 1] != b" ":
            with pytest.raises(Refused):
                accept(whole[: length + 1] + whole[length:])


@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_and_nothing_else_is_raised(payload):
    with pytest.raises(Refused):
        accept(payload)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=control.MAX_REASON_CHARS), st.booleans())
def test_every_reason_is_accepted_in_every_accepted_spelling(reason, ascii_only):
    signal = signed(reason=reason)
    assert accept(json.dumps(json.loads(signal.encode()), ensure_ascii=ascii_only).encode()) == signal


def test_an_update_is_no_control_signal_and_the_other_way_round(supervisor):
    with pytest.raises(Refused):
        control.decode(supervisor.sign().encode())
    signal = replace(signed(), signature=supervisor.sign().signature)
    with pytest.raises(Refused, match="bad_signature"):
        control.verify(signal, [supervisor.private_key.public_key()])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"service": "Bad"}, "service"),
        ({"command": "Restart"}, "command"),
        ({"command": ""}, "command"),
        ({"command": "restart\n"}, "command"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "\ud800"}, "reason"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"config_epoch": "x"}, "config_epoch"),
        ({"issued_at": datetime(2026, 1, 1)}, "issued_at"),  # noqa: DTZ001 - that is the mistake
    ],
)
def test_a_signer_is_told_what_no_reader_would_take(changes, names):
    with pytest.raises(ValueError, match=names):
        signed(**changes)


def test_a_signal_built_by_hand_is_refused_not_crashed_on():
    with pytest.raises(Refused, match="malformed"):
        control.verify(replace(signed(), reason="\ud800"), [KEY.public_key()])
    with pytest.raises(Refused, match="malformed"):
        control.verify(replace(signed(), signature="é"), [KEY.public_key()])


# --- when one counts ---


def test_only_a_later_one_counts_whatever_was_seen():
    """Whatever comes in whatever order, each is acted on once, and none after a later one."""
    recorded = [signed(issued_at=NOW + number * SECOND) for number in range(6)]
    for order in itertools.permutations(recorded):
        acted: list[datetime] = []
        for signal in (*order, *order):
            with contextlib.suppress(Refused):
                control.judge(acted, signal, service="stt-worker", now=NOW)
                acted.append(signal.issued_at)
        assert acted == sorted(set(acted))


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 14), st.booleans()), max_size=40))
def test_none_is_acted_on_twice_whatever_the_clock_does(steps):
    """Minutes that the clock jumps, and then a fresh signal or one that was recorded."""
    now, acted, recorded = NOW, [], []
    for jump, pick, fresh in steps:
        now += jump * MINUTE
        issued_at = now + timedelta(microseconds=len(recorded) + 1)
        if fresh or not recorded:
            recorded.append(issued_at)
        else:
            issued_at = recorded[pick % len(recorded)]
        try:
            control.judge(acted[-MAX_ACTED:], signed(issued_at=issued_at), service="stt-worker", now=now)
        except Refused:
            continue
        acted.append(issued_at)
        if len(acted) == MAX_ACTED:
            break
    assert len(set(acted)) == len(acted)


def test_a_far_step_back_of_the_clock_locks_nobody_out():
    control.judge([NOW + HOUR], signed(), service="stt-worker", now=NOW)
    with pytest.raises(Refused, match="replayed"):
        control.judge([NOW + 4 * MINUTE], signed(), service="stt-worker", now=NOW)


# --- the file ---


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "control.json"
    ControlFile(path, "stt-worker").store([NOW, NOW + SECOND])
    return path


def test_the_file_gives_back_what_was_stored_and_is_ours_alone(stored):
    assert ControlFile(stored, "stt-worker").load() == (NOW, NOW + SECOND)
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_a_damaged_file_is_never_another_one(stored, caplog):
    whole = stored.read_bytes()
    for position in random.Random(7).sample(range(len(whole) * 8), 300):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        stored.write_bytes(flipped)
        assert ControlFile(stored, "stt-worker").load() in {(), (NOW, NOW + SECOND)}
    assert "could be replayed" in caplog.text
    assert stored.with_name("control.json.damaged").exists()


@pytest.mark.parametrize("acted", ['["2026-11-20T08:30:00"]', "7", '["soon"]', "[1]", "null"])
def test_a_file_with_something_else_in_it_is_put_aside(stored, acted):
    ControlFile(stored, "stt-worker")._file.store({"acted": orjson.loads(acted)})
    assert ControlFile(stored, "stt-worker").load() == ()
    assert not stored.exists()


def test_another_services_file_is_not_taken(stored):
    assert ControlFile(stored, "tts-worker").load() == ()
