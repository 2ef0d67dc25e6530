"""amqtt's broker with the parts replaced that did not hold.

amqtt 0.12.1 keeps the sessions, the subscriptions, the retained messages and the life of a connection from CONNECT
to its end. Each override says which of its faults it is for; they rest on private members, hence the exact pin.
"""

import asyncio
from typing import Any

from amqtt.broker import Broker, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage, Session

from actors.broker import packets, rules
from actors.broker.link import Link
from actors.broker.log import Log
from actors.broker.packets import Kind, ProtocolError, Publish
from actors.broker.rules import Principal, Role
from actors.broker.settings import Limits

LISTENER = "default"
_SUBACK_FAILURE = 0x80
_MAX_QOS = 1
_SLICE = 64
"""Packets, or filters, after which others get their turn."""
_ROUTES = 4096
_PINGRESP = b"\xd0\x00"


class ClientSession(Session):
    """A client's session; a persistent one outlives its connection.

    Of amqtt's queues, `inflight_out` holds what is not acknowledged, `retained_messages` what waits (amqtt's name
    for a session's queue), and `inflight_in` the packet ids of QoS 2 that are not released.
    """

    def __init__(self, link: Link, limits: Limits) -> None:
        super().__init__()
        self.client_id: str = link.session_id
        self.clean_session = link.clean
        self.principal = link.principal
        self.filters: set[str] = set()
        self.lost = 0
        """Messages dropped because too many waited."""
        self.refused = 0
        """Messages that it published where it may not."""
        self._limits = limits
        self._queued_bytes = 0

    @property
    def connected(self) -> bool:
        return bool(self.transitions.state == "connected")

    @property
    def may_send(self) -> bool:
        """Whether a message of QoS 1 can go out now, without passing others or the window."""
        return self.retained_messages.empty() and len(self.inflight_out) < self._limits.max_inflight

    def enqueue(self, message: OutgoingApplicationMessage) -> None:
        """Keep it for later; dropped and counted where too much waits already, as Mosquitto does."""
        size = len(message.data) + len(message.topic)
        if (
            self.retained_messages.qsize() >= self._limits.max_queued_messages
            or self._queued_bytes + size > self._limits.max_queued_bytes
        ):
            self.lost += 1
            return
        self._queued_bytes += size
        self.retained_messages.put_nowait(message)

    def dequeue(self) -> OutgoingApplicationMessage | None:
        """The next waiting message, if the window has room for it."""
        if self.retained_messages.empty() or len(self.inflight_out) >= self._limits.max_inflight:
            return None
        message = self.retained_messages.get_nowait()
        assert isinstance(message, OutgoingApplicationMessage)
        self._queued_bytes -= len(message.data) + len(message.topic)
        return message


