"""What every request passes, and every answer carries: request id, Host, header fields, the log."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from api import HostRule, Token, Tokens
from api.door import REQUEST_ID
from schemas.changes import ConfigChange
from schemas.states import Role
from tests.api.conftest import WRITER, Running, running

SERVICE = "/api/config/services/stt-worker"
CHANGE = {"service": "stt-worker", "config": {"log_level": "debug"}, "version": 1}

# One request for each way in which an answer comes about.
ANSWERS = {
    "200": ("GET", "/health", {}, None),
    "304": ("GET", SERVICE, {"If-None-Match": "*"}, None),
    "options": ("OPTIONS", SERVICE, {}, None),
    "head": ("HEAD", SERVICE, {}, None),
    "unknown path": ("GET", "/nowhere", {}, None),
    "unknown service": ("GET", "/api/config/services/nobody", {}, None),
    "method": ("DELETE", SERVICE, {}, None),
    "no token": ("GET", SERVICE, {"X-API-Token": ""}, None),
    "host": ("GET", "/health", {"Host": "evil.example"}, None),
    "not json": ("PUT", SERVICE, {"Content-Type": "application/json"}, b"{"),
    "too large": ("PUT", SERVICE, {"Content-Type": "application/json"}, b" " * (1024 * 1024 + 1)),
    "page": ("GET", "/docs", {}, None),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_answer_carries_the_id_and_is_safe_for_a_browser(api: Running, name):
    method, path, headers, content = ANSWERS[name]
    answer = await api.client.request(method, path, headers={**headers, "X-Request-ID": "me.1_A-z"}, content=content)
    assert answer.headers["x-request-id"] == "me.1_A-z"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    assert "server" not in answer.headers


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "a;b", "<script>", "a\tb"])
async def test_an_id_that_is_not_sane_is_replaced(api: Running, given):
    answer = await api.client.get("/health", headers={"X-Request-ID": given.encode()})
    made = answer.headers["x-request-id"]
    assert made != given
    assert REQUEST_ID.fullmatch(made.encode())
    other = await api.client.get("/health")
    assert other.headers["x-request-id"] != made


async def test_of_two_ids_none_counts(api: Running):
    answer = await api.client.get("/health", headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")])
    assert answer.headers["x-request-id"] not in {"a", "b"}


@pytest.mark.parametrize(
    "line",
    [
        b"X-Request-ID: a\r\n Set-Cookie: b=c",  # folded
        b"X-Request-ID: a\rSet-Cookie: b=c",
        b"X-Request-ID: a\nSet-Cookie: b=c",
        b"X-Request-ID: a\x00b",
        b"X-Request-ID: %0d%0aSet-Cookie:%20b=c",
    ],
)
async def test_no_header_field_can_be_smuggled_into_an_answer(api: Running, line):
    answer = await api.exchange(
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + line + b"\r\n\r\n"
    )
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie" not in head
    assert head.count(b"x-request-id: ") == 1


async def test_the_path_of_a_404_is_data(api: Running):
    answer = await api.client.get('/"><script>alert(1)</script>%0d%0aSet-Cookie:%20a=b')
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in answer.headers
    assert "\r\nSet-Cookie" in answer.json()["detail"]


async def test_what_is_remembered_of_clients_is_bounded(api: Running):
    answer = await api.client.get("/api/config/services/" + "x" * 2000)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (404, "not-found")
    assert (await api.client.get("/health", headers={"Host": "x" * 1000})).status_code == 421
    assert not HostRule(["x" * 1000]).allows(b"x" * 1000)


async def test_the_id_is_a_context_variable_of_its_request_alone(api: Running):
    seen: dict[str, str] = {}

    async def change(asked: ConfigChange):
        await asyncio.sleep(0)
        seen[asked.request_id] = get_contextvars()["request_id"]
        return await original(asked)

    original = api.services.change
    async with running(state=replace(api.state, change=change)) as other:
        ids = [f"request-{number}" for number in range(20)]
        await asyncio.gather(*(other.client.put(SERVICE, json=CHANGE, headers={"X-Request-ID": each}) for each in ids))
    assert seen == {each: each for each in ids}
    assert "request_id" not in get_contextvars()


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:8081", "localhost.", "127.0.0.1", "127.0.0.1:9", "[::1]:80", "[fe80::1]", "192.168.1.7:8081",
        "tars.example", "Tars.Example:1", "localhost:",
    ],
)  # fmt: skip
async def test_known_hosts(api: Running, host):
    assert (await api.client.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil", "0x7f.1", "2130706433", "::1",
        "[::1", "[evil]", "localhost:80:80", "localhost:x", "a b", "localhost/", "[127.0.0.1]", "localhost..",
    ],
)  # fmt: skip
async def test_unknown_hosts_are_421(api: Running, host):
    answer = await api.client.get(SERVICE, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["type"].endswith(":unknown-host")


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n"])
async def test_a_request_has_exactly_one_host(api: Running, hosts):
    answer = await api.exchange(b"GET /health HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_this_machines_names_are_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Pi.lan")
    rule = HostRule.of_this_machine("tars.home")
    assert all(rule.allows(name) for name in (b"pi.lan", b"pi", b"pi.local:80", b"tars.home"))
    assert not rule.allows(b"lan")


class TestTokens:
    @pytest.mark.parametrize("token", ["", "x", WRITER[:-1], WRITER + "x", WRITER.upper(), "é", "x" * 5000])
    async def test_a_wrong_one_is_401(self, api: Running, token):
        answer = await api.client.get(SERVICE, headers={"X-API-Token": token.encode()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("ApiKey ")
        assert WRITER not in answer.text

    async def test_none_is_401(self, api: Running):
        del api.client.headers["X-API-Token"]
        answer = await api.client.get(SERVICE)
        assert answer.status_code == 401
        assert "missing" in answer.json()["detail"]

    async def test_two_are_401(self, api: Running):
        answer = await api.client.get(SERVICE, headers=[("X-API-Token", WRITER), ("X-API-Token", WRITER)])
        assert answer.status_code == 401

    def test_they_show_nowhere(self):
        token = Token("me", Role.ADMIN, "hunter2-hunter2")
        tokens = Tokens([token])
        assert "hunter2" not in f"{token!r} {tokens!r} {vars(tokens)!r}"
        identity = tokens.identify(b"hunter2-hunter2")
        assert identity is not None
        assert (identity.name, identity.role) == ("me", Role.ADMIN)


async def test_one_line_for_each_request():
    found: list[dict[str, Any]] = []
    async with running(access_log=found.append) as api:
        await api.client.get(f"{SERVICE}?x=hunter2", headers={"X-Request-ID": "one"})
        await api.client.put(SERVICE, json={**CHANGE, "version": 9})
        await api.client.get("/" + "x" * 500, headers={"X-API-Token": ""})
        await api.client.head("/health")
        await api.client.get(SERVICE, headers={"X-API-Token": "guessed", "X-Forwarded-For": "10.9.8.7"})
    assert [(line["method"], line["status"], line["caller"]) for line in found] == [
        ("GET", 200, "write"),
        ("PUT", 409, "write"),
        ("GET", 404, None),
        ("HEAD", 200, None),
        ("GET", 401, None),
    ]
    assert [line["address"] for line in found] == ["127.0.0.1"] * 5
    assert found[0]["request_id"] == "one"
    assert len({line["request_id"] for line in found}) == 5
    assert found[0]["path"] == SERVICE
    assert all(line["ms"] >= 0 for line in found)
    assert len(found[2]["path"]) <= 200
    assert WRITER not in json.dumps(found)
    assert "hunter2" not in json.dumps(found)


async def test_a_fault_is_logged_and_not_shown(api: Running):
    api.services.failure = ZeroDivisionError("hunter2")
    with capture_logs() as lines:
        answer = await api.client.put(SERVICE, json=CHANGE)
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    assert "hunter2" not in answer.text
    (line,) = lines
    assert (line["log_level"], line["path"]) == ("error", SERVICE)
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_options_tells_the_methods(api: Running):
    answer = await api.client.options(SERVICE)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, PATCH, PUT"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "TRACE", "PROPFIND"])
async def test_another_method_is_405(api: Running, method):
    answer = await api.client.request(method, "/api/config/me")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
