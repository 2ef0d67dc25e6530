import base64
import dataclasses
import json
import math
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tars_config import wire
from tars_config.wire import Reason, Refused

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = (KEY.public_key(),)
EPOCH = "0b8f6d6e-6a6b-4c55-9a53-2f4c3f0f2b11"
ISSUED = datetime(2026, 11, 20, 8, 30, 0, 250_000, UTC)
# A value of each kind that has more than one spelling, or that parsers get wrong.
TRICKY = {
    "big": 1e16,
    "control": "\x1b\x00\x7f\u2028",
    "empty": [{}, [], "", None],
    "fraction": 0.1,
    "largest": 2**64 - 1,
    "negative zero": -0.0,
    "non-ascii": "é漢\U0001f916",
    "pipe": "|",
    "quotes": '\\"/',
    "small": 1e-7,
    "smallest": -(2**63),
    "truth": [True, False],
}


def signed(config=TRICKY, key=KEY, **changes):
    fields = {"service": "stt-worker", "version": 7, "config_epoch": EPOCH, "issued_at": ISSUED} | changes
    return wire.sign(key, config=config, **fields)


def accept(payload: bytes) -> wire.SignedUpdate:
    update = wire.decode(payload)
    wire.verify(update, TRUSTED)
    return update


def reason_of(payload: bytes) -> Reason:
    with pytest.raises(Refused) as refused:
        accept(payload)
    return refused.value.reason


def changed(**changes) -> bytes:
    message = orjson.loads(signed().encode()) | changes
    return orjson.dumps({key: value for key, value in message.items() if value is not ...})


def test_a_signed_update_comes_back_as_it_was():
    update = signed()
    assert accept(update.encode()) == update
    assert set(orjson.loads(update.encode())) == set(wire.KEYS)


def test_the_fast_path_gives_the_same_bytes():
    update = signed()
    fast = wire.encode_signed(
        KEY,
        service=update.service,
        config_canonical=wire.canonical(TRICKY),
        config_checksum=wire.checksum(TRICKY),
        version=update.version,
        config_epoch=update.config_epoch,
        issued_at=update.issued_at,
    )
    assert fast == update.encode()


def test_the_signed_bytes_are_those_of_the_contract():
    update = signed({"b": 1, "a": "é"})
    expected = f'7|stt-worker|{{"a":"é","b":1}}|{update.checksum}|{EPOCH}|2026-11-20T08:30:00.250000+00:00'
    KEY.public_key().verify(base64.b64decode(update.signature), expected.encode())


SPELLINGS = {
    "compact": signed().encode(),
    "python": json.dumps(json.loads(signed().encode())).encode(),
    "python, raw": json.dumps(json.loads(signed().encode()), ensure_ascii=False).encode(),
    "indented": json.dumps(json.loads(signed().encode()), indent=2, sort_keys=True).encode(),
    "tabs": json.dumps(json.loads(signed().encode()), indent="\t").encode(),
    "orjson, indented": orjson.dumps(orjson.loads(signed().encode()), option=orjson.OPT_INDENT_2) + b"\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_key_order_and_white_space_do_not_matter(spelling):
    assert accept(SPELLINGS[spelling]).config == TRICKY


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_any_single_bit_flipped_is_refused(spelling):
    """Exhaustive, also over bytes that the signature does not cover, such as escapes and white space."""
    whole = SPELLINGS[spelling]
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


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"null", Reason.MALFORMED),
        (b"[]", Reason.MALFORMED),
        (b"\xff\xfe{}", Reason.MALFORMED),
        (b"\xef\xbb\xbf" + signed().encode(), Reason.MALFORMED),
        (b"[" * 100_000, Reason.MALFORMED),
        (b" " * (wire.MAX_MESSAGE_BYTES + 1), Reason.TOO_LARGE),
        (changed(extra=1), Reason.EXTRA_KEY),
        (changed(Service="stt-worker"), Reason.EXTRA_KEY),
        (changed(signature=...), Reason.UNSIGNED),
        (changed(signature=None), Reason.UNSIGNED),
        (changed(signature=""), Reason.UNSIGNED),
        (changed(signature=7), Reason.MALFORMED),
        (changed(signature="AAAA"), Reason.MALFORMED),
        (changed(signature=signed().signature.rstrip("=")), Reason.MALFORMED),
        (changed(signature="-" + signed().signature[1:]), Reason.MALFORMED),
        (changed(signature=signed(key=STRANGER).signature), Reason.BAD_SIGNATURE),
        (signed(key=STRANGER).encode(), Reason.BAD_SIGNATURE),
        (changed(config=...), Reason.MALFORMED),
        (changed(config=[]), Reason.MALFORMED),
        (changed(config={}), Reason.CHECKSUM),
        (changed(checksum=signed().checksum.upper()), Reason.MALFORMED),
        (changed(checksum="0" * 64), Reason.CHECKSUM),
        (changed(config={}, checksum=wire.checksum({})), Reason.BAD_SIGNATURE),
        (changed(version=8), Reason.BAD_SIGNATURE),
        (changed(version="7"), Reason.MALFORMED),
        (changed(version=7.0), Reason.MALFORMED),
        (changed(version=True), Reason.MALFORMED),
        (changed(version=0), Reason.MALFORMED),
        (changed(version=2**63), Reason.MALFORMED),
        (changed(service="tts-worker"), Reason.BAD_SIGNATURE),
        (changed(service="Stt"), Reason.MALFORMED),
        (changed(service="stt-worker\n"), Reason.MALFORMED),
        (changed(config_epoch=EPOCH.upper()), Reason.MALFORMED),
        (changed(config_epoch="1"), Reason.MALFORMED),
        (changed(issued_at="2026-11-20T08:30:00.250000Z"), Reason.MALFORMED),
        (changed(issued_at="2026-11-20 08:30:00.250000+00:00"), Reason.MALFORMED),
        (changed(issued_at="2026-11-20T08:30:00.25+00:00"), Reason.MALFORMED),
        (changed(issued_at="2026-11-20T09:30:00.250000+01:00"), Reason.MALFORMED),
        (changed(issued_at="2026-13-20T08:30:00.250000+00:00"), Reason.MALFORMED),
        (changed(issued_at="２０26-11-20T08:30:00.250000+00:00"), Reason.MALFORMED),
        (changed(issued_at="2026-11-20T08:30:01.250000+00:00"), Reason.BAD_SIGNATURE),
        (signed().encode()[:-1] + b',"version":7}', Reason.MALFORMED),
        (signed().encode().replace(b"1e+16", b"1E+16"), Reason.MALFORMED),
        (signed().encode().replace(b"1e+16", b"10000000000000000.0"), Reason.MALFORMED),
        (signed().encode().replace(b"1e+16", b"NaN"), Reason.MALFORMED),
        (signed().encode().replace(b"1e+16", b"Infinity"), Reason.MALFORMED),
        (signed().encode().replace(b"1e+16", b"1e999"), Reason.MALFORMED),
        (signed().encode().replace(b"18446744073709551615", b"18446744073709551616"), Reason.MALFORMED),
        (signed().encode().replace(b"\\u001b", b"\\u001B"), Reason.MALFORMED),
        (signed().encode().replace(b"\\u001b", b"\\ud800"), Reason.MALFORMED),
        (signed().encode().replace("é".encode(), b"\xed\xa0\x80"), Reason.MALFORMED),
        (b"\r" + signed().encode(), Reason.MALFORMED),
    ],
)
def test_everything_else_is_refused_with_its_reason(payload, reason):
    assert reason_of(payload) == reason


