"""Clients for the broker's tests: Mosquitto's tools, aiomqtt, and a raw one that may misbehave."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

import aiomqtt
import anyio
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from actors.mqtt import packets
from actors.mqtt.packets import Framer, Publish
from tests.brokers import HOST, Broker, Login
from tests.support import needs

DEADLINE = 4.0 if os.environ.get("TEST_BROKERS") == "stock" else 30.0
"""Seconds that anything here may take. Stock amqtt mostly fails by silence."""
_FRAME = 40_000


async def tool(name: str, broker: Broker, login: Login | None, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `mosquitto_pub` or `mosquitto_sub` to its end."""
    who = () if login is None else ("-u", login.name, "-P", login.password)
    with anyio.fail_after(DEADLINE):
        command = [needs(name), "-h", HOST, "-p", str(broker.port), *who, *arguments]
        return await anyio.run_process(command, check=False)


def client(broker: Broker, login: Login, **options: Any) -> aiomqtt.Client:
    options = {"timeout": DEADLINE, **options}
    return aiomqtt.Client(HOST, broker.port, username=login.name, password=login.password, **options)


async def receive(source: aiomqtt.Client, count: int, *, deadline: float = DEADLINE) -> list[aiomqtt.Message]:
    """The next `count` messages."""
    found: list[aiomqtt.Message] = []
    async with asyncio.timeout(deadline):
        async for message in source.messages:
            found.append(message)
            if len(found) == count:
                break
    return found


async def received_until(source: aiomqtt.Client, topic: str, *, deadline: float = DEADLINE) -> list[tuple[str, bytes]]:
    """Topic and payload of what comes before a message on `topic`, which the caller publishes last.

    Messages of one publisher keep their order, so what has not come by then does not come.
    """
    found: list[tuple[str, bytes]] = []
    async with asyncio.timeout(deadline):
        async for message in source.messages:
            if message.topic.value == topic:
                return found
            found.append((message.topic.value, _bytes(message.payload)))
    raise AssertionError("unreachable: the messages of a connected client do not end")


def _bytes(payload: object) -> bytes:
    assert isinstance(payload, bytes)
    return payload


@dataclass(frozen=True)
class Door:
    """Another way into a broker than its plain port."""

    port: int
    tls: ssl.SSLContext | None = None
    websocket: bool = False


