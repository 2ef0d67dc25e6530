"""Streams, whatever they carry: their bounds, and every way in which they end."""

import asyncio
from typing import Any

import pytest

from actors.events import HealthChanged
from api import Limits, streams
from api.streams import Streams
from schemas.health import HealthReport
from tests.api.conftest import READER, WRITER, Running, running
from tests.api.reading import EVENTS, FOLLOW, everything, not_reading, reading
from tests.support import eventually

BOTH = pytest.mark.parametrize("path", [EVENTS, FOLLOW])


def say(api: Running, text: str = "hello") -> None:
    """Something for every stream."""
    api.state.events.publish(HealthChanged(HealthReport(event=text)))
    api.services.workers.outputs["stt-worker"].print(text)


async def until(stream: Any, text: str) -> None:
    while text not in await stream.next():
        pass


@BOTH
class TestEnd:
    async def test_with_the_client(self, api: Running, path: str):
        async with reading(api, path) as stream:
            say(api)
            await until(stream, "hello")
            assert len(api.state.streams) == 1
        await eventually(lambda: not api.state.streams and not api.server._state.tasks)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "stream's client"]

    async def test_with_the_server_at_once_and_properly(self, path: str):
        async with running() as api, reading(api, path) as stream, reading(api, path) as another:
            say(api)
            await until(stream, "hello")
            async with asyncio.timeout(30):
                await api.server.stop(60)
            # An end that is not a proper one raises here.
            await stream.rest()
            await until(another, "hello")
            await another.rest()
            assert not api.state.streams
            assert not api.server._state.tasks

    async def test_with_the_grace_where_the_client_does_not_read(self, path: str):
        async with running() as api, not_reading(api, path):
            await eventually(lambda: api.state.streams)
            (connection,) = api.server._connections()
            while not connection.flow.write_paused:
                say(api, "x" * 1000)
                await asyncio.sleep(0)
            async with asyncio.timeout(30):
                await api.server.stop(0.05)
            assert not api.state.streams
            assert not api.server._state.tasks
            assert not api.server._state.connections

    async def test_with_the_token_before_anything_else_is_told(
        self, api: Running, path: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(streams, "_VALID", 0)
        async with reading(api, path) as stream:
            say(api, "before")
            await until(stream, "before")
            monkeypatch.setattr(api.state.tokens, "_known", ())
            say(api, "afterwards")
            assert "afterwards" not in "".join(await stream.rest())

    async def test_with_the_token_where_there_is_nothing_to_tell(self, path: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(streams, "_VALID", 0)
        async with running(Limits(heartbeat_seconds=0.05)) as api, reading(api, path) as stream:
            monkeypatch.setattr(api.state.tokens, "_known", ())
            await stream.rest()

    async def test_with_its_source(self, api: Running, path: str):
        async with reading(api, path) as stream:
            say(api, "last words")
            api.state.events.close()
            api.services.workers.outputs["stt-worker"].end()
            assert "last words" in "".join(await stream.rest())
        assert not api.state.streams


@BOTH
class TestBounds:
    async def test_of_one_token(self, path: str):
        async with running(Limits(streams_of_a_token=2)) as api:
            async with reading(api, path), reading(api, path):
                refused = await api.client.get(path, headers={"X-API-Token": READER})
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == str(streams.RETRY_AFTER)
                assert refused.headers["content-type"] == "application/problem+json"
                assert "read has 2 streams" in refused.json()["detail"]
                async with reading(api, path, token=WRITER) as other:
                    assert other.response.status_code == 200
            await eventually(lambda: not api.state.streams)
            async with reading(api, path) as again:
                assert again.response.status_code == 200

    async def test_of_all(self, path: str):
        async with running(Limits(streams=2)) as api, reading(api, path), reading(api, path, token=WRITER):
            refused = await api.client.get(path)
            assert (refused.status_code, "2 streams are open" in refused.json()["detail"]) == (429, True)

    async def test_of_time_are_not_those_of_a_request(self, path: str):
        short = Limits(head_seconds=5, body_seconds=5, keep_alive_seconds=5, drain_seconds=5)
        async with running(short) as api, reading(api, path) as stream:
            (connection,) = api.server._connections()
            connection.enforce(asyncio.get_running_loop().time() + 1000)
            say(api)
            await until(stream, "hello")

    async def test_a_client_that_takes_nothing_is_cut_off_whatever_waits_for_it(self, path: str):
        """Heartbeats make what waits grow, which is no sign of a client that reads."""
        async with running(Limits(write_seconds=0.2, heartbeat_seconds=0.01)) as api, not_reading(api, path):
            await eventually(lambda: api.state.streams)
            (connection,) = api.server._connections()
            while not connection.transport.get_write_buffer_size():
                say(api, "x" * 1000)
                await asyncio.sleep(0)
            assert not connection.flow.write_paused
            await eventually(lambda: not api.server._state.connections)
            await eventually(lambda: not api.state.streams)


@BOTH
async def test_signs_of_life(path: str):
    async with running(Limits(heartbeat_seconds=0.05)) as api, reading(api, path) as stream:
        lines = [await stream.next() for _ in range(10)]
        assert lines.count(":" if path == EVENTS else "") > 2
        say(api)
        await until(stream, "hello")


@BOTH
async def test_no_cache_and_no_proxy_keeps_it(api: Running, path: str):
    async with reading(api, path) as stream:
        headers = stream.response.headers
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert headers["x-request-id"]
        assert headers["x-content-type-options"] == "nosniff"


@BOTH
async def test_a_head_has_no_content_and_its_connection_goes_on(api: Running, path: str):
    request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {READER}\r\n\r\n"
    answer = await api.exchange(
        request.encode() + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert not api.state.streams


@BOTH
async def test_its_line_of_the_log_comes_at_its_end(path: str):
    told: list[dict[str, Any]] = []
    async with running(access_log=told.append) as api:
        async with reading(api, path) as stream:
            say(api)
            await until(stream, "hello")
            assert told == []
        await eventually(lambda: told)
    (line,) = told
    assert (line["status"], line["path"], line["caller"]) == (200, path.partition("?")[0], "read")


@BOTH
async def test_many_come_and_go_and_nothing_is_left(api: Running, path: str):
    async def one(number: int) -> None:
        async with reading(api, path, token=(READER, WRITER)[number % 2]) as stream:
            say(api)
            await until(stream, "hello")

    for _ in range(3):
        await asyncio.gather(*(one(number) for number in range(20)))
    await eventually(lambda: not api.state.streams and not api.server._state.tasks)
    assert not api.state.streams._callers


@BOTH
async def test_none_begins_once_the_server_stops(api: Running, path: str):
    api.state.streams.close()
    answer = await api.client.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, str(streams.RETRY_AFTER))


@BOTH
@pytest.mark.parametrize("token", ["", "guessed"])
async def test_without_a_token(api: Running, path: str, token: str):
    assert (await api.client.get(path, headers={"X-API-Token": token})).status_code == 401


async def test_a_stream_that_has_much_to_send_leaves_others_their_turn(api: Running):
    output = api.services.workers.outputs["stt-worker"]
    for number in range(1000):
        output.print(f"{number}")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    output.end()
    form: streams.Form[bytes] = streams.Form(b"text/plain", lambda line: line, b"\n")
    reader = streams.Reader("me", lambda: True, 1, 1, 15)
    stream = streams.Stream(Streams(), output.follow(1000), form, reader)
    counting = asyncio.create_task(count())
    await stream({"type": "http"}, receive, send)  # type: ignore[typeddict-item] # it needs no more
    counting.cancel()
    assert len(b"".join(sent).splitlines()) == 1000
    assert turns > 10


async def test_what_was_sent_before_the_end_arrives(api: Running):
    async with not_reading(api, FOLLOW) as client:
        await eventually(lambda: api.state.streams)
        say(api, "the last words")
        await asyncio.sleep(0)
        api.state.streams.close()
        await eventually(lambda: not api.state.streams)
        api.server._connections()[0].shutdown()
        received = await everything(client)
    assert b"the last words" in received
    assert received.endswith(b"0\r\n\r\n")
