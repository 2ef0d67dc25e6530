"""TLS and WebSocket listeners: the same gate, whatever the door."""

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import ValidationError
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from actors.broker.config import BrokerConfig, Limits, Listener, broker_command, write_config
from actors.mqtt import packets
from actors.mqtt.packets import Publish, Refusal
from tests.actors.bridge.certificates import certificates
from tests.actors.broker.clients import DEADLINE, Door, RawClient, WebSocketStream, connect_packet, packet
from tests.brokers import HOST, LOGINS, STT, SUPERVISOR, TTS, EmbeddedBroker, Login
from tests.support import eventually, needs

MIB = 1024 * 1024
LISTENERS = {
    "tls": Listener(port=0, tls=True),
    "websocket": Listener(port=0, websocket=True),
    "websocket over tls": Listener(port=0, websocket=True, tls=True),
}
END = "home/end"


class House:
    """An embedded broker with all doors."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.certificate, key = certificates(folder)
        self.broker = EmbeddedBroker(
            folder / "broker",
            LOGINS,
            listeners=tuple(LISTENERS.values()),
            certificate=self.certificate,
            private_key=key,
            **options,
        )
        self.broker.start()

    def door(self, name: str) -> Door:
        (listening,) = self.broker.events("listening")
        port = listening["listeners"][list(LISTENERS).index(name)]["port"]
        listener = LISTENERS[name]
        trust = ssl.create_default_context(cafile=str(self.certificate)) if listener.tls else None
        return Door(port, trust, listener.websocket)


Build = Callable[..., House]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    houses: list[House] = []

    def make(**options: Any) -> House:
        houses.append(House(tmp_path, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.broker.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """For tests that leave no messages or sessions."""
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.broker.stop()


every_door = pytest.mark.parametrize("name", LISTENERS)


@every_door
async def test_messages_go_both_ways_and_large_ones_whole(house, name):
    large = bytes(range(256)) * 3000
    door = house.door(name)
    async with RawClient.login(door, STT) as raw, RawClient.login(house.broker, TTS) as plain:
        for each in (raw, plain):
            await each.subscribe("home/#", qos=1)
        for sender, receiver in ((raw, plain), (plain, raw)):
            for payload in (b"small", large):
                sender.publish("home/a", payload, qos=1)
                assert (await sender.message()).payload == payload
                assert (await receiver.message()).payload == payload
        for number in range(500):
            raw.publish("home/a", str(number).encode())
        assert [int((await plain.message()).payload) for _ in range(500)] == list(range(500))


@every_door
async def test_a_packet_may_come_byte_by_byte(house, name):
    door = house.door(name)
    async with RawClient.dial(door) as raw:
        for byte in connect_packet(STT) + packet(0xC0, b""):
            raw.send(bytes((byte,)))
        assert [(await raw.packet())[0] for _ in range(2)] == [0x20, 0xD0]


@every_door
async def test_the_gate_refuses_what_it_refuses_elsewhere(house, name):
    door = house.door(name)

    async def refusal(login: Login | None, **options: Any) -> int:
        async with RawClient.dial(door) as raw:
            raw.send(connect_packet(login, **options))
            _, body = await raw.packet()
            await raw.closed()
            return body[1]

    assert await refusal(Login(STT.name, STT.role)) == Refusal.CREDENTIALS
    assert await refusal(None) == Refusal.NOT_AUTHORIZED
    assert await refusal(STT, client_id="tts") == Refusal.IDENTIFIER
    assert await refusal(STT, will=Publish("system/config/stt", b"", 1, retain=True)) == Refusal.NOT_AUTHORIZED
    async with RawClient.dial(door) as raw:
        raw.send(connect_packet(STT, level=5))
        assert await raw.closed() == packets.CONNACK_NOT_MQTT_5
    for nonsense in (b"\x10\xff\xff\xff\xff\x7f", b"\0" * 64, b"\x10" + packet(0x10, bytes(17 * 1024))[1:]):
        async with RawClient.dial(door) as raw:
            raw.send(nonsense)
            await raw.closed()


@every_door
async def test_a_last_will_a_takeover_and_a_goodbye(house, name):
    door = house.door(name)
    will = Publish("home/will", b"", 0, retain=False)
    async with RawClient.login(house.broker, SUPERVISOR) as witness:
        await witness.subscribe("home/#", qos=0)
        async with RawClient.login(door, STT, client_id="stt-one", will=will) as first:
            async with RawClient.login(door, STT, client_id="stt-one", will=will) as second:
                await first.closed()
                assert (await witness.message()).topic == "home/will"
                second.reset()
            assert (await witness.message()).topic == "home/will"
        async with RawClient.login(door, STT, will=will) as polite:
            polite.send(packet(0xE0, b""))
            await polite.closed()
        witness.publish(END, b"")
        assert (await witness.message()).topic == END


@every_door
async def test_the_bounds_hold(build, name):
    house = build(limits=Limits(max_packet_bytes=2000, max_unsent_bytes=MIB // 2))
    door = house.door(name)
    async with RawClient.login(door, STT) as raw:
        raw.publish("home/a", bytes(1900), qos=1)
        assert await raw.packet() == (0x40, b"\0\1")
        raw.publish("home/a", bytes(2000), qos=1)
        await raw.closed()
    process = psutil.Process(house.broker.pid)
    before = process.memory_info().rss
    async with RawClient.dial(door, receive_buffer=4096) as stalled, RawClient.login(house.broker, TTS) as publisher:
        stalled.send(connect_packet(STT, client_id="stt-stalled", keep_alive=0))
        await stalled.packet()
        await stalled.subscribe("home/#", qos=0)
        for _ in range(400):
            for _ in range(40):
                publisher.publish("home/noise", bytes(1900))
            await publisher.flushed()
            if any("does not read" in event["reason"] for event in house.broker.events("disconnected")):
                break
        else:
            pytest.fail("it was never cut off")
    assert process.memory_info().rss - before < 10 * MIB


@every_door
async def test_silence_is_bounded_before_and_after_the_login(build, house, name):
    door = build(limits=Limits(connect_seconds=0.3)).door(name)
    async with RawClient.dial(Door(door.port)) as mute, RawClient.dial(door) as silent:
        await mute.closed()
        await silent.closed()
    # Nobody who logs in is hurried.
    door = house.door(name)
    async with RawClient.login(house.broker, SUPERVISOR) as witness:
        await witness.subscribe("home/will", qos=0)
        will = Publish("home/will", b"", 0, retain=False)
        async with RawClient.login(door, STT, keep_alive=1, will=will) as raw:
            await raw.closed()
        await witness.message()


@every_door
async def test_who_does_not_get_as_far_as_a_login_locks_nobody_out(build, name):
    house = build(limits=Limits(max_pending=4, connect_seconds=60))
    door = house.door(name)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(12):
            # Half of them do not even shake hands.
            await stack.enter_async_context(RawClient.dial(door if number % 2 else Door(door.port)))
        async with RawClient.login(door, STT), RawClient.login(house.broker, TTS):
            pass


@every_door
async def test_resets_leave_nothing(build, name):
    house = build(limits=Limits(max_pending=8, max_connections=8))
    door = house.door(name)
    process = psutil.Process(house.broker.pid)
    async with RawClient.login(door, STT):
        before = process.num_fds() - 1  # without this one, whose end takes its time
    for number in range(100):
        async with RawClient.dial(Door(door.port) if number % 4 == 0 else door) as raw:
            if number % 4 == 2:
                raw.send(connect_packet(STT, client_id=f"stt-{number}")[:20])
            elif number % 4 == 3:
                raw.send(connect_packet(STT, client_id=f"stt-{number}"))
                await raw.packet()
            raw.reset()
    await eventually(lambda: process.num_fds() <= before)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(8):
            await stack.enter_async_context(RawClient.login(door, STT, client_id=f"stt-{number}"))


async def test_it_ends_in_order_with_half_open_clients_at_each_door(build):
    house = build()
    async with contextlib.AsyncExitStack() as stack:
        for name in LISTENERS:
            door = house.door(name)
            await stack.enter_async_context(RawClient.dial(Door(door.port)))
            await stack.enter_async_context(RawClient.dial(door))
            await stack.enter_async_context(RawClient.login(door, STT, client_id=f"stt-{len(name)}"))
        house.broker.signal(signal.SIGTERM)
        assert house.broker.wait(30) == 0
    assert house.broker.events("library") == house.broker.events("connection_failed") == []


@every_door
def test_paho(house, name):
    door = house.door(name)
    got, subscribed = threading.Event(), threading.Event()
    transport: Any = "websockets" if door.websocket else "tcp"
    listener = paho.Client(CallbackAPIVersion.VERSION2, client_id="stt-paho", transport=transport)
    if door.tls is not None:
        listener.tls_set_context(door.tls)
    listener.username_pw_set(STT.name, STT.password)
    listener.on_connect = lambda each, *_: each.subscribe("home/lamp", 1)
    listener.on_subscribe = lambda *_: subscribed.set()
    listener.on_message = lambda *_: got.set()
    listener.connect(HOST, door.port)
    listener.loop_start()
    try:
        assert subscribed.wait(DEADLINE)
        listener.publish("home/lamp", bytes(200_000), qos=2)
        assert got.wait(DEADLINE)
    finally:
        listener.disconnect()
        listener.loop_stop()


def test_mosquittos_tools_over_tls(house):
    door = house.door("tls")

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        where = ("-h", HOST, "-p", str(door.port), "--cafile", str(house.certificate))
        who = ("-u", SUPERVISOR.name, "-P", SUPERVISOR.password)
        return subprocess.run([needs(name), *where, *who, *arguments], capture_output=True, timeout=30, check=False)

    done = run("mosquitto_pub", "-t", "system/state/x", "-m", "hello", "-q", "1", "-r")
    assert done.returncode == 0, done.stderr
    seen = run("mosquitto_sub", "-t", "system/state/x", "-C", "1", "-W", "25")
    assert seen.stdout == b"hello\n"
    run("mosquitto_pub", "-t", "system/state/x", "-n", "-r")


class TestTls:
    @pytest.mark.parametrize("spoil", ["missing", "garbage"])
    def test_a_certificate_that_cannot_be_used_is_named(self, tmp_path, spoil):
        certificate, key = certificates(tmp_path)
        certificate.unlink() if spoil == "missing" else certificate.write_text("x")
        path = tmp_path / "broker.json"
        write_config(
            path,
            BrokerConfig(port=0, listeners=(LISTENERS["tls"],), certificate=certificate, private_key=key),
        )
        done = subprocess.run(broker_command(path), capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"cannot use the certificate {certificate}" in done.stdout

    def test_tls_without_a_certificate_is_refused(self):
        with pytest.raises(ValidationError, match="needs `certificate`"):
            BrokerConfig(listeners=(LISTENERS["tls"],))

    async def test_a_renewed_certificate_counts_after_a_reload(self, build, tmp_path):
        house = build()
        before = house.door("tls")
        async with RawClient.login(before, STT) as stays:
            certificates(tmp_path)
            house.broker.reload(LOGINS)
            with pytest.raises(ssl.SSLCertVerificationError):
                async with RawClient.dial(before):
                    pass
            async with RawClient.login(house.door("tls"), TTS):
                pass
            await stays.flushed()

    async def test_who_speaks_no_tls_is_closed(self, house):
        async with RawClient.dial(Door(house.door("tls").port)) as plain:
            plain.send(connect_packet(STT))
            await plain.closed()


@contextlib.asynccontextmanager
async def http(port: int, head: bytes) -> Any:
    """The answer to a request that may be wrong."""
    async with RawClient.dial(Door(port)) as raw:
        raw.send(head)
        yield await raw.closed()


UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


class TestWebSocket:
    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426"),
            (UPGRADE + b"\r\n", b"400"),
            (UPGRADE + b"Sec-WebSocket-Protocol: chat\r\n\r\n", b"400"),
            (UPGRADE.replace(b"13", b"8") + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n", b"400"),
        ],
        ids=["a page", "no subprotocol", "another subprotocol", "another version"],
    )
    async def test_a_wrong_request_is_answered_and_closed(self, house, head, status):
        async with http(house.door("websocket").port, head) as answer:
            assert answer.startswith(b"HTTP/1.1 " + status)

    @pytest.mark.parametrize(
        "head",
        [b"GET / HTTP/1.1\r\n" + (b"X-A: " + b"b" * 1000 + b"\r\n") * 100, UPGRADE[:60] * 300],
        ids=["fields", "a line"],
    )
    async def test_a_request_that_is_too_long_is_closed_at_once(self, build, head):
        house = build(limits=Limits(connect_seconds=60))
        async with http(house.door("websocket").port, head):
            pass

    async def test_what_is_no_request_is_not_waited_for(self, build):
        house = build(limits=Limits(connect_seconds=0.2))
        async with http(house.door("websocket").port, connect_packet(STT)):
            pass

    @pytest.fixture
    async def opened(self, house):
        """A WebSocket on which somebody has logged in."""
        async with RawClient.login(house.door("websocket"), STT) as raw:
            stream = raw._reader
            assert isinstance(stream, WebSocketStream)
            yield raw, stream

    async def test_text_is_refused(self, opened):
        raw, stream = opened
        stream.protocol.send_text(packet(0xC0, b""))
        stream.flush()
        await raw.closed()

    async def test_a_ping_is_answered_and_is_no_sign_of_life(self, build):
        house = build()
        async with RawClient.login(house.door("websocket"), STT, keep_alive=1) as raw:
            stream = raw._reader
            pongs = 0
            async with asyncio.timeout(DEADLINE):
                with contextlib.suppress(EOFError, ConnectionError):
                    while stream.protocol.state is State.OPEN:
                        stream.protocol.send_ping(b"x")
                        stream.flush()
                        if not await stream._receive():
                            break
                        events = stream.protocol.events_received()
                        pongs += sum(isinstance(e, Frame) and e.opcode is Opcode.PONG for e in events)
                        await asyncio.sleep(0.1)
            assert pongs > 0
        (gone,) = await eventually(lambda: house.broker.events("disconnected"))
        assert "keep-alive" in gone["reason"]

    async def test_a_message_in_fragments(self, opened):
        raw, stream = opened
        for number, byte in enumerate(packet(0xC0, b"")):
            if number == 0:
                stream.protocol.send_binary(bytes((byte,)), fin=False)
            else:
                stream.protocol.send_continuation(bytes((byte,)), fin=True)
        stream.flush()
        assert await raw.packet() == (0xD0, b"")

    async def test_fragments_without_end_are_bounded(self, build):
        house = build(limits=Limits(max_packet_bytes=1000))
        async with RawClient.login(house.door("websocket"), STT) as raw:
            stream = raw._reader
            stream.protocol.send_binary(packet(0x30, b"\0\1a" + bytes(300)), fin=False)
            for _ in range(20):
                stream.protocol.send_continuation(packet(0x30, b"\0\1a" + bytes(300)), fin=False)
            stream.flush()
            await raw.closed()

    async def test_a_large_frame_is_refused_by_its_length(self, opened):
        raw, _ = opened
        raw._writer._writer.write(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
        await raw.closed()

    async def test_closing_it_is_the_end_and_without_disconnect_a_loss(self, house):
        will = Publish("home/will", b"", 0, retain=False)
        async with RawClient.login(house.broker, SUPERVISOR) as witness:
            await witness.subscribe("home/#", qos=0)
            for polite in (True, False):
                async with RawClient.login(house.door("websocket"), STT, will=will) as raw:
                    stream = raw._reader
                    if polite:
                        stream.protocol.send_binary(packet(0xE0, b""))
                    stream.protocol.send_close(1000)
                    stream.flush()
                    await raw.closed()
                witness.publish(END, b"") if polite else None
                assert (await witness.message()).topic == (END if polite else "home/will")

    async def test_nobody_is_anonymous_there(self, build):
        """A page in somebody's browser can open a WebSocket to this machine."""
        house = build(anonymous_read=True)
        async with RawClient.dial(house.door("websocket")) as raw:
            raw.send(connect_packet(None))
            assert (await raw.packet())[1] == bytes((0, Refusal.NOT_AUTHORIZED))
        async with RawClient.login(house.door("tls"), None):
            pass


def test_a_port_that_is_taken_is_named(tmp_path):
    path = tmp_path / "broker.json"
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        write_config(path, BrokerConfig(port=0, listeners=(Listener(port=port, websocket=True),)))
        done = subprocess.run(broker_command(path), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stdout