def test_without_trusted_keys_nothing_is_accepted():
    with pytest.raises(Refused) as refused:
        wire.verify(signed(), ())
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_any_of_several_keys_will_do():
    wire.verify(signed(), (STRANGER.public_key(), KEY.public_key()))


def test_a_config_may_have_256_kib_and_not_a_byte_more():
    overhead = len(b'{"text":""}')
    accept(signed({"text": "x" * (wire.MAX_CONFIG_BYTES - overhead)}).encode())
    with pytest.raises(ValueError, match="at most 262144"):
        signed({"text": "x" * (wire.MAX_CONFIG_BYTES - overhead + 1)})


def test_nesting_is_bounded_the_same_for_signer_and_reader():
    def nested(levels):
        return {"a": nested(levels - 1)} if levels > 1 else {"a": [1]}

    deepest = nested(30)
    accept(signed(deepest).encode())
    with pytest.raises(ValueError, match="nested"):
        signed({"more": deepest})
    # Wide is not deep.
    accept(signed({str(number): [[]] for number in range(1000)}).encode())


@pytest.mark.parametrize(
    "value",
    [
        {"a": math.nan},
        {"a": [{"b": math.inf}]},
        {"a": (-math.inf,)},
        {"a": 2**64},
        {"a": "\ud800"},
        {1: "a"},
        {"a": object()},
        dataclasses.make_dataclass("D", ["a"])(1),
    ],
)
def test_what_json_cannot_say_is_not_signed(value):
    with pytest.raises(ValueError, match="canonical"):
        wire.canonical(value)


def test_null_itself_is_fine():
    assert wire.canonical({"b": None, "a": [None, 1.5]}) == b'{"a":[null,1.5],"b":null}'


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"service": "Bad"}, "service"),
        ({"service": 'x","y":"'}, "service"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"config_epoch": "x"}, "config_epoch"),
        ({"config_checksum": "x"}, "checksum"),
        ({"config_canonical": b"[]"}, "config"),
        ({"issued_at": datetime(2026, 1, 1)}, "issued_at"),  # noqa: DTZ001 - that is the mistake
    ],
)
def test_a_signer_is_told_what_no_reader_would_take(changes, names):
    with pytest.raises(ValueError, match=names):
        signed({}, **changes)


def test_whole_seconds_and_other_zones_become_utc_with_microseconds():
    there = datetime(2026, 11, 20, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    update = accept(signed(issued_at=there).encode())
    assert update.issued_at.isoformat() == "2026-11-20T08:30:00.000001+00:00"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
CONFIGS = st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), JSON, max_size=5)


@given(CONFIGS, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_every_config_is_accepted_in_every_accepted_spelling(config, indent, ascii_only):
    update = signed(config)
    assert accept(update.encode()).config == config
    respelled = json.dumps(json.loads(update.encode()), indent=indent, ensure_ascii=ascii_only)
    assert accept(respelled.encode()) == update


@given(st.binary(max_size=400) | JSON.map(orjson.dumps))
def test_whatever_comes_is_refused_and_nothing_else_is_raised(payload):
    with pytest.raises(Refused):
        accept(payload)


@settings(max_examples=300)
@given(st.data())
def test_no_edit_of_a_message_is_accepted_unless_it_says_the_same(data):
    whole = SPELLINGS["compact"]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 8)))
    edited = whole[:start] + data.draw(st.binary(max_size=8)) + whole[end:]
    try:
        update = accept(edited)
    except Refused:
        return
    assert update == signed()
