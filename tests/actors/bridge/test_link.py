"""The bridge's link, byte by byte, against a broker whose every word is in the script."""

import asyncio
import contextlib
import logging
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bridge import Trouble
from actors.bridge._link import LARGEST_PAYLOAD, Link
from actors.bridge._state import LinkFailed
from actors.mqtt import packets
from actors.mqtt.packets import Framer, Kind, Publish
from schemas.broker_address import BrokerAddress
from tests.actors.bridge.certificates import certificates
from tests.actors.bridge.support import DEADLINE, WILL

ACCEPTED = b"\x20\x02\x00\x00"
ADDRESS = BrokerAddress("broker.example", 1883, "steward", "hunter2")


class Heard:
    """What a link told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.news = asyncio.Event()

    def on_puback(self, mid: int) -> None:
        self._note(mid)

    def on_message(self, topic: str, payload: bytes) -> None:
        self._note((topic, payload))

    def on_room(self) -> None:
        self._note("room")

    def on_closed(self) -> None:
        self._note("closed")

    def _note(self, it: object) -> None:
        self.told.append(it)
        self.news.set()

    async def until(self, it: object) -> None:
        async with asyncio.timeout(DEADLINE):
            while it not in self.told:
                self.news.clear()
                await self.news.wait()


class Wire(asyncio.Transport):
    """A transport that only notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False

    def write(self, data: object) -> None:
        self.writes.append(bytes(data))  # type: ignore[arg-type]  # it is bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    @property
    def packets(self) -> list[tuple[int, bytes]]:
        framer = Framer(1 << 28)
        framer.feed(b"".join(self.writes))
        return list(iter(framer.next, None))  # type: ignore[arg-type]  # None ends it


def fed(link: Link, data: bytes) -> None:
    """As the loop hands it over: piece by piece, in the link's own buffer."""
    while data:
        buffer = link.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        link.buffer_updated(size)
        data = data[size:]


def linked(*, accepted: bool = True, keep_alive: int = 10) -> tuple[Link, Heard, Wire]:
    heard, wire = Heard(), Wire()
    link = Link(ADDRESS, will=WILL, keep_alive=keep_alive, events=heard)
    link.connection_made(wire)
    if accepted:
        fed(link, ACCEPTED)
        assert link.alive
    return link, heard, wire


