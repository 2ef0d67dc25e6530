"""The bridge's actor: a mailbox in front of the session."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from actors.bridge._desired import Desired, Handler, Message
from actors.bridge._session import Session, Timing
from actors.bridge._state import BridgeState
from actors.runtime import Actor, Handle
from actors.signer import SignerActor, Unsigned
from schemas.broker_address import BrokerAddress

FLUSH = 1.0
"""Seconds that an orderly stop may take to publish what is pending."""


class BridgeActor(Actor):
    """The supervisor's only MQTT client: keeps what the broker retains equal to what is wanted.

    All methods return at once, connected or not, and may be told. What is wanted stays wanted: it is published
    again after every reconnect, because the broker may have forgotten it. Retained values and messages of `send`
    are each in order, but not with regard to one another.

    `address`: the broker, or what tells it (None: not known yet), asked before every attempt. `will`: topic and
    payload of the last will, asked at every connect; should the broker publish it while we are connected, which
    happens when an older connection of ours times out, what is wanted there is published again.
    `on_state`: connected or not, or a new reason why not. `on_acknowledged`: gets the token of a retained
    content when its PUBACK came, once for each `retain`; a content that was replaced before it was sent is
    never reported. Both are called on the loop, must not block, and should only tell.
    `desired`: pass one object to each incarnation of this actor, and a restart of it loses nothing.
    `mirrors`: topics, with `{service}` in them, where each signed update goes too, at QoS 1 and not retained.

    The session's task is spawned by this actor and ends with it on every path: after an orderly stop with
    DISCONNECT, so that no last will is published; after a failure or a cancellation without, so that it is.
    """

    def __init__(
        self,
        address: BrokerAddress | Callable[[], BrokerAddress | None],
        *,
        signer: Handle[SignerActor],
        will: Callable[[], tuple[str, bytes]],
        on_state: Callable[[BridgeState], None] = lambda _: None,
        on_acknowledged: Callable[[Any], None] = lambda _: None,
        mirrors: Sequence[str] = (),
        desired: Desired | None = None,
        timing: Timing | None = None,
        tls_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        super().__init__()
        self._desired = Desired() if desired is None else desired
        self._session = Session(
            (lambda: address) if isinstance(address, BrokerAddress) else address,
            desired=self._desired,
            # In place: an ask would take two turns of the loop and half as long again as the signature itself.
            sign=lambda unsigned: signer.call(SignerActor.sign, unsigned),
            will=will,
            on_state=on_state,
            on_acknowledged=on_acknowledged,
            mirrors=mirrors,
            timing=timing,
            tls_context=tls_context,
        )
        self._running: asyncio.Task[None] | None = None

    def on_start(self) -> None:
        self._running = self.spawn(self._session.run(), name="bridge session")

    async def on_stop(self) -> None:
        await self._session.leave(FLUSH)

    def retain(self, topic: str, content: bytes | Unsigned, token: Any = None) -> None:
        """Want `content` retained on `topic`, QoS 1, instead of what was wanted there; `b""` clears the topic.

        An `Unsigned` is signed when it is published, and again in time. A cleared topic is forgotten when the
        broker has acknowledged it.

        Raises:
            ValueError: it is not the name of a topic.
        """
        self._desired.retain(topic, content, token)
        self._session.wake()

    def send(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish a message that is not retained.

        At QoS 1 it is sent again where the connection broke before its PUBACK, so it may arrive twice. While
        the broker is away at most 1000 messages and 4 MiB wait; then the oldest is dropped, and counted.

        Raises:
            ValueError: it is not the name of a topic, or another QoS than 0 or 1.
        """
        if qos not in {0, 1}:
            raise ValueError(f"QoS is 0 or 1, not {qos}")
        self._desired.send(Message(topic, payload, qos))
        self._session.wake()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Call `handler(topic, payload)` for each message that matches, now and after every reconnect, QoS 1.

        Payloads over 512 KiB are dropped. The handler runs on the loop and must not block; what it raises is
        logged. Subscribing to a filter again makes the broker send its retained messages again, to all handlers.

        Raises:
            ValueError: it is not a topic filter.
        """
        self._desired.subscribe(topic_filter, handler)
        self._session.subscribe(topic_filter)

    def resign(self) -> None:
        """Sign and publish every unsigned content anew, as when the key has changed."""
        self._desired.sign_again()
        self._session.wake()

    def status(self) -> BridgeState:
        return self._session.state()
