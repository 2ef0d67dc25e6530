"""One connection to the broker, from its socket to its end: the client's side of MQTT 3.1.1, QoS 0 and 1.

Nothing waits once it is open. What is to go out collects until `flush`, so that what belongs together leaves in one
send. What comes in is handled as it is read, and what that made us say leaves at the end of the read. Section
numbers are those of the specification (OASIS, MQTT Version 3.1.1).
"""

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Sequence
from typing import Protocol, cast

from actors.bridge._dial import dial
from actors.bridge._state import LinkFailed, Trouble
from actors.mqtt import packets
from actors.mqtt.packets import BadTopic, Connect, Framer, Kind, PacketTooLarge, ProtocolError, Publish, Refusal
from schemas.broker_address import BrokerAddress

logger = logging.getLogger(__name__)

LARGEST_PAYLOAD = 512 * 1024
"""Bytes of a received message; what is over that is dropped as it comes, and never kept."""

_HEAD = 2 + 65535 + 2
"""Bytes of a PUBLISH before its payload, at most: its topic and its packet identifier."""
_READ = 16 * 1024
_HIGH_WATER = 256 * 1024
_MOST_ANSWERS = 1024 * 1024
"""Bytes of answers that we keep for a broker that does not read."""
_FILTERS_PER_PACKET = 100
_FAREWELL = 0.5
_IDENTIFIERS = 65535

_CONNACK, _PUBACK, _SUBACK, _PINGRESP = (kind << 4 for kind in (Kind.CONNACK, Kind.PUBACK, Kind.SUBACK, Kind.PINGRESP))
_REFUSALS: dict[int, str] = {
    Refusal.PROTOCOL_VERSION: "unsupported protocol version",
    Refusal.IDENTIFIER: "client identifier not valid",
    Refusal.UNAVAILABLE: "server unavailable",
    Refusal.CREDENTIALS: "bad user name or password",
    Refusal.NOT_AUTHORIZED: "not authorized",
}


class Events(Protocol):
    """What a link tells, on the loop's thread; none of these may raise."""

    def on_puback(self, mid: int) -> None: ...
    def on_message(self, topic: str, payload: bytes) -> None: ...
    def on_room(self) -> None:
        """The broker reads again."""

    def on_closed(self) -> None: ...


