"""A line as a record: text or JSON, its level, safe to show, without secrets."""

import base64
import json
import logging
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.output import MASK, Mask
from actors.output._lines import Piece
from actors.output._record import MOST_KEYS, Content, finish, read

NOTHING = Mask()


def content(line: bytes | str | dict[str, Any], *secrets: str) -> Content:
    if isinstance(line, dict):
        line = json.dumps(line)
    return read(Piece(line if isinstance(line, bytes) else line.encode()), Mask(secrets))


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("WARNING:root:disk", "warning"),
        ("2026-11-20 10:00:00,123 - a.name - ERROR - disk", "error"),
        ("2026-11-20 10:00:00,123 INFO a.name: disk", "info"),
        ("2026-11-20 10:00:00.123 | DEBUG    | mod:function:12 - disk", "debug"),
        ("2026-11-20 10:00:00.123 | SUCCESS  | mod:function:12 - disk", "info"),
        ("2026-11-20T10:00:00.123Z [warning  ] disk  used=1", "warning"),
        ("2026/11/20 10:00:00 [error] 123#0: disk", "error"),
        ("[INFO] disk", "info"),
        ("[critical] disk", "critical"),
        ("I1120 10:00:00.123456 7 file.go:1] disk", "info"),
        ("E1120 10:00:00.123456 7 file.go:1] disk", "error"),
        ("[2026-11-20T10:00:00Z WARN  crate] disk", "warning"),
        ("time=2026 level=warn msg=disk", "warning"),
        ('level="error" msg=disk', "error"),
        ("INFO:     Started server process", "info"),
        ("error: no such file", "error"),
        ("FATAL disk", "critical"),
        ("DEBUG", "debug"),
        ("ValueError: disk", None),
        ("found ERROR codes: 0", None),
        ("Information is power", None),
        ("no errors here", None),
        ("    log(level=info)", None),
        ("", None),
    ],
)
def test_the_level_of_a_text(line: str, level: str | None) -> None:
    assert content(line)[:2] == (level, line)


@pytest.mark.parametrize(
    ("priority", "level"),
    [(0, "critical"), (3, "error"), (4, "warning"), (5, "info"), (6, "info"), (7, "debug"), (31, "debug")],
)
def test_a_syslog_priority_is_taken_off(priority: int, level: str) -> None:
    assert content(f"<{priority}>disk")[:2] == (level, "disk")


@pytest.mark.parametrize("line", ["<999>disk", "<b>disk", "<3disk"])
def test_what_is_no_priority_stays(line: str) -> None:
    assert content(line)[:2] == (None, line)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"event": "disk", "level": "warning", "timestamp": "2026-11-20T10:00:00Z", "used": 1},
            Content("warning", "disk", {"used": 1}, "2026-11-20T10:00:00Z"),
        ),
        ({"msg": "disk", "levelname": "ERROR", "ts": 1.5}, Content("error", "disk", {}, 1.5)),
        ({"message": "disk", "level": logging.WARNING}, Content("warning", "disk", {})),
        (
            {"msg": "disk", "level": 30, "time": 1, "pid": 7, "hostname": "h"},
            Content("info", "disk", {"pid": 7, "hostname": "h"}, 1),
        ),
        ({"message": {"a": 1}, "severity": "notice"}, Content("info", '{"a":1}', {})),
        ({"level": "loud", "time": "x" * 100}, Content(None, "", {"level": "loud", "time": "x" * 100})),
        (
            {
                "text": "rendered",
                "record": {
                    "level": {"name": "INFO", "no": 20},
                    "message": "disk",
                    "time": {"repr": "2026-11-20", "timestamp": 1},
                    "extra": {"used": 1},
                    "name": "mod",
                    "exception": None,
                },
            },
            Content("info", "disk", {"used": 1, "name": "mod"}, "2026-11-20"),
        ),
    ],
)
def test_a_json_line_is_merged(document: dict[str, Any], expected: Content) -> None:
    assert content(document) == expected


def test_a_worker_cannot_speak_for_another() -> None:
    ours = {"service": "stt", "instance": "i", "stream": "stdout", "pid": 7, "sequence": 12}
    forged = dict.fromkeys(["service", "instance", "stream", "pid", "sequence", "cut", "json"], "forged")
    record = finish(content({**forged, "time": "1970", "msg": "m"}), **ours, time="now", level="info")
    entry = orjson.loads(record.json)
    assert {key: entry[key] for key in ours} == ours
    assert (entry["time"], entry["worker_time"], entry["message"]) == ("now", "1970", "m")
    assert entry["fields"] == forged
    assert record.json.count(b"\n") == 1


