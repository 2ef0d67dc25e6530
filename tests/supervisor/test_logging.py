"""In processes of their own: logging belongs to the whole process."""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor._redact import SHORTEST, Redactor, _forms
from supervisor._render import json_line, terminal_line

START = """
import logging, os, sys
from supervisor.logging import Redactor, configure_logging
process_log = configure_logging(sys.argv[1], environ=os.environ, redactor=Redactor(["hunter2-secret"]))
import structlog
log = structlog.get_logger("tars.test")
std = logging.getLogger("tars.std")
"""


def run(script: str, level: str = "info", **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + script, level],
        capture_output=True,
        check=True,
        timeout=30,
        env={**os.environ, **environ},
    )
    assert done.stdout == b""
    return done.stderr.decode()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_of_both_kinds():
    first, second = lines(run('log.info("started", port=8081)\nstd.warning("hi %s", "x", extra={"service": "stt"})'))
    assert {**first, "timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "started",
        "port": 8081,
        "logger": "tars.test",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", first["timestamp"])
    assert {**second, "timestamp": ""} == {
        "timestamp": "",
        "level": "warning",
        "event": "hi x",
        "service": "stt",
        "logger": "tars.std",
    }


def test_context_variables_reach_both():
    script = """
structlog.contextvars.bind_contextvars(request_id="r1")
log.info("a")
std.info("b")
"""
    assert [line["request_id"] for line in lines(run(script))] == ["r1", "r1"]


def test_level_and_talkative_libraries():
    script = """
for logger in (log, std, logging.getLogger("amqtt.broker"), logging.getLogger("uvicorn.error")):
    for level in ("debug", "info", "warning"):
        getattr(logger, level)(level)
"""
    assert [line["event"] for line in lines(run(script, "info"))] == ["info", "warning"] * 2 + ["warning"] * 2
    assert [line["event"] for line in lines(run(script, "debug"))] == ["debug", "info", "warning"] * 4
    assert lines(run(script, "error")) == []


def test_exceptions_are_one_line_with_their_traceback():
    script = """
try:
    raise ValueError("about hunter2-secret")
except ValueError:
    log.exception("first")
    std.exception("second")
"""
    for line in lines(run(script)):
        assert line["level"] == "error"
        assert "Traceback" in line["exception"]
        assert line["exception"].endswith("ValueError: about ********")


def test_known_secrets_are_struck_out_everywhere():
    script = """
import base64, urllib.parse
process_log.add(["later-secret/+ü\\n", "two\\nabcdefghijklmnopqrstuvwxyz"])
s = "hunter2-secret"
log.info(s, a=[{"x": (s, s.encode())}], b=base64.b64encode(s.encode()).decode(), c=s.encode().hex(), **{s: 1})
std.info("%s %r", "later-secret/+ü\\n", "later-secret/+ü\\n")
std.info(urllib.parse.quote("later-secret/+ü\\n", safe=""))
log.info("line abcdefghijklmnopqrstuvwxyz of it")
"""
    text = run(script)
    found = lines(text)
    assert len(found) == 4
    assert "hunter2" not in text
    assert "later" not in text
    assert "abcdef" not in text
    assert "aHVudGVyMi1zZWNyZXQ" not in text
    assert "68756e746572" not in text


def test_odd_values_cost_no_line():
    script = """
class Bad:
    def __repr__(self): raise RuntimeError("no")
deep = []
for _ in range(2000): deep = [deep]
log.info("a", big=2**80, lone="\\ud800", raw=b"\\xff", bad=Bad(), nan=float("nan"), when=object, deep=deep)
log.info("b", **{"k": {1: 2}})
std.info("c %d", "x")
std.info({"not": "text"})
"""
    events = [line["event"] for line in lines(run(script))]
    assert events[:2] == ["a", "b"]
    assert events[2].startswith("c %d (its arguments do not fit")
    assert len(events) == 4


def test_warnings_of_python_are_logged():
    assert "careful" in lines(run('import warnings\nwarnings.warn("careful")'))[0]["event"]


def test_lost_lines_are_counted():
    script = """
read, write = os.pipe()
os.set_blocking(write, False)
os.dup2(write, 2)
for n in range(5000): log.info("flood", n=n)
taken = b""
while len(part := os.read(read, 65536)) == 65536: taken += part
log.info("after")
print(os.read(read, 65536).decode().strip().splitlines()[-2:])
"""
    done = subprocess.run([sys.executable, "-c", START + script, "info"], capture_output=True, check=True, timeout=30)
    loss, after = (json.loads(line) for line in eval(done.stdout))
    assert loss["event"] == "log lines were lost"
    assert loss["lost"] > 0
    assert after["event"] == "after"


def test_a_closed_descriptor_is_no_reason_to_die():
    assert run('os.close(2)\nlog.info("x")\nstd.info("y")\nos.open("/dev/null", os.O_WRONLY)') == ""


def test_the_journal_gets_priorities():
    read, write = os.pipe()
    try:
        status = os.fstat(write)
        subprocess.run(
            [sys.executable, "-c", START + 'log.info("a")\nstd.error("b")', "info"],
            stderr=write,
            check=True,
            timeout=30,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        )
        first, second = os.read(read, 65536).splitlines()
    finally:
        os.close(read)
        os.close(write)
    assert first.startswith(b'<6>{"timestamp"')
    assert second.startswith(b'<3>{"timestamp"')
    # A variable that a parent left behind and that means another stream changes nothing.
    assert run('log.info("a")', JOURNAL_STREAM="1:2").startswith("{")


@pytest.mark.parametrize(("environ", "colour"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_short_lines(environ, colour):
    controller, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", START + 'log.warning("it is\\n\\x1b[2J hot", celsius=90, why="too much")', "info"],
            stderr=terminal,
            check=True,
            timeout=30,
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **environ},
        )
        text = os.read(controller, 65536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert ("\x1b[33m" in text) is colour
    assert "\x1b[2J" not in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning  it is\\n\\x1b\[2J hot  celsius=90 why='too much'\r\n", plain)


def test_rich_stays_out():
    script = START + 'print("rich.console" in sys.modules, "rich" in sys.modules)\nimport rich'
    done = subprocess.run([sys.executable, "-c", script, "info"], capture_output=True, check=True, timeout=30)
    assert done.stdout == b"False False\n"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.recursive(st.none() | st.text() | st.integers() | st.binary() | st.floats(), st.lists, max_leaves=5),
    )
)
def test_every_event_is_one_line(event):
    line = json_line(dict(event))
    assert line.count(b"\n") == 1
    json.loads(line)
    short = terminal_line(colour=False)({**event, "exception": ""})
    assert short.count(b"\n") == 1
    assert b"\x1b" not in short


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters='"{}[]:,', exclude_categories=("Cs",)), min_size=SHORTEST),
    st.text(),
    st.text(),
)
def test_a_struck_out_line_stays_json_without_the_secret(secret, before, after):
    line = Redactor([secret]).clean(json_line({"event": before + secret + after, "value": [secret]}))
    shown = json.loads(line)
    assert shown["value"] == ["********"]
    assert secret not in shown["event"]


@pytest.mark.parametrize("length", [SHORTEST, 15, 16, 17, 40, 43])
def test_a_secret_is_struck_out_wherever_it_stands(length):
    secret = "".join(chr(ord("A") + number) for number in range(length))
    redactor = Redactor([secret, "another-secret-" * 5])
    for before in range(2 * length):
        for behind in (0, 1, length):
            line = b"." * before + secret.encode() + b"." * behind
            assert redactor.clean(line) == b"." * before + b"********" + b"." * behind


secret_texts = st.text(st.sampled_from("abc-_9é\n"), min_size=SHORTEST - 1, max_size=60)


@settings(deadline=None)
@given(st.lists(secret_texts, max_size=4), st.data())
def test_what_is_looked_up_in_pieces_is_what_would_be_found_by_searching(secrets, data):
    forms = {form for secret in secrets for form in _forms(secret)}
    pieces = st.sampled_from(sorted(forms)) | st.binary(max_size=30) if forms else st.binary(max_size=30)
    line = b"".join(data.draw(st.lists(pieces, max_size=4)))
    cut = data.draw(st.integers(0, 2))
    line = line[cut : len(line) - data.draw(st.integers(0, 2))]
    found = any(form in line for form in forms)
    cleaned = Redactor(secrets).clean(line)
    assert (cleaned is not line) == found
    assert not found or b"********" in cleaned


def test_a_workers_line_begins_with_its_service() -> None:
    event = {
        "level": "info",
        "event": "volume_percent: 100 -> 55",
        "logger": "worker",
        "service": "tts-worker",
        "pid": 7,
    }
    line = terminal_line(colour=False)(event).decode()
    assert line.split(" ", 1)[1] == "tts-worker volume_percent: 100 -> 55\n"


def test_a_secret_behind_a_backslash_is_struck_out_of_either_kind_of_line() -> None:
    event = {"level": "info", "event": "C:\\s3cr3t-value"}
    redactor = Redactor(["s3cr3t-value"])
    assert b"s3cr3t" not in redactor.clean(terminal_line(colour=False)(dict(event)))
    assert json.loads(redactor.clean(json_line(dict(event))))["event"] == "C:\\********"


def test_a_request_is_a_line_without_secrets_and_of_its_level():
    script = """
process_log.add(["t0ken-in-a-path"])
if process_log.tells_access:
    process_log.access({"method": "GET", "path": "/x/t0ken-in-a-path", "status": 404, "ms": 0.3, "request_id": "r1"})
"""
    (line,) = lines(run(script))
    assert {**line, "timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "request",
        "method": "GET",
        "path": "/x/********",
        "status": 404,
        "ms": 0.3,
        "request_id": "r1",
        "logger": "api.access",
    }
    assert run(script, "warning") == ""
