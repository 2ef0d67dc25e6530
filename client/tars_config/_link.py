"""The connection to the broker: kept up for ever, with the wanted retained state republished on each connection."""

import asyncio
import logging
import random
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiomqtt

from tars_config._broker import BrokerAddress

KEEPALIVE_S = 15
ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
FIRST_DELAY_S = 0.05
MAX_DELAY_S = 1.0
_STEADY_S = 5.0
REPUBLISH_AFTER_S = 0.5
_MAX_QUEUED = 256

_log = logging.getLogger(__name__)
# paho logs an error for each lost connection and failed attempt; the link tells it once.
_paho_log = logging.getLogger(f"{__name__}.paho")
_paho_log.setLevel(logging.CRITICAL)


class Link:
    """A few subscriptions and a dictionary of retained messages, over as many connections as it takes.

    `run` belongs to one task of the library. `put` and `receive` happen on the same event loop, so nothing here
    needs a lock. What was put is republished after every reconnect; the last value of a topic wins, and it counts
    as sent only when the broker has acknowledged it (QoS 1).
    """

    def __init__(
        self, address: BrokerAddress, receive: Mapping[str, Callable[[bytes], None]], *, own_topic: str
    ) -> None:
        """Whoever receives, by topic; without the first topic a connection is of no use, without the others it is.

        `own_topic` is one that we publish to and may read: it shows when our retained state was overwritten.
        """
        self._address = address
        self._receive = receive
        self._own_topic = own_topic
        self._said: deque[bytes] = deque(maxlen=8)
        self._again: asyncio.TimerHandle | None = None
        self._wanted: dict[str, bytes] = {}
        self._unsent: set[str] = set()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._will: aiomqtt.Will | None = None
        self._will_changed = asyncio.Event()
        self._tls = ssl.create_default_context() if address.tls else None
        # The same name on each connection, so that the broker ends a half-open predecessor when we return: its
        # last will then comes before what we republish, not after it.
        self._identifier = f"{address.user}-{secrets.token_hex(4)}" if address.user else None
        self._complained = False
        self._refused: frozenset[str] = frozenset()
        self.connected = False

    def put(self, topic: str, payload: bytes) -> None:
        """Want this retained message on the broker from now on."""
        self._wanted[topic] = payload
        self._unsent.add(topic)
        self._idle.clear()
        self._changed.set()

    def leave_will(self, topic: str, payload: bytes) -> None:
        """Have the broker publish this, retained, should the connection be lost.

        A will is part of the connection, so a first one costs one reconnect if the connection already stands.
        """
        if self._will is None or (self._will.topic, self._will.payload) != (topic, payload):
            self._will = aiomqtt.Will(topic, payload, qos=1, retain=True)
            self._will_changed.set()

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109 - a bound for the caller, who gives up, not fails
        """Wait until everything wanted is acknowledged; False if the time ran out or the broker is known to be away."""
        if not self._unsent:
            return True
        if self._complained and not self.connected:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        return not self._unsent

    async def run(self) -> None:
        """Connect, serve, reconnect; ends only by cancellation."""
        delay = FIRST_DELAY_S
        while True:
            began = time.monotonic()
            try:
                await self._serve_one_connection()
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                # ValueError: paho, on a host name or a password that it cannot encode.
                self._complain(error)
            else:
                delay = FIRST_DELAY_S
                continue
            finally:
                self.connected = False
            if time.monotonic() - began > _STEADY_S:
                delay = FIRST_DELAY_S
            # Jitter keeps the workers of one board from returning in step.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - not cryptography
            delay = min(delay * 2, MAX_DELAY_S)

    async def _serve_one_connection(self) -> None:
        """Serve until the connection fails (raises) or another last will is wanted (returns)."""
        self._will_changed.clear()
        client = _Client(
            self._address.host,
            self._address.port,
            username=self._address.user,
            password=self._address.password,
            identifier=self._identifier,
            clean_session=True,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_TIMEOUT_S,
            will=self._will,
            tls_context=self._tls,
            max_queued_incoming_messages=_MAX_QUEUED,
            logger=_paho_log,
        )
        async with client:
            await self._subscribe(client)
            self._unsent = set(self._wanted)
            self._changed.set()
            self.connected = True
            self._complained = False
            _log.info("connected to the broker at %s", self._address)
            parts = {
                asyncio.create_task(self._pass_on(client)),
                asyncio.create_task(self._send(client)),
                asyncio.create_task(self._will_changed.wait()),
            }
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
            finally:
                self.connected = False
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)
                if self._again is not None:
                    self._again.cancel()
                    self._again = None

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        topics = [*self._receive, self._own_topic]
        codes = await client.subscribe([(topic, 1) for topic in topics])
        values = [code if isinstance(code, int) else code.value for code in codes]
        refused = [topic for topic, value in zip(topics, values, strict=False) if value >= 0x80]
        if topics[0] in refused:
            raise aiomqtt.MqttError(f"the broker refuses the subscription to {topics[0]}")
        for topic in set(refused) - self._refused:
            _log.warning("the broker refuses the subscription to %s: its rules have to let us read it", topic)
        self._refused = frozenset(refused)

    async def _pass_on(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic = str(message.topic)
            if topic == self._own_topic:
                self._look_after_own(message.payload)
            elif topic in self._receive:
                self._receive[topic](message.payload)

    def _look_after_own(self, payload: bytes) -> None:
        """Say everything again if somebody else had the last word on our topic.

        Two races end here: a supervisor clears the topics of the instance before us when we have already reported
        (its broker was away meanwhile), and the last will of a connection that we thought closed comes late. The
        pause lets a supervisor clear both topics, and bounds a quarrel between two instances.
        """
        foreign = not payload or (self._own_topic in self._wanted and payload not in self._said)
        if foreign and self._again is None:
            self._again = asyncio.get_running_loop().call_later(REPUBLISH_AFTER_S, self._say_again)

    def _say_again(self) -> None:
        self._again = None
        if self._wanted:
            self._unsent = set(self._wanted)
            self._idle.clear()
            self._changed.set()

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._will_changed.is_set():
                return  # what is said from now on is said under the new will
            for topic in sorted(self._unsent):
                payload = self._wanted[topic]
                if topic == self._own_topic:
                    self._said.append(payload)
                await client.publish(topic, payload, qos=1, retain=True)
                if self._wanted[topic] is payload:
                    self._unsent.discard(topic)
            if self._unsent:
                self._changed.set()
            else:
                self._idle.set()

    def _complain(self, error: Exception) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        _log.log(level, "no connection to the broker at %s: %s; trying on", self._address, error)


class _Client(aiomqtt.Client):
    """aiomqtt's client, mended where a connection attempt ends badly (seen with 2.5.1 and paho 2.2).

    - A broker that closes before its CONNACK is noticed at once, not after the whole timeout.
    - An attempt that times out or is cancelled leaves no socket, reader or task behind.
    """

    def __init__(self, hostname: str, port: int, **options: Any) -> None:
        super().__init__(hostname, port, **options)
        self._client.connect_timeout = CONNECT_TIMEOUT_S

    async def __aenter__(self) -> Self:
        entering = asyncio.ensure_future(super().__aenter__())
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The TCP connection is made in a thread, which cannot be cancelled: wait for it (2 s at most), or its
            # socket would be registered with a loop that is about to close. The answer to CONNECT is not waited for.
            self.timeout = 0
            if self._client.socket() is not None:
                entering.cancel()
            await asyncio.wait({entering})
            if not entering.cancelled():
                entering.exception()
            self._drop()
            raise
        except BaseException:
            self._drop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc, tb)
        finally:
            self._drop()
            if self._disconnected.done() and not self._disconnected.cancelled():
                self._disconnected.exception()  # retrieved, or asyncio complains when it is collected

    def _drop(self) -> None:
        # paho's own disconnect() only queues a DISCONNECT, for a loop that may never turn again.
        self._client._sock_close()  # noqa: SLF001 - there is no public way to close at once
        if self._misc_task is not None:
            self._misc_task.cancel()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if self._connected.cancelled():
            return  # the attempt was given up; aiomqtt would raise in paho's callback
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(f"closed before it answered ({reason_code})"))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