def test_a_json_line_is_bounded() -> None:
    deep: Any = "bottom"
    for _ in range(50):
        deep = {"d": deep, "l": [deep] * 3} if len(str(deep)) < 2000 else {"d": deep}
    for document in (
        {"msg": "m", **{f"k{number}": number for number in range(500)}},
        {"msg": "m", "deep": deep},
        {"msg": "m", "list": list(range(1000))},
        {"msg": "m", "k" * 500: 1},
    ):
        read_ = content(document)
        assert read_.cut
        assert read_.message == "m"
        assert len(orjson.dumps(read_.fields)) < 4000
        assert len(read_.fields) <= MOST_KEYS
    assert content(b'{"a":' * 5000 + b"1" + b"}" * 5000).level is None  # orjson refuses it: it is a text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\x1b[1;32mgreen\x1b[0m \x1b]0;title\x07text\x1b(B", "green text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b]never ended", "\\x1b]never ended"),
        (b"a\x00b\x07c\td", "a\\x00b\\x07c\td"),
        (b"10%\r20%", "10%\\r20%"),
        ("a\u202eb\u2028c\x85d".encode(), "a\\u202eb\\u2028c\\x85d"),
        (b"bad \xff\xfe utf\xc3", "bad \ufffd\ufffd utf\ufffd"),
        ("größe €🙂".encode(), "größe €🙂"),
        (json.dumps({"msg": "a\x1b[31mb\nc\x00"}).encode(), "ab\nc\\x00"),
    ],
)
def test_what_is_shown_is_plain(line: bytes, message: str) -> None:
    assert content(line).message == message


SECRET = 'top"secrét/1'


@pytest.mark.parametrize(
    "line",
    [
        f"password {SECRET}",
        f"pass\x1b[0mword {SECRET[:4]}\x1b[1m{SECRET[4:]}",
        json.dumps({"msg": SECRET}),
        json.dumps({"msg": "m", "a": {"b": [f"x{SECRET}x"]}}),
        json.dumps({"msg": "m", SECRET: 1}),
        json.dumps({"msg": "m", "time": SECRET}),
        json.dumps({"msg": {"nested": SECRET}}),
        json.dumps({"msg": json.dumps({"again": SECRET})}),
        '{"msg": "' + "".join(f"\\u{ord(character):04x}" for character in SECRET) + '"}',
        f"sent {json.dumps({'password': SECRET})}",
        f"Basic {base64.b64encode(b'user:' + SECRET.encode()).decode()}",
    ],
)
def test_secrets_are_struck_out(line: str) -> None:
    clean = content(line, SECRET)
    shown = orjson.dumps(list(clean)).decode()
    assert MASK in shown
    for form in (SECRET, SECRET[4:], json.dumps(SECRET)[1:-1], "secr"):
        assert form not in shown
        assert orjson.dumps(form)[1:-1].decode() not in shown


def test_numbers_that_are_secrets_are_struck_out() -> None:
    assert content({"msg": "m", "pin": 48151623, "other": 48151624, "ok": True}, "48151623").fields == {
        "pin": MASK,
        "other": 48151624,
        "ok": True,
    }


def test_a_secret_across_values_takes_the_fields_with_it() -> None:
    assert content({"msg": "m", "list": [11, 22, 33]}, "11,22,33") == Content(
        None, "(left out: it held a secret in a form that cannot be struck out)", {}
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.one_of(st.binary(max_size=200), values.map(lambda value: json.dumps({"msg": value, "v": value}).encode())))
def test_anything_becomes_one_line_of_json(data: bytes) -> None:
    record = finish(
        read(Piece(data), Mask(["0000", "true", "msg"])),
        service="s", instance=None, stream="stdout", pid=None, time="t", sequence=1, level="info",
    )  # fmt: skip
    assert record.json.endswith(b"\n")
    assert b"\n" not in record.json[:-1]
    assert b"\x1b" not in record.json
    assert orjson.loads(record.json)["service"] == "s"


@given(
    st.text(min_size=4, max_size=12, alphabet=st.characters(codec="utf-8")).filter(
        lambda text: text.strip("*") and text.isprintable()
    ),
    values,
    st.text(max_size=8),
    st.booleans(),
)
def test_nothing_contains_the_secret(secret: str, value: Any, before: str, as_json: bool) -> None:
    text = f"{before}{secret}{before}"
    line = json.dumps({"msg": text, "v": value, "w": [text, {text: text}]}) if as_json else text
    clean = read(Piece(line.encode("utf-8", "replace").replace(b"\n", b" ")), Mask([secret]))

    def strings(item: Any):
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            for key, each in item.items():
                yield key
                yield from strings(each)
        elif isinstance(item, list):
            for each in item:
                yield from strings(each)

    for shown in strings([clean.message, clean.fields, clean.worker_time]):
        assert secret not in shown.replace(MASK, "\0" * 5)