class Link(asyncio.BufferedProtocol):
    """A connection from its first byte to its end; it is not used again.

    Whoever opened it calls `leave` or `abort` in the end, whatever happened. The socket itself is closed in the next
    turn of the loop, as asyncio does it.
    """

    def __init__(self, address: BrokerAddress, *, will: tuple[str, bytes], keep_alive: int, events: Events) -> None:
        self._address = address
        self._will = will
        self._keep_alive = keep_alive
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(_READ))
        self._framer = Framer(_HEAD + LARGEST_PAYLOAD)
        self._accepted = False
        self._answered = asyncio.Event()
        self._gone = asyncio.Event()

        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._is_full = False
        # What is not acknowledged, by packet identifier: the filters of a SUBSCRIBE, or None for a PUBLISH.
        self._awaited: dict[int, Sequence[str] | None] = {}
        self._last_identifier = 0

        self._heard = self._said = self._loop.time()
        self._pinged: float | None = None
        self.failure: LinkFailed | None = None
        self.ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        return self.failure is None

    @property
    def has_room(self) -> bool:
        """Whether it is alive and what was published before is on its way: if not, `on_room` or `on_closed` will come."""
        return not self._is_full and self.failure is None

    async def open(self, tls: ssl.SSLContext | None) -> None:
        """Connect and log in. Without a deadline of its own.

        Raises:
            LinkFailed: it was refused, or could not be made.
        """
        await dial(self._address, tls, self)
        self._put(packets.connect(self._login()))
        self.flush()
        await self._answered.wait()
        if self.failure is not None:
            raise self.failure

    def _login(self) -> Connect:
        user, password = self._address.user, self._address.password
        return Connect(
            # Brokers that tie client ids to users want the user's name in front.
            client_id=f"{user or 'tars-supervisor'}-{secrets.token_hex(8)}",
            clean_session=True,
            keep_alive=self._keep_alive,
            username=user,
            password=None if password is None else password.encode(),
            will=Publish(*self._will, qos=1, retain=True),
        )

    # -- going out

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        """Have a message go out with the next `flush`; give its packet identifier, which `on_puback` will name."""
        identifier = 0
        if qos:
            identifier = self._identifier()
            self._awaited[identifier] = None
        self._put(packets.publish(topic.encode(), payload, qos=qos, packet_id=identifier, retain=retain))
        return identifier

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for subscriptions at QoS 1 with the next `flush`. A refused one is logged."""
        for start in range(0, len(filters), _FILTERS_PER_PACKET):
            some = filters[start : start + _FILTERS_PER_PACKET]
            identifier = self._identifier()
            self._awaited[identifier] = some
            self._put(packets.subscribe(identifier, [(each, 1) for each in some]))

    def keep_alive(self) -> None:
        """To be called about once a second: sends PINGREQ when it is due, and notices that no answer came (3.1.2.10)."""
        now = self._loop.time()
        if self._pinged is not None:
            if now - self._pinged >= self._keep_alive:
                self.fail(Trouble.SILENT, f"the broker at {self._address} has gone silent")
        elif now - min(self._heard, self._said) >= self._keep_alive:
            self._pinged = now
            self._put(packets.PINGREQ)
            self.flush()

    def flush(self) -> None:
        """Send what has collected; while the broker does not read, later."""
        if not self._unsent or self._transport is None or self.failure is not None:
            return
        if self._is_full:
            if self._unsent_bytes > _MOST_ANSWERS:
                self.fail(Trouble.SILENT, f"the broker at {self._address} sends, and does not read what we answer")
            return
        self._said = self._loop.time()
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._transport.write(data)

    def _put(self, packet: bytes) -> None:
        self._unsent.append(packet)
        self._unsent_bytes += len(packet)

    def _identifier(self) -> int:
        """One that is not in use (2.3.1)."""
        assert len(self._awaited) < _IDENTIFIERS, "the window is far smaller"
        while True:
            self._last_identifier = self._last_identifier % _IDENTIFIERS + 1
            if self._last_identifier not in self._awaited:
                return self._last_identifier

    # -- the end

    def fail(self, trouble: Trouble, reason: str) -> None:
        """Take the connection for dead."""
        if self.failure is None:
            self.failure = LinkFailed(trouble, reason)
            self._answered.set()
            self.ended.set()
            self._events.on_closed()

    async def leave(self) -> None:
        """Send DISCONNECT, so that the broker forgets our last will, and close; takes at most half a second.

        What the broker still sends is read until it has closed, too: if anything is unread when a socket is closed, the
        kernel resets the connection, and the broker may never see the DISCONNECT.
        """
        transport = self._transport
        try:
            if transport is not None and self.failure is None and not transport.is_closing():
                self._put(packets.DISCONNECT)
                self._send()
                self.fail(Trouble.CLOSED, "closed by us")
                if transport.can_write_eof():
                    transport.write_eof()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL):
                        await self._gone.wait()
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once; the broker publishes our last will."""
        self.fail(Trouble.CLOSED, "closed by us")
        if self._transport is not None:
            self._transport.abort()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's hint is always "any"
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.failure is not None:
            return
        self._heard = self._loop.time()
        try:
            self._framer.feed(self._buffer[:nbytes])
            while self.failure is None and (packet := self._next()) is not None:
                self._handle(*packet)
        except ProtocolError as error:
            logger.warning("the broker at %s sent something that MQTT 3.1.1 does not know: %s", self._address, error)
            self.fail(Trouble.PROTOCOL, f"what the broker at {self._address} sends is not MQTT 3.1.1")
        self.flush()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self.flush()
        self._events.on_room()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it is, it is over
        self._gone.set()
        self.fail(Trouble.CLOSED, f"the broker at {self._address} closed the connection")

    # -- coming in

    def _next(self) -> tuple[int, bytes] | None:
        """The next packet that is to be handled; ProtocolError as early as it can be known."""
        try:
            packet = self._framer.next()
        except PacketTooLarge as large:
            if large.first >> 4 != Kind.PUBLISH or not self._accepted:
                raise
            if (head := self._framer.pass_over(_HEAD)) is not None:
                self._on_publish(large.first, head, large.length - len(head))
            return None
        if packet is None and (first := self._framer.first_byte()) is not None:
            self._check(first)
        return packet

    def _check(self, first: int) -> None:
        """Whether a packet may begin like that, before the rest of it is waited for."""
        expected = (_PUBACK, _SUBACK, _PINGRESP) if self._accepted else (_CONNACK,)
        if first not in expected and not (self._accepted and first >> 4 == Kind.PUBLISH):
            raise ProtocolError(f"a packet that begins with {first:#04x} is not expected")

    def _handle(self, first: int, body: bytes) -> None:
        if not self._accepted:
            self._check(first)
            self._on_connack(packets.parse_connack(body))
        elif first == _PUBACK:
            self._on_puback(packets.parse_packet_id(body))
        elif first >> 4 == Kind.PUBLISH:
            self._on_publish(first, body)
        elif first == _SUBACK:
            self._on_suback(*packets.parse_suback(body))
        else:
            self._check(first)
            if body:
                raise ProtocolError("PINGRESP has no body")
            self._pinged = None

    def _on_connack(self, code: int) -> None:
        if code == 0:
            self._accepted = True
            self._answered.set()
            return
        why = _REFUSALS.get(code, f"return code {code}")
        if code in (Refusal.CREDENTIALS, Refusal.NOT_AUTHORIZED):
            who = "without a user name" if self._address.user is None else f"as {self._address.user!r}"
            self.fail(
                Trouble.LOGIN_REFUSED,
                f"the broker at {self._address} refuses our login {who}: {why}; "
                "check user name and password in MQTT_URL",
            )
        else:
            self.fail(Trouble.PROTOCOL, f"the broker at {self._address} refuses the connection: {why}")

    def _on_puback(self, identifier: int) -> None:
        # What acknowledges nothing of ours is of no consequence (Mosquitto and paho think so too).
        if self._awaited.get(identifier, ()) is None:
            del self._awaited[identifier]
            self._events.on_puback(identifier)

    def _on_suback(self, identifier: int, codes: Sequence[int]) -> None:
        filters = self._awaited.get(identifier)
        if filters is None:
            return
        if len(codes) != len(filters):
            raise ProtocolError("SUBACK of another number of filters")
        del self._awaited[identifier]
        for topic_filter, code in zip(filters, codes, strict=True):
            if code == packets.SUBACK_FAILURE:
                logger.error(
                    "the broker at %s refuses us the subscription of %s: its rules must let our login read that",
                    self._address,
                    topic_filter,
                )

    def _on_publish(self, first: int, body: bytes, left_out: int = 0) -> None:
        """`left_out`: how much of a payload that is too large anyway is not in `body`."""
        if first & 0x04:
            raise ProtocolError("a message of QoS 2, where subscriptions are of QoS 1")
        try:
            message = packets.parse_publish(first & 0x0F, body)
        except BadTopic as bad:
            # Some client's fault that the broker let pass: no reason to be without a connection.
            logger.warning("dropped a message: %s", bad)
            identifier = bad.packet_id
        else:
            identifier = message.packet_id
            size = len(message.payload) + left_out
            if size <= LARGEST_PAYLOAD:
                self._events.on_message(message.topic, message.payload)
            else:
                logger.warning(
                    "dropped a message of %d bytes on %s: at most %d are taken",
                    size,
                    message.topic[:200],
                    LARGEST_PAYLOAD,
                )
        if identifier:
            self._put(packets.puback(identifier))
