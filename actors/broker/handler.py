"""One connection's conversation: reads its packets, answers them, and sends it its messages."""

import asyncio
from collections import OrderedDict
from typing import Any, Protocol

from amqtt.broker import RetainedApplicationMessage
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.manager import PluginManager
from amqtt.session import OutgoingApplicationMessage

from actors.broker.link import Link, Work
from actors.broker.rules import Principal
from actors.broker.session import ClientSession
from actors.broker.settings import Limits
from actors.mqtt import packets
from actors.mqtt.packets import SUBACK_FAILURE, Kind, ProtocolError, Publish

_SLICE = 64
"""Filters after which others get their turn."""


class Router(Protocol):
    """What a handler asks of the engine."""

    limits: Limits
    plugins_manager: PluginManager[Any]

    @property
    def retained_messages(self) -> dict[str, RetainedApplicationMessage]: ...
    def retained_topics(self, topic_filter: str, who: Principal) -> list[str]: ...
    def accept(self, session: ClientSession, message: Publish) -> None: ...
    def subscribe(self, session: ClientSession, topic_filter: str, qos: int) -> int: ...
    def unsubscribe(self, session: ClientSession, topic_filter: str) -> None: ...


class ClientHandler(BrokerProtocolHandler):
    """Reads and answers one connection's packets.

    In amqtt each packet is a task of its own: tasks that had not run yet when the client closed are cancelled, so
    messages that were sent, or even acknowledged, just before a DISCONNECT are lost, and a flood is buffered
    without bound. Here a packet is done before the next is read.
    """

    def __init__(self, engine: Router, session: ClientSession, link: Link) -> None:
        super().__init__(engine.plugins_manager)
        self._engine = engine
        self._client = session
        self._link = link
        self._retained: OrderedDict[str, int] = OrderedDict()
        """Topics whose retained message is to be sent for a new subscription, with its QoS."""
        self._retained_task: asyncio.Task[None] | None = None
        self._acknowledged = asyncio.Event()

    async def _reader_loop(self) -> None:
        assert self._reader_ready is not None
        self._reader_ready.set()
        self._resend()
        try:
            await self._link.serve(self._handle)
        finally:
            await self.handle_connection_closed()
            self._reader_stopped.set()

    async def wait_disconnect(self) -> None:
        """Stock waits for a future that it makes after the reader started: it misses a client that left by then."""
        await self._reader_stopped.wait()

    async def stop(self) -> None:
        if self._retained_task is not None:
            self._retained_task.cancel()
        await super().stop()

    def _handle(self, first: int, body: bytes) -> Work | None:
        kind, flags = first >> 4, first & 0x0F
        if kind == Kind.PUBLISH:
            self._handle_publish(packets.parse_publish(flags, body))
        elif flags != (2 if kind in (Kind.PUBREL, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE) else 0):
            raise ProtocolError("invalid flags of the fixed header")
        elif kind == Kind.PUBACK:
            self._client.acknowledge(packets.parse_packet_id(body))
            self._pump()
            self._acknowledged.set()
        elif kind == Kind.PUBREL:
            packet_id = packets.parse_packet_id(body)
            self._client.inflight_in.pop(packet_id, None)
            self._link.write(packets.pubcomp(packet_id))
        elif kind == Kind.SUBSCRIBE:
            return self._handle_subscribe(*packets.parse_subscribe(body))
        elif kind == Kind.UNSUBSCRIBE:
            packet_id, filters = packets.parse_unsubscribe(body)
            for topic_filter in filters:
                self._engine.unsubscribe(self._client, topic_filter)
            self._link.write(packets.unsuback(packet_id))
        elif kind == Kind.PINGREQ:
            self._link.write(packets.PINGRESP)
        elif kind == Kind.DISCONNECT:
            self._link.goodbye()
        else:
            raise ProtocolError(f"a client does not send packets of type {kind} here")
        return None

    def _handle_publish(self, message: Publish) -> None:
        if message.qos < 2:
            self._engine.accept(self._client, message)
            if message.qos:
                self._link.write(packets.puback(message.packet_id))
            return
        unreleased: dict[int, Any] = self._client.inflight_in
        if message.packet_id not in unreleased:  # else it is a repeat
            if len(unreleased) >= self._engine.limits.max_queued_messages:
                raise ProtocolError("too many unreleased messages of QoS 2")
            unreleased[message.packet_id] = None
            self._engine.accept(self._client, message)
        self._link.write(packets.pubrec(message.packet_id))

    async def _handle_subscribe(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        codes = [self._engine.subscribe(self._client, *each) for each in wanted]
        self._link.write(packets.suback(packet_id, codes))
        for number, ((topic_filter, _), granted) in enumerate(zip(wanted, codes, strict=True), start=1):
            if granted != SUBACK_FAILURE:
                for topic in self._engine.retained_topics(topic_filter, self._client.principal):
                    self._retained[topic] = max(granted, self._retained.get(topic, 0))
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        self._send_retained()
        if self._retained and (self._retained_task is None or self._retained_task.done()):
            self._retained_task = asyncio.create_task(self._send_retained_later())

    def _send_retained(self) -> None:
        """Send retained messages as far as the client has room for them, before anything that is published later.

        Each is looked up when it is its turn: a value that was replaced meanwhile must not arrive after its
        successor.
        """
        while self._retained and self._client.may_send and self._link.has_room:
            topic, qos = self._retained.popitem(last=False)
            if (message := self._engine.retained_messages.get(topic)) is not None:
                self.deliver(topic, bytes(message.data), min(qos, message.qos or 0), retain=True)

    async def _send_retained_later(self) -> None:
        """The rest, as fast as the client takes it."""
        while self._retained:
            while not self._client.may_send:
                self._acknowledged.clear()
                await self._acknowledged.wait()
            try:
                await self._link.room()
            except OSError:
                return
            self._send_retained()

    def deliver(self, topic: str, payload: bytes, qos: int, *, retain: bool = False) -> None:
        """Send a message, or let it wait for its turn."""
        if qos == 0:
            self._link.write(packets.publish(topic.encode(), payload, retain=retain))
            return
        message = OutgoingApplicationMessage(None, topic, qos, payload, retain)
        if self._client.may_send:
            self._send(message)
        else:
            self._client.enqueue(message)

    def _send(self, message: OutgoingApplicationMessage) -> None:
        self._client.send(message)
        self._write(message)

    def _write(self, message: OutgoingApplicationMessage, *, dup: bool = False) -> None:
        assert message.packet_id is not None
        self._link.write(
            packets.publish(
                message.topic.encode(),
                bytes(message.data),
                qos=1,
                packet_id=message.packet_id,
                retain=message.retain,
                dup=dup,
            )
        )

    def _pump(self) -> None:
        while (message := self._client.dequeue()) is not None:
            self._send(message)

    def _resend(self) -> None:
        """On a new connection of a session: what was not acknowledged, then what waited.

        amqtt drops a message whose connection ends before its PUBACK.
        """
        for message in list(self._client.inflight_out.values()):
            self._write(message, dup=True)
        self._pump()

    async def _retry_deliveries(self) -> None:
        """Amqtt waits here for acknowledgements, up to 10 s for each; and what came with CONNECT may be answered by now."""