class Peer:
    """The broker's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._framer = Framer(1 << 28)

    async def packet(self) -> tuple[int, bytes]:
        async with asyncio.timeout(DEADLINE):
            while (packet := self._framer.next()) is None:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._framer.feed(data)
        return packet

    async def ended(self) -> list[int]:
        """The first bytes of what still comes, until the end of it."""
        found = []
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                found.append((await self.packet())[0])
        return found

    def write(self, data: bytes) -> None:
        self.writer.write(data)


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[BrokerAddress, "asyncio.Queue[Peer]"]]:
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        peers.put_nowait(Peer(reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1], "steward", "hunter2"), peers
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Link, Heard, Peer]]:
    async with listening() as (address, peers):
        heard = Heard()
        link = Link(address, will=WILL, keep_alive=10, events=heard)
        opening = asyncio.create_task(link.open(None))
        try:
            async with asyncio.timeout(DEADLINE):
                peer = await peers.get()
                await peer.packet()
                peer.write(ACCEPTED)
                await opening
            yield link, heard, peer
        finally:
            link.abort()


# -- logging in


@pytest.mark.parametrize(("user", "password"), [(None, None), ("steward", None), ("steward", "größe")])
async def test_what_it_says_of_itself(user, password):
    async with listening() as (at, peers):
        link = Link(BrokerAddress(at.host, at.port, user, password), will=WILL, keep_alive=17, events=Heard())
        opening = asyncio.create_task(link.open(None))
        peer = await peers.get()
        first, body = await peer.packet()
        for byte in ACCEPTED:
            assert not opening.done()
            peer.write(bytes((byte,)))
            await peer.writer.drain()
        async with asyncio.timeout(DEADLINE):
            await opening
        link.abort()
    it = packets.parse_connect(body)
    assert first == Kind.CONNECT << 4
    assert (it.clean_session, it.keep_alive, it.username) == (True, 17, user)
    assert it.password == (None if password is None else password.encode())
    assert it.will == Publish(*WILL, qos=1, retain=True)
    assert it.client_id.startswith(f"{user or 'tars-supervisor'}-")
    # Section 3.1.3.1: what every broker must take, but for the user's name in it.
    assert len(it.client_id.removeprefix(user or "")) <= 40


@pytest.mark.parametrize(
    ("code", "trouble", "words"),
    [
        (1, Trouble.PROTOCOL, "unsupported protocol version"),
        (2, Trouble.PROTOCOL, "client identifier not valid"),
        (3, Trouble.PROTOCOL, "server unavailable"),
        (4, Trouble.LOGIN_REFUSED, "bad user name or password; check user name and password in MQTT_URL"),
        (5, Trouble.LOGIN_REFUSED, "not authorized; check user name and password in MQTT_URL"),
        (99, Trouble.PROTOCOL, "return code 99"),
    ],
)
async def test_a_refusal_is_said_and_stays_the_reason(code, trouble, words):
    async with listening() as (address, peers):
        link = Link(address, will=WILL, keep_alive=10, events=Heard())
        opening = asyncio.create_task(link.open(None))
        peer = await peers.get()
        await peer.packet()
        peer.write(bytes((0x20, 2, 0, code)))
        peer.writer.close()
        with pytest.raises(LinkFailed, match=words) as caught:
            async with asyncio.timeout(DEADLINE):
                await opening
        link.abort()
    assert caught.value.trouble is trouble
    assert "hunter2" not in caught.value.reason


@pytest.mark.parametrize(
    "answer",
    [
        b"\x20\x02\x02\x00",
        b"\x20\x03\x00\x84\x00",
        b"\x20\x00",
        b"\x40",
        b"\x30",
        b"H",
        b"\x21",
        b"\x20\xff\xff\xff\xff",
    ],
)
async def test_an_answer_that_is_none_is_the_end_of_it(answer):
    link, heard, wire = linked(accepted=False)
    fed(link, answer)
    assert link.failure is not None
    assert link.failure.trouble is Trouble.PROTOCOL
    link.publish("t", b"", qos=1, retain=True)
    link.flush()
    assert (heard.told, wire.writes) == (["closed"], [])


async def test_a_listener_that_closes_at_once():
    async with listening() as (address, peers):
        link = Link(address, will=WILL, keep_alive=10, events=Heard())
        opening = asyncio.create_task(link.open(None))
        (await peers.get()).writer.close()
        with pytest.raises(LinkFailed) as caught:
            async with asyncio.timeout(DEADLINE):
                await opening
        link.abort()
    assert caught.value.trouble is Trouble.CLOSED


# -- what comes in


@pytest.mark.parametrize(
    "malformed",
    [
        pytest.param(ACCEPTED, id="a second CONNACK"),
        pytest.param(b"\x40\x01\x00", id="PUBACK of one byte"),
        pytest.param(b"\x40\x03\x00\x01\x00", id="PUBACK of three bytes"),
        pytest.param(b"\x40\x02\x00\x00", id="PUBACK of packet id 0"),
        pytest.param(b"\x42", id="PUBACK with a flag"),
        pytest.param(b"\x50", id="PUBREC, where nothing of QoS 2 was sent"),
        pytest.param(b"\x10", id="CONNECT"),
        pytest.param(b"\x82", id="SUBSCRIBE"),
        pytest.param(b"\xb0", id="UNSUBACK"),
        pytest.param(b"\xf0", id="a kind that there is not"),
        pytest.param(b"\x00", id="another"),
        pytest.param(b"\x90\x02\x00\x01", id="SUBACK without codes"),
        pytest.param(b"\x90\x03\x00\x01\x00", id="SUBACK of another number of filters"),
        pytest.param(b"\x90\x04\x00\x01\x00\x03", id="SUBACK with a code that there is not"),
        pytest.param(b"\xd0\x01\x00", id="PINGRESP with a body"),
        pytest.param(b"\x30\x01\x00", id="PUBLISH that ends in the topic's length"),
        pytest.param(b"\x30\x04\x00\x03ab", id="PUBLISH that ends in the topic"),
        pytest.param(b"\x32\x04\x00\x01a\x00", id="PUBLISH that ends in the packet id"),
        pytest.param(b"\x32\x05\x00\x01a\x00\x00", id="PUBLISH of packet id 0"),
        pytest.param(b"\x34\x05\x00\x01a\x00\x01", id="PUBLISH of QoS 2"),
        pytest.param(b"\x36\x05\x00\x01a\x00\x01", id="PUBLISH of QoS 3"),
        pytest.param(b"\x38\x03\x00\x01a", id="a repetition at QoS 0"),
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="a length of five bytes"),
        pytest.param(b"\x90\xff\xff\xff\x7f", id="SUBACK of 256 MiB"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 1000])
async def test_what_is_malformed_ends_it_at_once(malformed, pieces):
    link, heard, wire = linked()
    link.subscribe(["a", "b"])
    link.flush()
    size = max(1, len(malformed) // pieces)
    for start in range(0, len(malformed), size):
        fed(link, malformed[start : start + size])
    assert link.failure is not None
    assert link.failure.trouble is Trouble.PROTOCOL
    assert "not MQTT 3.1.1" in link.failure.reason
    assert heard.told == ["closed"]
    # Nothing of what follows is handled.
    fed(link, packets.publish(b"t", b"", retain=False))
    assert heard.told == ["closed"]
    assert len(wire.writes) == 1


names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0+#"), min_size=1, max_size=9)
scripts = st.lists(
    st.one_of(
        st.tuples(st.just("message"), names, st.binary(max_size=40), st.integers(0, 1)),
        st.tuples(st.just("too large"), names, st.integers(1, 100_000), st.integers(0, 1)),
        st.tuples(st.just("puback"), st.integers(0, 5)),
        st.tuples(st.just("stray puback"), st.integers(100, 65534)),
        st.tuples(st.just("pong")),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(scripts, st.data())
def test_what_is_told_does_not_depend_on_how_the_stream_is_cut(script, data):
    stream, expected, answers = b"", [], []
    published = {number + 1: None for number in range(6)}
    for number, (kind, *what) in enumerate(script, 1):
        if kind in ("message", "too large"):
            topic, payload, qos = what
            if kind == "message":
                expected.append((topic, payload))
            else:
                payload = bytes(LARGEST_PAYLOAD + payload)
            stream += packets.publish(topic.encode(), payload, qos=qos, packet_id=number, retain=False)
            answers += [(0x40, number.to_bytes(2))] * qos
        elif kind == "pong":
            stream += packets.PINGRESP
        else:
            stream += packets.puback(what[0] + 1)
            if published.pop(what[0] + 1, 1) is None:
                expected.append(what[0] + 1)

    async def run() -> None:
        link, heard, wire = linked()
        assert [link.publish("t", b"", qos=1, retain=True) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        left = memoryview(stream)
        while left:
            # Small pieces of what is large would take for ever.
            size = data.draw(st.integers(1, max(20, min(len(left), 1 << 20))))
            fed(link, bytes(left[:size]))
            left = left[size:]
            assert len(link._framer._buffer) <= LARGEST_PAYLOAD + (1 << 17)
        assert link.alive
        assert heard.told == expected
        assert [packet for packet in wire.packets if packet[0] == 0x40] == answers

    asyncio.run(run())


async def test_acknowledgements_of_nothing_are_of_no_consequence():
    link, heard, _ = linked()
    published = link.publish("t", b"", qos=1, retain=True)
    link.subscribe(["a"])
    asked = published + 1
    for stray in (
        packets.puback(asked),
        packets.suback(published, [1]),
        packets.puback(77),
        packets.suback(78, [1, 1]),
    ):
        fed(link, stray)
    assert heard.told == []
    fed(link, packets.suback(asked, [1]) + packets.puback(published) + packets.puback(published))
    assert heard.told == [published]
    assert link.alive


async def test_each_filter_that_is_refused_is_named(caplog):
    link, _, wire = linked()
    filters = [f"f/{number}" for number in range(250)]
    link.subscribe(filters)
    link.flush()
    asked = [packets.parse_subscribe(body) for first, body in wire.packets if first == 0x82]
    assert [each for _, wanted in asked for each in wanted] == [(each, 1) for each in filters]
    with caplog.at_level(logging.ERROR, "actors.bridge"):
        for packet_id, wanted in asked:
            fed(link, packets.suback(packet_id, [0x80 if each == "f/123" else 1 for each, _ in wanted]))
    assert [record.args[1] for record in caplog.records] == ["f/123"]


@pytest.mark.parametrize("topic", [b"\xff\xfe", b"a/+", b"a\0b", b"a" * 5000])
async def test_a_message_with_a_topic_that_is_none_is_acknowledged_and_dropped(topic, caplog):
    link, heard, wire = linked()
    fed(link, packets.publish(topic, b"x", qos=1, packet_id=7, retain=False) + packets.publish(b"t", b"", retain=False))
    assert heard.told == [("t", b"")]
    assert wire.packets == [(0x40, b"\0\7")]
    assert "dropped a message" in caplog.text


async def test_what_is_too_large_is_never_kept(caplog):
    link, heard, wire = linked()
    size = 32 * 1024 * 1024
    head = packets.publish(b"t" * 4000, b"", qos=1, packet_id=9, retain=False)
    body = head[3:]
    length = len(body) + size
    fed(link, b"\x32" + bytes((length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21)))
    fed(link, body)
    piece = bytes(1 << 20)
    for _ in range(size // len(piece)):
        fed(link, piece)
        assert len(link._framer._buffer) < 256 * 1024
    fed(link, packets.publish(b"after", b"1", retain=False))
    assert heard.told == [("after", b"1")]
    assert wire.packets == [(0x40, b"\0\x09")]
    # A payload of some of the bytes that a longer topic would have had.
    fed(link, packets.publish(b"t", bytes(LARGEST_PAYLOAD + 1), retain=False))
    assert f"dropped a message of {LARGEST_PAYLOAD + 1} bytes on t" in caplog.text
    assert f"dropped a message of {size} bytes on ttt" in caplog.text


async def test_a_handler_may_end_it_in_the_middle_of_a_read():
    link, heard, wire = linked()
    heard.on_message = lambda *_: link.abort()  # type: ignore[method-assign]  # this once
    fed(link, packets.publish(b"t", b"", qos=1, packet_id=1, retain=False) * 2)
    assert heard.told == ["closed"]
    assert wire.aborted
    assert wire.writes == []


# -- what goes out


async def test_packet_identifiers_are_not_used_again_while_they_are_in_flight():
    link, heard, _ = linked()
    slow = {link.publish("slow", b"", qos=1, retain=True) for _ in range(3)}
    link.subscribe(["slow too"])
    assert slow == {1, 2, 3}
    seen = []
    for _ in range(65535 + 10):
        identifier = link.publish("t", b"", qos=1, retain=True)
        seen.append(identifier)
        fed(link, packets.puback(identifier))
        link._unsent.clear()
    assert not {1, 2, 3, 4} & set(seen)
    assert seen[:2] == [5, 6]
    assert min(seen) == 5
    assert max(seen) == 65535
    assert heard.told == seen
    fed(link, packets.puback(2))
    assert heard.told[-1] == 2


async def test_what_belongs_together_leaves_in_one_send():
    link, _, wire = linked()
    link.subscribe(["a"])
    for number in range(5):
        link.publish("t", b"%d" % number, qos=number % 2, retain=False)
    assert wire.writes == []
    link.flush()
    link.flush()
    assert len(wire.writes) == 1
    assert [first >> 4 for first, _ in wire.packets] == [Kind.SUBSCRIBE, *[Kind.PUBLISH] * 5]
    fed(link, b"".join(packets.publish(b"t", b"", qos=1, packet_id=each, retain=False) for each in (1, 2, 3)))
    assert len(wire.writes) == 2
    assert [packet for packet in wire.packets if packet[0] == 0x40] == [
        (0x40, b"\0\1"),
        (0x40, b"\0\2"),
        (0x40, b"\0\3"),
    ]


async def test_while_the_broker_does_not_read_nothing_more_is_published_and_little_answered(monkeypatch):
    monkeypatch.setattr("actors.bridge._link._MOST_ANSWERS", 40)
    async with connected() as (link, heard, peer):
        peer.writer.transport.pause_reading()
        published = 0
        async with asyncio.timeout(DEADLINE):
            while link.has_room:
                link.publish("t", bytes(100_000), qos=1, retain=True)
                link.flush()
                published += 1
                await asyncio.sleep(0)
        peer.write(packets.publish(b"x", b"", qos=1, packet_id=1, retain=False))
        await heard.until(("x", b""))
        peer.writer.transport.resume_reading()
        found = [(await peer.packet())[0] for _ in range(published + 1)]
        assert found == [0x33] * published + [0x40]
        await heard.until("room")
        assert link.has_room
        peer.writer.transport.pause_reading()
        while link.has_room:
            link.publish("t", bytes(100_000), qos=1, retain=True)
            link.flush()
            await asyncio.sleep(0)
        for number in range(20):
            peer.write(packets.publish(b"x", b"", qos=1, packet_id=number + 1, retain=False))
        await heard.until("closed")
        assert link.failure is not None
        assert link.failure.trouble is Trouble.SILENT


async def test_pings_are_sent_when_due_and_an_answer_is_waited_for_as_long():
    link, heard, wire = linked(keep_alive=10)
    clock = SimpleNamespace(time=lambda: clock.now, now=link._loop.time())
    link._loop = clock  # type: ignore[assignment]  # of which it is the clock that counts

    def pings() -> int:
        return sum(first == 0xC0 for first, _ in wire.packets)

    for _ in range(9):
        clock.now += 1
        link.keep_alive()
    assert pings() == 0
    # What comes in does not spare it: the broker counts what goes out (3.1.2.10).
    fed(link, packets.publish(b"t", b"", retain=False))
    clock.now += 1
    link.keep_alive()
    assert pings() == 1
    clock.now += 9
    link.keep_alive()
    fed(link, packets.PINGRESP)
    assert (pings(), link.alive) == (1, True)
    clock.now += 1
    link.keep_alive()
    assert pings() == 2
    clock.now += 9.9
    # Whatever else it says, a ping is to be answered.
    fed(link, packets.publish(b"t", b"", retain=False))
    link.keep_alive()
    assert link.alive
    clock.now += 0.1
    link.keep_alive()
    assert link.failure is not None
    assert link.failure.trouble is Trouble.SILENT
    assert pings() == 2
    assert heard.told[-1] == "closed"


# -- the end


async def test_goodbye_is_the_last_word_and_comes_after_all_others():
    async with connected() as (link, _, peer):
        for _ in range(40):
            link.publish("t", bytes(50_000), qos=0, retain=False)
        leaving = asyncio.create_task(link.leave())
        assert await peer.ended() == [0x30] * 40 + [0xE0]
        peer.writer.close()
        async with asyncio.timeout(DEADLINE):
            await leaving
        assert link.failure is not None


async def test_goodbye_waits_until_the_broker_has_said_all_that_it_had_begun():
    """A socket that is closed with something unread resets the connection, and the DISCONNECT may go with it."""
    async with connected() as (link, heard, peer):
        peer.writer.transport.set_write_buffer_limits(high=0)
        peer.write(packets.publish(b"t", bytes(100_000), retain=False) * 50)
        leaving = asyncio.create_task(link.leave())
        assert await peer.packet() == (0xE0, b"")
        async with asyncio.timeout(DEADLINE):
            await peer.writer.drain()
            peer.writer.close()
            await peer.writer.wait_closed()
            await leaving
        assert set(heard.told) <= {("t", bytes(100_000)), "closed"}
        # What is read then is not kept.
        assert len(link._framer._buffer) <= 100_020


async def test_goodbye_to_a_broker_that_does_not_listen_is_short():
    async with connected() as (link, _, peer):
        peer.writer.transport.pause_reading()
        while link.has_room:
            link.publish("t", bytes(100_000), qos=1, retain=True)
            link.flush()
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            await link.leave()


async def test_an_end_without_a_word():
    async with connected() as (link, heard, peer):
        peer.writer.close()
        async with asyncio.timeout(DEADLINE):
            await link.ended.wait()
        assert link.failure is not None
        assert link.failure.trouble is Trouble.CLOSED
        assert heard.told == ["closed"]
        link.abort()
        await link.leave()
        assert heard.told == ["closed"]


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_given_up_in_the_middle_of_a_handshake_it_leaves_nothing(turns, mosquitto, tmp_path):
    """The fixtures look for sockets, tasks and threads that are left."""
    cert, key = certificates(tmp_path)
    broker = mosquitto(extra=[f"certfile {cert}", f"keyfile {key}"])
    trusting = ssl.create_default_context(cafile=str(cert))
    link = Link(BrokerAddress("127.0.0.1", broker.port, tls=True), will=WILL, keep_alive=10, events=Heard())
    opening = asyncio.create_task(link.open(trusting))
    for _ in range(turns):
        await asyncio.sleep(0.0003 if turns % 2 else 0)
    opening.cancel()
    await asyncio.wait([opening])
    link.abort()
    assert opening.cancelled() or opening.exception() is None


async def test_a_listener_that_closes_during_the_handshake():
    async with listening() as (address, peers):
        link = Link(address, will=WILL, keep_alive=10, events=Heard())
        opening = asyncio.create_task(link.open(ssl.create_default_context()))
        peer = await peers.get()
        async with asyncio.timeout(DEADLINE):
            await peer.reader.read(1)
            peer.writer.close()
            with pytest.raises(LinkFailed, match="no TLS with the broker at") as caught:
                await opening
        link.abort()
    assert caught.value.trouble is Trouble.TLS


def test_the_supervisor_loads_no_mqtt_library():
    """They would cost each start 15 ms and the board 2.6 MiB for ever."""
    program = "import sys, supervisor.wiring; print(*(set(sys.modules) & {'aiomqtt', 'amqtt', 'paho'}))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == []
