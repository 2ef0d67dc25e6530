"""The server: its end, slow and greedy clients, and what is no HTTP."""

import asyncio
import contextlib
import re
import signal
import socket
import threading

import orjson
import pytest

from api import Limits, Server
from api._cork import Cork
from tests.api.conftest import WRITER, Running, running
from tests.api.fake_services import large_view
from tests.support import eventually

SERVICE = "/api/config/services/stt-worker"
CHANGE = {"service": "stt-worker", "config": {"log_level": "debug"}, "version": 1}
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def put(content: bytes, *, length: int | None = None) -> bytes:
    return (
        f"PUT {SERVICE} HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {WRITER}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content) if length is None else length}\r\n\r\n"
    ).encode() + content


def status_of(answer: bytes) -> int:
    assert answer.count(b"x-request-id: ") == len(statuses(answer)), answer
    return statuses(answer)[0]


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)]


class TestStop:
    async def test_a_request_under_way_finishes(self):
        async with running() as api:
            api.services.gate.clear()
            asked = [asyncio.create_task(api.client.put(SERVICE, json=CHANGE)) for _ in range(5)]
            await eventually(lambda: len(api.services.changes) == 5)
            stopping = asyncio.create_task(api.server.stop(10))
            await eventually(lambda: not api.server._listening[0].is_serving())
            assert not stopping.done()
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", api.port)
            api.services.gate.set()
            async with asyncio.timeout(30):
                answers = await asyncio.gather(*asked)
                await stopping
            assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
            assert all(answer.headers["connection"] == "close" for answer in answers)

    async def test_idle_connections_do_not_hold_it_up(self):
        async with running() as api:
            await api.client.get("/health")
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            async with asyncio.timeout(30):
                await api.server.stop(60)
                assert await reader.read() == b""
            writer.close()

    async def test_after_the_grace_what_is_left_is_cut_off(self):
        async with running() as api:
            api.services.gate.clear()
            asked = asyncio.create_task(api.exchange(put(orjson.dumps(CHANGE))))
            await eventually(lambda: api.services.changes)
            async with asyncio.timeout(30):
                await api.server.stop(0.05)
                # Nobody knows what became of it, so nothing is said.
                assert await asked == b""
            assert api.services.versions["stt-worker"] == 1

    async def test_twice_is_harmless_and_cancelling_it_still_ends_everything(self):
        async with running() as api:
            api.services.gate.clear()
            asked = asyncio.create_task(api.exchange(put(orjson.dumps(CHANGE))))
            await eventually(lambda: api.services.changes)
            stopping = asyncio.create_task(api.server.stop(60))
            await eventually(lambda: not api.server._listening[0].is_serving())
            stopping.cancel()
            async with asyncio.timeout(30):
                await asyncio.wait([stopping, asked])
            assert not api.server._state.connections
            await api.server.stop(1)

    async def test_a_request_that_waits_behind_another_is_answered_too(self):
        async with running() as api:
            api.services.gate.clear()
            asked = asyncio.create_task(api.exchange(put(orjson.dumps(CHANGE)) + HEALTH))
            await eventually(lambda: api.services.changes)
            stopping = asyncio.create_task(api.server.stop(10))
            await eventually(lambda: not api.server._listening[0].is_serving())
            api.services.gate.set()
            async with asyncio.timeout(30):
                answer = await asked
                await stopping
            assert statuses(answer) == [200, 200]


async def test_signals_stay_with_the_process():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with running() as api:
        await api.client.get("/health")
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        assert threading.active_count() == 1


async def test_sockets_that_cannot_be_listened_on_are_an_error_and_no_exit(api: Running):
    good, bad = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port = good.getsockname()[1]
    with pytest.raises((OSError, ValueError)):
        await Server(api.app, Limits()).start([good, bad])
    assert (good.fileno(), bad.fileno()) == (-1, -1)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_several_sockets():
    async with running() as api:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [each.getsockname()[1] for each in listeners]
        second = Server(api.app, Limits())
        await second.start(listeners)
        for port in ports:
            assert (await api.client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
        await second.stop(1)


async def test_small_answers_wait_for_no_acknowledgement(api: Running):
    await api.client.get("/health")
    (connection,) = api.server._connections()
    client = connection.transport.get_extra_info("socket")
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_what_is_written_in_one_turn_goes_out_in_one_packet():
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    cork = Cork(transport, asyncio.get_running_loop())
    theirs.setblocking(False)
    cork.write(b"head ")
    cork.write(b"body")
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"head body"
    # What is large goes on at once, so that the transport can ask the writer to wait.
    cork.write(bytes(8 * 1024 * 1024))
    assert cork.get_write_buffer_size() > 0
    cork.abort()
    await asyncio.sleep(0)
    theirs.close()


class TestWhatIsNoHttp:
    @pytest.mark.parametrize(
        "request_",
        [
            b"garbage\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
            b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
            b"GET /he alth HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"FROB /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ],
    )
    async def test_is_400_as_a_problem(self, api: Running, request_):
        answer = await api.exchange(request_)
        assert status_of(answer) == 400
        head, _, content = answer.partition(b"\r\n\r\n")
        assert b"content-type: application/problem+json" in head
        assert b"connection: close" in head
        assert b"nosniff" in head
        assert orjson.loads(content)["type"].endswith(":malformed")

    async def test_the_answer_reaches_a_client_that_still_sends(self, api: Running):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        async with asyncio.timeout(30):
            writer.write(b"garbage\r\n\r\n" * 100_000)
            assert status_of(await reader.read()) == 400
            writer.write(b"more\r\n")
            await writer.drain()
            assert len(api.server._state.connections) == 1
            await api.server.stop(60)
        writer.close()

    async def test_a_broken_chunk_is_400_and_its_handler_is_told(self, api: Running):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(put(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zz\r\n")
        async with asyncio.timeout(30):
            assert status_of(await reader.read()) == 400
            # At once, not when the client goes.
            await eventually(lambda: not api.server._state.tasks)
        assert api.server._state.connections
        assert api.services.changes == []
        writer.close()

    async def test_garbage_behind_a_request_under_way_leaves_its_answer_whole(self, api: Running):
        api.services.gate.clear()
        asked = asyncio.create_task(api.exchange(put(orjson.dumps(CHANGE)) + b"garbage\r\n\r\n"))
        await eventually(lambda: api.services.changes)
        api.services.gate.set()
        answer = await asked
        assert statuses(answer) == [200]
        assert b"connection: close" in answer
        assert api.services.versions["stt-worker"] == 2

    async def test_an_upgrade_is_not_made(self, api: Running):
        request = (
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05"
        )
        answer = await api.exchange(request)
        assert status_of(answer) == 200
        assert statuses(answer) == [200]
        assert b"connection: close" in answer

    async def test_http_1_0_is_answered(self, api: Running):
        assert status_of(await api.exchange(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")) == 200


class TestPipelining:
    async def test_answers_come_in_order(self, api: Running):
        answer = await api.exchange(HEALTH + b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" + LAST_HEALTH)
        assert statuses(answer) == [200, 404, 200]

    async def test_has_a_bound(self, api: Running):
        api.services.gate.clear()
        assert await api.exchange(put(orjson.dumps(CHANGE)) + HEALTH * 1000) == b""
        api.services.gate.set()
        await eventually(lambda: not api.server._state.tasks)


class TestBounds:
    @pytest.mark.parametrize(
        "head",
        [
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 8000 + b"\r\n",
            b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000,  # and no end
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"a" * 100_000,
        ],
    )
    async def test_a_head_over_the_limit_is_431(self, api: Running, head):
        answer = await api.exchange(head)
        assert status_of(answer) == 431
        assert b":head-too-large" in answer

    async def test_a_head_just_under_the_limit_is_read(self, api: Running):
        filler = b"a" * (api.state.limits.head - 200)
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + filler + b"\r\n\r\n"
        assert status_of(await api.exchange(head)) == 200

    async def test_too_many_connections_get_503_and_far_too_many_nothing(self):
        async with running(Limits(connections=3)) as api:
            held = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(3)]
            await eventually(lambda: len(api.server._state.connections) == 3)
            answer = await api.exchange(HEALTH)
            assert status_of(answer) == 503
            assert b"retry-after: 5" in answer
            held += [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(3)]
            await eventually(lambda: len(api.server._state.connections) == 6)
            assert await api.exchange(HEALTH) == b""
            for _, writer in held:
                writer.close()
            await eventually(lambda: not api.server._state.connections)
            assert (await api.client.get("/health")).status_code == 200


class TestSlowClients:
    # Longer than a loop stands still on a machine under load, between a connection and its first bytes.
    LIMITS = Limits(head_seconds=0.4, body_seconds=0.4, keep_alive_seconds=0.4, drain_seconds=0.4, write_seconds=0.4)

    @pytest.mark.parametrize("start", [b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX"])
    async def test_a_head_that_does_not_come_is_408(self, start):
        async with running(self.LIMITS) as api:
            answer = await api.exchange(start)
            assert status_of(answer) == 408

    @pytest.mark.parametrize("start", [b"", b"\r\n\r\n", HEALTH, HEALTH + b"\r\n"])
    async def test_a_connection_that_asks_nothing_is_closed(self, start):
        async with running(self.LIMITS) as api:
            assert len(statuses(await api.exchange(start))) == start.count(b"GET")

    async def test_a_trickle_does_not_keep_it_open(self):
        async with running(self.LIMITS) as api:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            answer = asyncio.create_task(reader.read())
            async with asyncio.timeout(30):
                while not answer.done():
                    writer.write(b"X: a\r\n")
                    await asyncio.sleep(0.01)
            assert status_of(await answer) == 408
            writer.close()

    async def test_content_that_does_not_come_is_408(self):
        async with running(self.LIMITS) as api:
            answer = await api.exchange(put(b"{", length=100))
            assert status_of(answer) == 408
            assert api.services.changes == []

    async def test_content_that_nobody_wants_is_not_waited_for(self):
        async with running(self.LIMITS) as api:
            head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"
            assert status_of(await api.exchange(head)) == 200

    async def test_content_that_nobody_wants_and_trickles_is_not_waited_for(self):
        async with running(Limits(drain_seconds=0.1)) as api:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            async with asyncio.timeout(30):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"d")
                await eventually(lambda: not api.server._state.connections)
            writer.close()

    async def test_content_that_nobody_wants_ends_at_a_bound(self, api: Running):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"PUT {SERVICE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n".encode())
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
            with contextlib.suppress(ConnectionError):
                for _ in range(64):
                    writer.write(bytes(1024 * 1024))
                    await writer.drain()
                pytest.fail("64 MiB were read that nobody wants")
        writer.close()
        await eventually(lambda: not api.server._state.connections)

    async def test_an_answer_that_nobody_takes_is_dropped(self):
        async with running(Limits(write_seconds=0.1)) as api:
            api.services.board.services["large"] = large_view(32 * 1024 * 1024)
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
            path = SERVICE.replace("stt-worker", "large")
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {WRITER}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n")
            await eventually(lambda: not api.server._state.connections)
            writer.transport.abort()

    async def test_a_handler_may_take_longer_than_a_client(self):
        async with running(self.LIMITS) as api:
            api.services.gate.clear()
            asked = asyncio.create_task(api.client.put(SERVICE, json=CHANGE))
            await eventually(lambda: api.services.changes)
            (connection,) = api.server._connections()
            # Some old clients send an empty line behind their content (RFC 9112, section 2.2).
            connection.data_received(b"\r\n")
            connection.enforce(asyncio.get_running_loop().time() + 1000)
            api.services.gate.set()
            assert (await asked).status_code == 200


async def test_who_has_just_connected_is_answered_before_the_end(api: Running):
    """What was accepted is not dropped: not before it is a connection, and not before it had time to ask."""
    sockets = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(20)]

    def ask() -> None:
        for client in sockets:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")

    try:
        # All are accepted at once; in the next turn they are made connections.
        for _ in range(2):
            await asyncio.sleep(0)
        assert not api.server._state.connections
        asking = asyncio.get_running_loop().call_later(0.05, ask)
        async with asyncio.timeout(30):
            await api.server.stop(5)
        asking.cancel()
        answers = [client.recv(65536) for client in sockets]
    finally:
        for client in sockets:
            client.close()
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
    assert all(b"connection: close" in answer.lower() for answer in answers)


async def test_who_says_nothing_does_not_hold_the_end_up(api: Running):
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        await eventually(lambda: bool(api.server._state.connections), what="the connection")
        async with asyncio.timeout(30):
            await api.server.stop(60)
        assert client.recv(1) == b""