class WebSocketStream:
    """Reader and writer in one: what MQTT writes goes out in binary messages, cut at odd places."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self._reader = reader
        self._writer = writer
        self.protocol = ClientProtocol(parse_uri(f"ws://{HOST}:{port}/mqtt"), subprotocols=[Subprotocol("mqtt")])
        self.transport = writer.transport
        self.wait_closed = writer.wait_closed
        self.get_extra_info = writer.get_extra_info

    async def open(self) -> None:
        self.protocol.send_request(self.protocol.connect())
        self.flush()
        while self.protocol.state is State.CONNECTING:
            await self._receive()
        assert self.protocol.handshake_exc is None

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _FRAME):
            self.protocol.send_binary(data[start : start + _FRAME])
        self.flush()

    async def read(self, _count: int) -> bytes:
        while True:
            events = self.protocol.events_received()
            messages = [each for each in events if isinstance(each, Frame) and each.opcode is Opcode.BINARY]
            if messages:
                return b"".join(bytes(each.data) for each in messages)
            if not await self._receive():
                return b""

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self._writer.write(data)

    async def _receive(self) -> bool:
        data = await self._reader.read(65536)
        if data and not self.protocol.eof_sent:
            self.protocol.receive_data(data)
            self.flush()
        return bool(data)

    def write_eof(self) -> None:
        self._writer.write_eof()


def text(value: str | bytes) -> bytes:
    """A length-prefixed string."""
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(encoded)) + encoded


def packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((first, *encoded, length)) + body


def connect_packet(
    login: Login | None = None,
    *,
    client_id: str = "",
    clean: bool = True,
    keep_alive: int = 60,
    will: Publish | None = None,
    level: int = 4,
    password: str | None = None,
) -> bytes:
    """CONNECT of MQTT 3.1.1, or with another `level` one that pretends."""
    flags = clean << 1
    body = struct.pack("!H", keep_alive) + (b"\0" if level == packets.MQTT_5 else b"") + text(client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        body += text(will.topic) + text(will.payload)
    if login is not None:
        flags |= 0xC0
        body += text(login.name) + text(password or login.password)
    return packet(0x10, text("MQTT") + bytes((level, flags)) + body)


class RawClient:
    """A client at the level of packets. It answers nothing by itself."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = Framer(1 << 28)
        self._skipped: deque[tuple[int, bytes]] = deque()
        self.session_present = False

    @classmethod
    @contextlib.asynccontextmanager
    async def dial(
        cls, broker: Broker | Door, *, host: str = HOST, receive_buffer: int | None = None
    ) -> AsyncIterator[Self]:
        """Only connect the socket; it is closed, without a DISCONNECT, at the end."""
        sock = socket.socket()
        try:
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            async with asyncio.timeout(DEADLINE):
                await asyncio.get_running_loop().sock_connect(sock, (host, broker.port))
        except BaseException:
            sock.close()
            raise
        tls = broker.tls if isinstance(broker, Door) else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=HOST if tls else None)
        try:
            if isinstance(broker, Door) and broker.websocket:
                stream = WebSocketStream(reader, writer, broker.port)
                async with asyncio.timeout(DEADLINE):
                    await stream.open()
                yield cls(stream, stream)
            else:
                yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @classmethod
    @contextlib.asynccontextmanager
    async def login(cls, broker: Broker | Door, login: Login | None, **options: Any) -> AsyncIterator[Self]:
        """Connected and accepted."""
        async with cls.dial(broker) as raw:
            raw.send(connect_packet(login, **options))
            first, body = await raw.packet()
            assert (first, body[1]) == (0x20, 0), f"refused: {body!r}"
            raw.session_present = bool(body[0])
            yield raw

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, packet_id: int = 1) -> None:
        self.send(packets.publish(topic.encode(), payload, qos=qos, packet_id=packet_id, retain=retain))

    async def subscribe(self, topic_filter: str, qos: int = 1) -> int:
        """The return code."""
        self.send(packet(0x82, b"\0\7" + text(topic_filter) + bytes((qos,))))
        return (await self._answer(0x90))[2]

    async def flushed(self) -> None:
        """The broker has handled everything that was sent."""
        self.send(packet(0xC0, b""))
        await self._answer(0xD0)

    async def _answer(self, wanted: int) -> bytes:
        """The body of the next packet of that type; those before it are for `packet`."""
        skipped = []
        while (found := await self.packet())[0] != wanted:
            skipped.append(found)
        self._skipped.extend(skipped)
        return found[1]

    async def packet(self) -> tuple[int, bytes]:
        """The next packet; EOFError where the broker closed the connection."""
        if self._skipped:
            return self._skipped.popleft()
        async with asyncio.timeout(DEADLINE):
            while (found := self._framer.next()) is None:
                self._framer.feed(await self._read())
        return found

    async def message(self) -> Publish:
        """The next message, acknowledged; other packets are skipped."""
        while True:
            first, body = await self.packet()
            if first >> 4 == 3:
                message = packets.parse_publish(first & 15, body)
                if message.qos:
                    self.send(packets.puback(message.packet_id))
                return message

    async def closed(self) -> bytes:
        """What the broker still sends until it closes the connection."""
        rest = b""
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(EOFError):
                while True:
                    rest += await self._read()
        return rest

    async def _read(self) -> bytes:
        try:
            data = await self._reader.read(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        return data

    def finish(self) -> None:
        """Say that nothing more is sent (FIN)."""
        self._writer.write_eof()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
