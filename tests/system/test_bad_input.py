"""Bad input at the real program: a clear error that names what is wrong, and nothing is changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.program import Program, config_only_manifest

SERVICE = "/api/config/services/service-000"
READER, WRITER, ADMIN = "reader-token-0123456789", "writer-token-0123456789", "admin-token-0123456789"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder: Path = tmp_path_factory.mktemp("bad-input") / "installation"
    tokens = f"{READER}:reader:config.read,{WRITER}:writer:config.write"
    program = Program(folder, config_only_manifest(2), CONFIG_API_TOKENS=tokens, CONFIG_API_TOKEN=ADMIN)
    try:
        yield program.start()
        assert program.stop() == 0
    finally:
        program.close()


def body(**changes: Any) -> bytes:
    whole = {"service": "service-000", "version": 1, "config": {"router_wake_ack_text": "changed"}, **changes}
    return json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()


def raw(config: str) -> bytes:
    return b'{"service": "service-000", "version": 1, "config": %b}' % config.encode()


ROWS: list[tuple[str, bytes, int, str]] = [
    ("malformed JSON", b'{"service": "service-000",', 400, "JSON"),
    ("no JSON at all", b"hello", 400, "JSON"),
    ("an empty body", b"", 400, ""),
    ("bad UTF-8", raw('{"router_wake_ack_text": "X"}').replace(b"X", b"\xff\xfe"), 400, "UTF-8"),
    ("a body that is no object", b"[1, 2]", 422, "object"),
    ("a config that is no object", body(config=[]), 422, "config"),
    ("a wrong type", body(config={"router_stream_min_chars": "many"}), 422, "router_stream_min_chars"),
    ("true for a number", body(config={"router_stream_min_chars": True}), 422, "router_stream_min_chars"),
    ("out of range", body(config={"router_stream_min_chars": 501}), 422, "1 to 500"),
    (
        "a rule between settings",
        body(config={"router_stream_min_chars": 300, "router_stream_max_chars": 100}),
        422,
        "stream",
    ),
    ("an unknown key", body(config={"router_wake_ack_txt": "x"}), 422, 'did you mean \\"router_wake_ack_text\\"'),
    (
        "NaN",
        raw('{"router_wake_window_sec": NaN}'),
        400,
        "config.router_wake_window_sec: NaN is not a JSON number; numbers must be finite.",
    ),
    ("infinity", raw('{"router_wake_window_sec": -Infinity}'), 400, "config.router_wake_window_sec: -Infinity is"),
    ("a number beyond all bounds", raw('{"router_wake_window_sec": 1e999}'), 400, "config.router_wake_window_sec: "),
    ("an endless integer", raw('{"router_stream_min_chars": 1' + "0" * 40 + "}"), 400, "router_stream_min_chars: "),
    ("a key that stands twice", raw('{"router_wake_ack_text": "", "router_wake_ack_text": ""}'), 400, "stands twice"),
    ("half a surrogate pair", raw('{"router_wake_ack_text": "\\ud800"}'), 400, "config.router_wake_ack_text: "),
    (
        "deep nesting",
        raw('{"router_wake_ack_text": ' + "[" * 5000 + "]" * 5000 + "}"),
        400,
        "config.router_wake_ack_text: It nests deeper",
    ),
    ("a body over the limit", body(config={"router_wake_ack_text": "x" * 2_000_000}), 413, ""),
    ("no version", body(version=...), 422, "version"),
    ("a version that is no number", body(version="1"), 422, "version"),
    ("a stale version", body(version=7), 409, "Version mismatch: expected 7, current is 1"),
    ("another epoch", body(config_epoch="00000000-0000-4000-8000-000000000000"), 409, "epoch"),
    ("an epoch that is none", body(config_epoch="nonsense"), 422, "config_epoch"),
    ("a NUL", body(config={"router_wake_ack_text": "a\0b"}), 422, "holds a NUL character. It must not."),
    ("an unknown key beside config", body(reson="typing error"), 422, "reason"),
    ("body and path that differ", body(service="service-001"), 400, "service-001"),
]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(("content", "status", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_bad_input_is_named_and_changes_nothing(
    running: Program, method: str, content: bytes, status: int, words: str
) -> None:
    with running.client() as client:
        before = client.get(SERVICE).content
        answer = client.request(method, SERVICE, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"]
        problem = answer.json()
        assert isinstance(problem["detail"], str)
        assert words in answer.text
        # Whatever has a name in the body is named.
        if status == 422 or "router_" in words:
            assert problem["errors"]
            assert all(set(error) == {"field", "message", "type"} for error in problem["errors"])
        assert client.get(SERVICE).content == before


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), ("", 401), ("wrong-token-0123456789", 401), (READER, 403), (WRITER, 200)],
)
def test_who_may_change(running: Program, token: str | None, status: int) -> None:
    headers = {} if token is None else {"X-API-Token": token}
    other = SERVICE.replace("000", "001")
    content = json.dumps({"service": "service-001", "version": 1, "config": {"router_live_mode_default": True}})
    with httpx.Client(base_url=running.url, headers={**headers, "Content-Type": "application/json"}) as client:
        answer = client.patch(other, content=content)
    assert answer.status_code == status, answer.text
    assert token is None or not token or token not in answer.text


def test_an_unknown_service_is_404_with_a_suggestion(running: Program) -> None:
    with running.client() as client:
        answer = client.get("/api/config/services/service-00")
    assert answer.status_code == 404
    assert "did you mean" in answer.text


def test_no_token_is_ever_logged(running: Program) -> None:
    for secret in (READER, WRITER, ADMIN, "wrong-token-0123456789"):
        assert secret not in running.stderr
    assert "Traceback" not in running.stderr
