"""Calls are made beside Litestar and ASGI: the same bytes and the same line of the log, and no task for a read."""

import asyncio
import re
from typing import Any

import pytest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from api.app import all_routes
from api.door import Door
from api.routes._route import call_of
from api.routes._table import Table
from tests.api.conftest import READER, WRITER, Running, running, state_over
from tests.api.fake_services import FakeServices, large_view
from tests.support import eventually

SERVICE = "/api/config/services/stt-worker"
HOST = b"Host: localhost\r\n"
TOKEN = b"X-API-Token: " + READER.encode() + b"\r\n"
ID = b"X-Request-ID: r1\r\n"
BOTH = HOST + TOKEN

# Path, and header fields; every one is asked by GET and HEAD.
ASKED: dict[str, tuple[str, bytes]] = {
    "health": ("/health", HOST),
    "details": ("/api/config/health", BOTH),
    "me": ("/api/config/me", BOTH),
    "services": ("/api/config/services", BOTH),
    "schema": ("/schema", HOST),
    "page": ("/docs", HOST),
    "service": (SERVICE, BOTH),
    "without fields": (f"{SERVICE}?include_fields=false", BOTH),
    "stray query": (f"{SERVICE}?a=b&&=", BOTH),
    "wrong query": (f"{SERVICE}?include_fields=perhaps", BOTH),
    "long query": (f"{SERVICE}?{'a' * 9000}", BOTH),
    "304": (SERVICE, BOTH + b"If-None-Match: *\r\n"),
    "304 of a document": ("/schema", HOST + b"If-None-Match: *\r\n"),
    "another tag": (SERVICE, BOTH + b'If-None-Match: "a"\r\n'),
    "unknown service": ("/api/config/services/stt-wroker", BOTH),
    "escaped": ("/api/config/services/stt%2Dworker", BOTH),
    "escaped slash": ("/api/config/services/stt%2Fworker", BOTH),
    "escaped escape": ("/api/config/services/%2541%00%C3%A9", BOTH),
    "broken escape": ("/api/config/services/%zz%ff", BOTH),
    "braces": ("/api/config/services/{service:str}", BOTH),
    "slash behind": (f"{SERVICE}/", BOTH),
    "slashes": ("//api/config//services/stt-worker", BOTH),
    "no name": ("/api/config/services/", BOTH),
    "below": (f"{SERVICE}/x", BOTH),
    "nothing there": ("/nowhere", BOTH),
    "long": ("/api/config/services/" + "x" * 2000, BOTH),
    "no token": (SERVICE, HOST),
    "wrong token": (SERVICE, HOST + b"X-API-Token: guessed\r\n"),
    "two tokens": (SERVICE, BOTH + TOKEN),
    "no host": (SERVICE, TOKEN),
    "two hosts": (SERVICE, BOTH + HOST),
    "foreign host": (SERVICE, TOKEN + b"Host: evil.example\r\n"),
    "odd zone": (SERVICE, TOKEN + b"Host: [fe80::1%a b]\r\n"),
    "zone": (SERVICE, TOKEN + b"Host: [fe80::1%eth0]\r\n"),
    "close": (SERVICE, BOTH + b"Connection: close\r\n"),
    "expectation": (SERVICE, BOTH + b"Expect: 100-continue\r\n"),
}


CHANGE = b'{"service":"stt-worker","config":{"log_level":"debug"},"version":1}'
JSON = b"Content-Type: application/json\r\n"
WRITE = HOST + b"X-API-Token: " + WRITER.encode() + b"\r\n"

