"""A bridge with a signer, an onlooker at the broker, and a broker that misbehaves on request."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from tars_config import wire

from actors.bridge import BridgeActor, BridgeState, Timing
from actors.runtime import Handle, Ref
from actors.signer import SignerActor, Unsigned
from schemas.broker_address import BrokerAddress, parse_mqtt_url

EPOCH = "0d6b6c5a-54f5-4c0e-9f61-000000000001"
WILL = ("system/health/config-manager", b'{"ok":false,"event":"connection lost"}')

# Everything that waits in these tests ends by then, or the test fails.
DEADLINE = 30.0

# Short where a test would only wait; the defaults are for boards.
QUICK = Timing(first_retry=0.01, quick_retry=0.05, slow_retry=0.1, tick=0.05)


def unsigned(version: int, service: str = "stt", **config: Any) -> Unsigned:
    return Unsigned(service, wire.canonical(config), wire.checksum(config), version, EPOCH)


@dataclass
class Rig:
    """A running bridge and what it told."""

    bridge: Handle[BridgeActor]
    signer: Handle[SignerActor]
    key: Ed25519PublicKey
    ref: Ref[BridgeActor]
    states: list[BridgeState] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something that a call of ours brings about: a state, a token, a message."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not (value := condition()):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not happen; states: {self.states}") from None
        return value

    async def connected(self, *, again: bool = False) -> None:
        if again:
            seen = len(self.states)
            await self.until(lambda: any(s.connected for s in self.states[seen:]), "connecting again")
        else:
            await self.until(lambda: any(s.connected for s in self.states), "connecting")

    async def trouble(self) -> Any:
        """The next failure from here on, or the one at hand."""
        state = await self.until(lambda: self.states and not self.states[-1].connected and self.states[-1], "a failure")
        return state.failure

    async def acknowledged(self, *tokens: Any) -> None:
        await self.until(lambda: set(tokens) <= set(self.tokens), f"acknowledging {tokens}")

    async def settled(self) -> None:
        """Connected, and the broker has acknowledged everything."""
        async with asyncio.timeout(DEADLINE):
            while True:
                state = await self.bridge.ask(BridgeActor.status)
                if state.connected and not state.pending and not state.queued:
                    return
                await asyncio.sleep(0.005)

    def heard(self, handler: Callable[[str, bytes], None]) -> Callable[[str, bytes], None]:
        def listen(topic: str, payload: bytes) -> None:
            handler(topic, payload)
            self.news.set()

        return listen

    async def retain(self, topic: str, content: bytes | Unsigned, token: Any = None) -> None:
        await self.bridge.ask(BridgeActor.retain, topic, content, token)

    def verified(self, payload: bytes) -> wire.SignedUpdate:
        update = wire.decode(payload)
        wire.verify(update, [self.key])
        return update


@contextlib.asynccontextmanager
async def running_signer() -> AsyncIterator[tuple[Handle[SignerActor], Ed25519PublicKey]]:
    key = Ed25519PrivateKey.generate()
    ref = SignerActor.start(key)
    handle: Handle[SignerActor] = Handle("signer")
    await ref.started
    handle.attach(ref)
    try:
        yield handle, key.public_key()
    finally:
        ref.stop(block=False)
        await ref.exited.wait()


@contextlib.asynccontextmanager
async def running_bridge(
    address: str | BrokerAddress | Callable[[], BrokerAddress | None],
    *,
    timing: Timing = QUICK,
    crash: bool = False,
    **options: Any,
) -> AsyncIterator[Rig]:
    """A bridge to `address`; at the end it stops in order, or with `crash` is cancelled."""
    if isinstance(address, str):
        address = parse_mqtt_url(address)
    async with running_signer() as (signer, key):
        rig = Rig(Handle("bridge"), signer, key, None)  # type: ignore[arg-type]  # filled in below

        def on_state(state: BridgeState) -> None:
            rig.states.append(state)
            rig.news.set()

        def on_acknowledged(token: Any) -> None:
            rig.tokens.append(token)
            rig.news.set()

        rig.ref = BridgeActor.start(
            address,
            signer=signer,
            timing=timing,
            **{"will": lambda: WILL, "on_state": on_state, "on_acknowledged": on_acknowledged, **options},
        )
        await rig.ref.started
        rig.bridge.attach(rig.ref)
        try:
            yield rig
        finally:
            if crash:
                rig.ref.cancel()
            elif not rig.ref.exited.settled:
                rig.ref.stop(block=False)
            async with asyncio.timeout(DEADLINE):
                await rig.ref.exited.wait()


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[aiomqtt.Client]:
    """A bare client, as a worker or a stranger would have."""
    address = parse_mqtt_url(url)
    async with aiomqtt.Client(address.host, address.port, username=address.user, password=address.password) as it:
        yield it


async def retained(url: str, topic_filter: str = "#", *, at_least: int = 0) -> dict[str, bytes]:
    """What a broker retains at this moment.

    Where that is more than a socket takes at once, a broker may let our end mark overtake it: say how much to expect.
    """
    found: dict[str, bytes] = {}
    ended = False
    end = f"end/{uuid.uuid4().hex}"
    async with asyncio.timeout(DEADLINE), client(url) as onlooker:
        await onlooker.subscribe([(topic_filter, 1), (end, 1)])  # type: ignore[arg-type]  # paho takes it
        # Retained messages go out with the subscription, so before this one.
        await onlooker.publish(end, b"", qos=1)
        async for message in onlooker.messages:
            if message.topic.value == end:
                ended = True
            elif message.retain:
                found[message.topic.value] = bytes(message.payload)
            if ended and len(found) >= at_least:
                break
    return found


@dataclass
class Packet:
    kind: int
    flags: int
    body: bytes

    @property
    def topic(self) -> str:
        return self.body[2 : 2 + int.from_bytes(self.body[:2])].decode()

    @property
    def mid(self) -> bytes:
        start = 2 + int.from_bytes(self.body[:2])
        return self.body[start : start + 2]

    @property
    def payload(self) -> bytes:
        return self.body[4 + int.from_bytes(self.body[:2]) :]


CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


class Puppet:
    """A broker of few words (MQTT 3.1.1, QoS 0 and 1), for what a real one does not do on request.

    `connack`: return code, or None for no answer at all. `hold`: keep PUBACKs back until `release`.
    """

    def __init__(self) -> None:
        self.connack: int | None = 0
        self.hold = False
        self.suback_code = 1
        self.packets: list[Packet] = []
        self.held: list[bytes] = []
        self.connections = 0
        self.news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._mids = itertools.count(1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Puppet"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            async with asyncio.timeout(DEADLINE):
                await server.wait_closed()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def published(self) -> list[Packet]:
        return [packet for packet in self.packets if packet.kind == PUBLISH]

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            async with asyncio.timeout(DEADLINE):
                while not (value := condition()):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"the broker did not see {what}") from None
        return value

    def release(self, count: int | None = None) -> None:
        """Send PUBACKs that were held back, the oldest first."""
        now, self.held = self.held[:count], self.held[count:] if count is not None else []
        for mid in now:
            self.write(PUBACK, mid)

    def write(self, kind: int, body: bytes, flags: int = 0) -> None:
        assert self._writer is not None
        size, length = len(body), b""
        while True:
            size, digit = divmod(size, 128)
            length += bytes([digit | (0x80 if size else 0)])
            if not size:
                break
        self._writer.write(bytes([kind << 4 | flags]) + length + body)

    def publish(self, topic: str, payload: bytes, *, raw_topic: bytes | None = None) -> None:
        name = topic.encode() if raw_topic is None else raw_topic
        self.write(PUBLISH, len(name).to_bytes(2) + name + payload)

    def write_raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def cut(self) -> None:
        """Close the connection without a word."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writer = writer
        self.connections += 1
        try:
            while True:
                await self._answer(await _read(reader))
                self.news.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.news.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, packet: Packet) -> None:
        self.packets.append(packet)
        if self._writer is None:
            return
        if packet.kind == CONNECT and self.connack is not None:
            self.write(CONNACK, bytes([0, self.connack]))
        elif packet.kind == SUBSCRIBE:
            filters, rest = 0, packet.body[2:]
            while rest:
                filters, rest = filters + 1, rest[3 + int.from_bytes(rest[:2]) :]
            self.write(SUBACK, packet.body[:2] + bytes([self.suback_code]) * filters)
        elif packet.kind == PUBLISH and packet.flags & 0b110:
            self.held.append(packet.mid)
            if not self.hold:
                self.release()
        elif packet.kind == PINGREQ and not self.hold:
            self.write(PINGRESP, b"")


async def _read(reader: asyncio.StreamReader) -> Packet:
    (head,) = await reader.readexactly(1)
    size = shift = 0
    while True:
        (byte,) = await reader.readexactly(1)
        size |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            break
    return Packet(head >> 4, head & 15, await reader.readexactly(size))
