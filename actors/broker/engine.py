"""amqtt's broker with the parts replaced that did not hold.

amqtt 0.12.1 keeps the sessions, the subscriptions, the retained messages and the life of a connection from CONNECT
to its end. Each override, here and in `handler`, says which of its faults it is for; they rest on private members,
hence the exact pin.
"""

import asyncio
from typing import Any

from amqtt.broker import Broker, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage, Session

from actors.broker import rules
from actors.broker.handler import ClientHandler
from actors.broker.link import Link
from actors.broker.log import Log
from actors.broker.rules import Principal, Role
from actors.broker.session import Budget, ClientSession
from actors.broker.settings import Limits
from actors.mqtt import topics
from actors.mqtt.packets import SUBACK_FAILURE, Publish

LISTENER = "default"
_MAX_QOS = 1
"""Granted at most; MQTT 3.1.1, section 3.8.4, allows less than was asked for."""
_ROUTES = 4096
"""Topics whose receivers are remembered."""


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
        self._budget = Budget(limits.max_message_bytes)
        self._budgets: dict[str, Budget] = {}
        self._routes: dict[str, list[tuple[ClientSession, int]]] = {}
        self._foreign_retained = 0
        self._foreign_retained_bytes = 0

    # The life of a connection

    def has_session(self, session_id: str) -> bool:
        return session_id in self._sessions

    def session_count(self, who: Principal | None = None) -> int:
        """Of all users, or of one."""
        if who is None:
            return len(self._sessions)
        return sum(session_id.startswith(f"{who.name}/") for session_id in self._sessions)

    def _budget_of(self, who: Principal) -> Budget:
        """Of what waits for one user's clients, which must not keep others from theirs, and never the supervisor."""
        if who.name not in self._budgets:
            is_supervisor = who.role is Role.SUPERVISOR
            self._budgets[who.name] = (
                Budget(self.limits.max_message_bytes)
                if is_supervisor
                else Budget(self.limits.max_user_message_bytes, self._budget)
            )
        return self._budgets[who.name]

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
            session = ClientSession(link, self.limits, self._budget_of(link.principal))
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

    def accept(self, session: ClientSession, message: Publish) -> None:
        """Take a client's message. A forbidden one is dropped: MQTT 3.1.1 has no answer that says so."""
        if rules.may_publish(session.principal, message.topic):
            self.publish(session.principal, message)
            return
        session.refused += 1
        if session.refused == 1:
            self._log.warning("publish_refused", user=session.principal.name, topic=message.topic[:200])

    def publish(self, who: Principal, message: Publish) -> None:
        """Retain it where asked to, and deliver it.

        amqtt delivers from a queue, a task for each receiver, at the subscription's QoS whatever the message's;
        a subscription that changes meanwhile ends the delivery with an error.
        """
        if message.retain:
            self._retain(who, message)
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
            if not topics.matches(topic_filter, topic):
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

    def _retain(self, who: Principal, message: Publish) -> None:
        old = self._retained_messages.get(message.topic)
        if isinstance(old, _Foreign):
            self._foreign_retained -= 1
            self._foreign_retained_bytes -= len(old.data)
        if not message.payload:
            self._retained_messages.pop(message.topic, None)
            return
        if who.role is Role.SUPERVISOR:
            kept = RetainedApplicationMessage(None, message.topic, message.payload, message.qos)
            self._retained_messages[message.topic] = kept
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
            found = [topic for topic in self._retained_messages if topics.matches(topic_filter, topic)]
        return [topic for topic in found if rules.may_read(who, topic)]

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Stock sends here what waited, marked as retained; ours went out when the handler started."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Stock calls it for every subscription of everybody when a client connects. Ours answer SUBSCRIBE only."""

    # Subscriptions

    def subscribe(self, session: ClientSession, topic_filter: str, qos: int) -> int:
        """The granted QoS, or 0x80. amqtt asks no rule, and keeps the first QoS when one subscribes again."""
        if not topics.is_filter(topic_filter) or not rules.may_subscribe(session.principal, topic_filter):
            self._log.warning("subscribe_refused", user=session.principal.name, filter=topic_filter[:200])
            return SUBACK_FAILURE
        if topic_filter not in session.filters and len(session.filters) >= self.limits.max_subscriptions:
            self._log.warning("subscribe_refused", user=session.principal.name, why="too many subscriptions")
            return SUBACK_FAILURE
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