class ClientHandler(BrokerProtocolHandler):
    """Reads and answers one connection's packets.

    In amqtt each packet is a task of its own: tasks that had not run yet when the client closed are cancelled, so
    messages that were sent, or even acknowledged, just before a DISCONNECT are lost, and a flood is buffered
    without bound. Here a packet is done before the next is read.
    """

    def __init__(self, engine: "Engine", session: ClientSession, link: Link) -> None:
        super().__init__(engine.plugins_manager)
        self._engine = engine
        self._client = session
        self._link = link
        self._retained: dict[str, int] = {}
        """Topics whose retained message is to be sent for a new subscription, with its QoS."""
        self._retained_task: asyncio.Task[None] | None = None
        self._acknowledged = asyncio.Event()

    async def _reader_loop(self) -> None:
        assert self._reader_ready is not None
        self._reader_ready.set()
        handled = 0
        try:
            while not self._link.said_goodbye and (packet := await self._link.packet()) is not None:
                await self._handle(*packet)
                handled += 1
                if handled % _SLICE == 0:
                    await asyncio.sleep(0)
        except ProtocolError as error:
            self._link.abort(str(error))
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

    async def _handle(self, first: int, body: bytes) -> None:
        kind, flags = first >> 4, first & 0x0F
        if kind == Kind.PUBLISH:
            await self._handle_publish(packets.parse_publish(flags, body))
        elif flags != (2 if kind in (Kind.PUBREL, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE) else 0):
            raise ProtocolError("invalid flags of the fixed header")
        elif kind == Kind.PUBACK:
            self._client.inflight_out.pop(packets.parse_packet_id(body), None)
            self._pump()
            self._acknowledged.set()
        elif kind == Kind.PUBREL:
            packet_id = packets.parse_packet_id(body)
            self._client.inflight_in.pop(packet_id, None)
            self._link.write(packets.pubcomp(packet_id))
        elif kind == Kind.SUBSCRIBE:
            await self._handle_subscribe(*packets.parse_subscribe(body))
        elif kind == Kind.UNSUBSCRIBE:
            packet_id, filters = packets.parse_unsubscribe(body)
            for topic_filter in filters:
                self._engine.unsubscribe(self._client, topic_filter)
            await self.mqtt_acknowledge_unsubscription(packet_id)
        elif kind == Kind.PINGREQ:
            self._link.write(_PINGRESP)
        elif kind == Kind.DISCONNECT:
            self._link.said_goodbye = True
        else:
            raise ProtocolError(f"a client does not send packets of type {kind} here")

    async def _handle_publish(self, message: Publish) -> None:
        if message.qos < 2:
            await self._engine.accept(self._client, message)
            if message.qos:
                self._link.write(packets.puback(message.packet_id))
            return
        unreleased: dict[int, Any] = self._client.inflight_in
        if message.packet_id not in unreleased:  # else it is a repeat
            if len(unreleased) >= self._engine.limits.max_queued_messages:
                raise ProtocolError("too many unreleased messages of QoS 2")
            unreleased[message.packet_id] = None
            await self._engine.accept(self._client, message)
        self._link.write(packets.pubrec(message.packet_id))

    async def _handle_subscribe(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        codes = [await self._engine.add_subscription(each, self._client) for each in wanted]
        await self.mqtt_acknowledge_subscription(packet_id, codes)
        for number, ((topic_filter, _), granted) in enumerate(zip(wanted, codes, strict=True), start=1):
            if granted != _SUBACK_FAILURE:
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
            topic = next(iter(self._retained))
            qos = self._retained.pop(topic)
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

    def _send(self, message: OutgoingApplicationMessage, *, dup: bool = False) -> None:
        if message.packet_id is None:
            message.packet_id = self._client.next_packet_id
            self._client.inflight_out[message.packet_id] = message
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

    async def _retry_deliveries(self) -> None:
        """On a new connection of a session: what was not acknowledged, then what waited.

        amqtt drops a message whose connection ends before its PUBACK, and at this point waits up to 10 s for each.
        """
        for message in list(self._client.inflight_out.values()):
            self._send(message, dup=True)
        self._pump()


class Engine(Broker):
    """The broker. It opens no port: the gate hands it connections that have logged in, each with its `Link`."""

    def __init__(self, limits: Limits, log: Log) -> None:
        super().__init__(
            BrokerConfig(
                listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind="none")},
                session_expiry_interval=limits.session_seconds,
                plugins={},
            )
        )
        self.limits = limits
        self._log = log
        self._routes: dict[str, list[tuple[ClientSession, int]]] = {}
        self._foreign_retained = 0
        self._foreign_retained_bytes = 0

    # The life of a connection

    def has_session(self, session_id: str) -> bool:
        return session_id in self._sessions

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    async def _initialize_client_session(
        self, reader: Any, _writer: Any, _address: str, _port: int
    ) -> tuple[ClientHandler, ClientSession]:
        """Stock reads CONNECT here, and lets a newcomer alter a live session before it has logged in.

        The gate has read CONNECT, checked the login and ended the client's earlier connection.
        """
        link: Link = reader
        if link.clean:
            await self._delete_session(link.session_id)
        if link.session_id in self._sessions:
            session = self._sessions[link.session_id][0]
            assert isinstance(session, ClientSession)
            session.principal = link.principal
            session.parent = 1
        else:
            session = ClientSession(link, self.limits)
        self._routes.clear()
        return ClientHandler(self, session, link), session

    async def _authenticate(self, _session: Session, _: ListenerConfig) -> bool:
        """The gate did."""
        return True

    async def _client_message_loop(self, client_session: Session, handler: BrokerProtocolHandler) -> None:
        """The handler does what comes in; what is left to do here is to wait for the end."""
        end = asyncio.ensure_future(handler.wait_disconnect())
        try:
            await asyncio.wait([end])
        finally:
            end.cancel()
        # A session here has no will_flag: the gate publishes last wills.
        await self._handle_disconnect(client_session, handler, end)

    async def end_session(self, link: Link, *, forget: bool) -> None:
        """The connection has ended. A session that is not kept is gone at once, not at amqtt's next sweep."""
        session = self._sessions.get(link.session_id, (None, None))[0]
        if not isinstance(session, ClientSession):
            return
        if session.refused or session.lost:
            self._log.warning(
                "client_summary",
                user=session.principal.name,
                refused_publishes=session.refused,
                lost_messages=session.lost,
            )
            session.refused = session.lost = 0
        if link.clean or forget:
            await self._delete_session(link.session_id)
            self._routes.clear()

    # Messages

    async def accept(self, session: ClientSession, message: Publish) -> None:
        """Take a client's message. A forbidden one is dropped: MQTT 3.1.1 has no answer that says so."""
        if rules.may_publish(session.principal, message.topic):
            await self.publish(session.principal, message)
            return
        session.refused += 1
        if session.refused == 1:
            self._log.warning("publish_refused", user=session.principal.name, topic=message.topic[:200])

    async def publish(self, who: Principal, message: Publish) -> None:
        """Retain it where asked to, and deliver it.

        amqtt delivers from a queue, a task for each receiver, at the subscription's QoS whatever the message's;
        a subscription that changes meanwhile ends the delivery with an error.
        """
        if message.retain:
            await self._retain(who, message)
        for session, granted in self._receivers(message.topic):
            qos = min(message.qos, granted)
            if session.connected:
                handler = self._sessions[session.client_id][1]
                assert isinstance(handler, ClientHandler)
                handler.deliver(message.topic, message.payload, qos)
            elif qos:
                session.enqueue(OutgoingApplicationMessage(None, message.topic, qos, message.payload, retain=False))

    def _receivers(self, topic: str) -> list[tuple[ClientSession, int]]:
        """Who gets messages on `topic`, each once, at the highest QoS of its matching subscriptions."""
        if (known := self._routes.get(topic)) is not None:
            return known
        best: dict[str, tuple[ClientSession, int]] = {}
        for topic_filter, subscriptions in self._subscriptions.items():
            if not rules.matches(topic_filter, topic):
                continue
            for session, qos in subscriptions:
                assert isinstance(session, ClientSession)
                if qos >= best.get(session.client_id, (session, 0))[1]:
                    best[session.client_id] = session, qos
        found = [each for each in best.values() if rules.may_read(each[0].principal, topic)]
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        self._routes[topic] = found
        return found

    async def _retain(self, who: Principal, message: Publish) -> None:
        old = self._retained_messages.get(message.topic)
        if isinstance(old, _Foreign):
            self._foreign_retained -= 1
            self._foreign_retained_bytes -= len(old.data)
        if who.role is Role.SUPERVISOR or not message.payload:
            await self.retain_message(None, message.topic, message.payload, message.qos)
            return
        if (
            self._foreign_retained >= self.limits.max_retained_messages
            or self._foreign_retained_bytes + len(message.payload) > self.limits.max_retained_bytes
        ):
            self._retained_messages.pop(message.topic, None)
            self._log.warning("not_retained", user=who.name, topic=message.topic[:200], why="too many already")
            return
        self._foreign_retained += 1
        self._foreign_retained_bytes += len(message.payload)
        self._retained_messages[message.topic] = _Foreign(None, message.topic, message.payload, message.qos)

    def retained_topics(self, topic_filter: str, who: Principal) -> list[str]:
        """Topics with a retained message that a new subscription to `topic_filter` gets."""
        if "+" not in topic_filter and "#" not in topic_filter:
            found = [topic_filter] if topic_filter in self._retained_messages else []
        else:
            found = [topic for topic in self._retained_messages if rules.matches(topic_filter, topic)]
        return [topic for topic in found if rules.may_read(who, topic)]

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Stock sends here what waited, marked as retained; ours went out when the handler started."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Stock calls it for every subscription of everybody when a client connects. Ours answer SUBSCRIBE only."""

    # Subscriptions

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        """The granted QoS, or 0x80. amqtt asks no rule, and keeps the first QoS when one subscribes again."""
        assert isinstance(session, ClientSession)
        topic_filter, qos = subscription
        if not rules.is_filter(topic_filter) or not rules.may_subscribe(session.principal, topic_filter):
            self._log.warning("subscribe_refused", user=session.principal.name, filter=topic_filter[:200])
            return _SUBACK_FAILURE
        if topic_filter not in session.filters and len(session.filters) >= self.limits.max_subscriptions:
            self._log.warning("subscribe_refused", user=session.principal.name, why="too many subscriptions")
            return _SUBACK_FAILURE
        self._del_subscription(topic_filter, session)
        granted = min(qos, _MAX_QOS)
        self._subscriptions.setdefault(topic_filter, []).append((session, granted))
        session.filters.add(topic_filter)
        return granted

    def unsubscribe(self, session: ClientSession, topic_filter: str) -> None:
        self._del_subscription(topic_filter, session)
        session.filters.discard(topic_filter)
        # amqtt keeps the empty list for ever.
        if not self._subscriptions.get(topic_filter, True):
            del self._subscriptions[topic_filter]

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        self._routes.clear()
        return super()._del_subscription(a_filter, session)


class _Foreign(RetainedApplicationMessage):
    """Retained for somebody else than the supervisor: these are bounded."""