# Path, header fields and content; every one is sent by PUT and PATCH.
CHANGED: dict[str, tuple[str, bytes, bytes]] = {
    "change": (SERVICE, WRITE + JSON, CHANGE),
    "stale": (SERVICE, WRITE + JSON, CHANGE.replace(b":1}", b":9}")),
    "invalid": (SERVICE, WRITE + JSON, CHANGE.replace(b"log_level", b"log_lvl")),
    "no json": (SERVICE, WRITE + JSON, b'{"service":'),
    "no content": (SERVICE, WRITE + JSON, b""),
    "too large": (SERVICE, WRITE + JSON, b" " * 1024 * 1024 + CHANGE),
    "no type": (SERVICE, WRITE, CHANGE),
    "other service": ("/api/config/services/tts-worker", WRITE + JSON, CHANGE),
    "unknown service": ("/api/config/services/nobody", WRITE + JSON, CHANGE),
    "precondition": (SERVICE, WRITE + JSON + b"If-None-Match: *\r\n", CHANGE),
    "reader": (SERVICE, BOTH + JSON, CHANGE),
    "no token to change": (SERVICE, HOST + JSON, CHANGE),
    "foreign host": (SERVICE, WRITE.replace(b"localhost", b"evil.example") + JSON, CHANGE),
    "close": (SERVICE, WRITE + JSON + b"Connection: close\r\n", CHANGE),
    "slash behind": (f"{SERVICE}/", WRITE + JSON, CHANGE),
    "nothing to change": ("/health", WRITE + JSON, CHANGE),
}
REQUESTS = {f"{method} {name}": (method, *asked, b"") for method in ("GET", "HEAD") for name, asked in ASKED.items()}
REQUESTS["GET content"] = ("GET", SERVICE, BOTH + b"Content-Length: 3\r\n", b"abc")
REQUESTS |= {
    f"{method} {name}": (method, path, headers + b"Content-Length: %d\r\n" % len(content), content)
    for method in ("PUT", "PATCH")
    for name, (path, headers, content) in CHANGED.items()
}
REQUESTS["PUT in chunks"] = (
    "PUT",
    SERVICE,
    WRITE + JSON + b"Transfer-Encoding: chunked\r\n",
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHANGE), CHANGE),
)


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_give_the_same_bytes_and_the_same_line(name: str, monkeypatch: pytest.MonkeyPatch):
    method, path, headers, content = REQUESTS[name]
    request = f"{method} {path} HTTP/1.1\r\n".encode() + ID + headers + b"\r\n" + content
    # The second one ends the connection.
    request += b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: r2\r\nConnection: close\r\n\r\n"
    closes = "close" in name
    found: list[dict[str, Any]] = []
    async with running(access_log=found.append) as api:
        at_once = await api.exchange(request)
    count = len(found)
    async with running(access_log=found.append) as api:
        monkeypatch.setattr(api.app, "_calls", Table([]))
        routed = await api.exchange(request)
    date = re.compile(rb"\r\ndate: [^\r]+\r\n")
    assert date.sub(b"\r\n", at_once) == date.sub(b"\r\n", routed)
    assert len(date.findall(at_once)) == (1 if closes else 2)
    lines = [{**line, "ms": 0} for line in found]
    assert lines[:count] == lines[count:]
    assert [line["request_id"] for line in lines[:count]] == ["r1", "r2"][: 1 if closes else 2]


def test_every_call_is_in_the_table_by_its_method_alone():
    handlers = all_routes(state_over(FakeServices()))
    table = Table(handlers)
    every = {
        (method, re.sub("{[a-z]+:str}", "x", path)): call_of(handler)
        for handler in handlers
        for path in handler.paths
        for method in handler.http_methods
    }
    # Those that wait or stream, and those whose path goes on behind its parameter, are Litestar's.
    left = {
        ("GET", "/api/services"), ("GET", "/api/services/x"), ("GET", "/api/services/x/logs"), ("GET", "/api/events"),
        ("POST", "/api/services/x/start"), ("POST", "/api/services/x/stop"), ("POST", "/api/services/x/restart"),
        ("POST", "/api/config/services/x/plan"),
        ("GET", "/api/config/history"), ("GET", "/api/config/history/diff"),
        ("GET", "/api/config/profiles"), ("GET", "/api/config/profiles/x"), ("PUT", "/api/config/profiles/x/activate"),
    }  # fmt: skip
    called = {asked: call for asked, call in every.items() if asked not in left}
    assert (len(every), len(called)) == (30, 17)
    for path in {path for _, path in called}:
        for method in ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"):
            scope: Any = {"method": method, "path": path}
            read = called.get(("GET", path)) if method in {"GET", "HEAD"} else None
            change = called.get((method, path)) if method != "GET" else None
            assert (table.read(scope), table.change(scope)) == (read, change), (method, path)


async def test_a_read_has_no_task(api: Running, monkeypatch: pytest.MonkeyPatch):
    async def routed(*_: object) -> None:
        pytest.fail("a read took the long way")

    monkeypatch.setattr(Door, "__call__", routed)
    for _ in range(3):
        assert (await api.client.get(SERVICE)).status_code == 200
        assert not api.server._state.tasks
    assert "request_id" not in get_contextvars()


async def test_a_fault_of_a_read_is_500_and_told_under_its_id(api: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api.services.board, "health", None)
    seen: list[dict[str, Any]] = []

    def note(_: Any, __: str, event: Any) -> Any:
        seen.append(get_contextvars())
        return event

    with capture_logs(processors=[note]) as lines:
        answer = await api.client.get("/health", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "r1")
    (line,) = lines
    assert (line["event"], line["path"]) == ("request failed", "/health")
    assert seen == [{"request_id": "r1"}]
    # The connection's context is every request's.
    assert (await api.client.get("/api/config/me")).status_code == 200
    assert "request_id" not in get_contextvars()


async def test_reads_behind_a_change_wait_for_it(api: Running):
    api.services.gate.clear()
    change = b'{"service": "stt-worker", "config": {}, "version": 1}'
    head = b"PUT %b HTTP/1.1\r\n%bX-API-Token: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    request = head % (SERVICE.encode(), HOST, WRITER.encode(), len(change)) + change
    request += b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
    request += b"GET /nowhere HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    asked = asyncio.create_task(api.exchange(request))
    await api.services.entered.wait()
    assert not asked.done()
    api.services.gate.set()
    assert re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", await asked) == [b"200", b"200", b"404"]


async def test_a_client_that_takes_nothing_is_waited_for(api: Running):
    """One answer may wait in memory, not one for each request that it sends."""
    large = api.services.board.services["large"] = large_view(8 * 1024 * 1024)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
    request = f"GET /api/config/services/large HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {READER}\r\n\r\n".encode()
    writer.write(request * 5)
    async with asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
        (connection,) = api.server._connections()
        assert connection.transport.get_write_buffer_size() < 2 * len(large.full.body)
        taken = 0
        while taken < 5 * len(large.full.body):
            taken += len(await reader.read(1024 * 1024))
    writer.close()


async def test_content_that_comes_later_is_waited_for(api: Running):
    head = b"PUT %b HTTP/1.1\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(30):
        writer.write(head % (SERVICE.encode(), WRITE + JSON, len(CHANGE)) + CHANGE[:20])
        await eventually(lambda: api.server._state.tasks)
        writer.write(CHANGE[20:])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert api.services.versions["stt-worker"] == 2


async def test_an_answer_is_sent_to_its_end_where_the_pause_behind_it_is_over(api: Running):
    large = api.services.board.services["large"] = large_view(8 * 1024 * 1024)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
    writer.write(b"GET /api/config/services/large HTTP/1.1\r\n" + BOTH + b"\r\n")
    async with asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
        (connection,) = api.server._connections()
        assert connection.transport.get_write_buffer_size() > 0
        connection.enforce(asyncio.get_running_loop().time() + 1000)
        taken = 0
        while part := await reader.read(1024 * 1024):
            taken += len(part)
        assert taken == len(large.full.body)
    writer.close()


async def test_a_fault_behind_the_answer_ends_the_connection_alone():
    def broken(_: object) -> None:
        raise ZeroDivisionError

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with running(access_log=broken) as api:
        assert (await api.exchange(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")).startswith(b"HTTP/1.1 200 ")
        await eventually(lambda: not api.server._state.connections)
    (context,) = told
    assert isinstance(context["exception"], ZeroDivisionError)
