"""MQTT 3.1.1 on the wire, as far as we read and write it ourselves: framing, and packets of either side.

Pure functions over bytes from strangers: whatever the input, they return a value or raise `ProtocolError`.
Section numbers are those of the specification (OASIS, MQTT Version 3.1.1).
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from enum import IntEnum

from actors.mqtt.topics import is_topic

MQTT_3_1_1 = 4
MQTT_5 = 5
SUBACK_FAILURE = 0x80
_LENGTH_BYTES = 4
_MAX_FILTERS = 1000


class Kind(IntEnum):
    """Control packet types, section 2.2.1."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREL = 6
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Refusal(IntEnum):
    """CONNACK return codes, section 3.2.2.3."""

    PROTOCOL_VERSION = 1
    IDENTIFIER = 2
    UNAVAILABLE = 3
    CREDENTIALS = 4
    NOT_AUTHORIZED = 5


class ProtocolError(Exception):
    """The other side broke the protocol or one of our bounds; its connection ends."""


class PacketTooLarge(ProtocolError):
    """`first`: the packet's first byte; `length`: bytes that it has after its fixed header."""

    def __init__(self, first: int, length: int, limit: int) -> None:
        super().__init__(f"packet of {length} bytes, allowed are {limit}")
        self.first = first
        self.length = length


class BadTopic(ProtocolError):
    """What a message names as its topic is none. `packet_id`: the message's, 0 at QoS 0."""

    def __init__(self, problem: str, packet_id: int) -> None:
        super().__init__(problem)
        self.packet_id = packet_id


class UnsupportedVersion(ProtocolError):
    def __init__(self, level: int) -> None:
        super().__init__(f"protocol level {level}, where MQTT 3.1.1 has {MQTT_3_1_1}")
        self.level = level


@dataclass(frozen=True, slots=True)
class Publish:
    """A message as published, or a last will (which has no packet id)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class Connect:
    client_id: str
    clean_session: bool
    keep_alive: int
    """Seconds; 0 where the client wants no watch over its silence."""
    username: str | None
    password: bytes | None
    will: Publish | None


class Framer:
    """Cuts a byte stream into packets. `limit`: bytes that a packet may have after its fixed header."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._start = 0
        # Body and length of a packet that is too large; and how much of one that is passed over has still to come.
        self._too_large = (0, 0)
        self._left_out = 0

    def feed(self, data: bytes | memoryview) -> None:
        if self._left_out:
            gone = min(self._left_out, len(data))
            self._left_out -= gone
            data = data[gone:]
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """The next packet's first byte and body; None until more is fed.

        Raises ProtocolError as soon as the length is malformed or over the limit (`PacketTooLarge`), before the
        body is there.
        """
        buffer, start = self._buffer, self._start
        length = shift = 0
        for at in range(start + 1, min(len(buffer), start + 1 + _LENGTH_BYTES)):
            byte = buffer[at]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        else:
            if len(buffer) > start + _LENGTH_BYTES:
                raise ProtocolError("malformed remaining length")
            self._forget()
            return None
        if length > self.limit:
            self._too_large = (at + 1, length)
            raise PacketTooLarge(buffer[start], length, self.limit)
        end = at + 1 + length
        if len(buffer) < end:
            self._forget()
            return None
        self._start = end
        return buffer[start], bytes(buffer[at + 1 : end])

    def pass_over(self, keep: int) -> bytes | None:
        """After PacketTooLarge: the first `keep` bytes of that packet's body; the rest is dropped as it comes.

        None until those bytes are there, which `next` says with another PacketTooLarge after more was fed.
        """
        body, length = self._too_large
        if len(self._buffer) < body + min(keep, length):
            self._forget()
            return None
        head = bytes(self._buffer[body : body + min(keep, length)])
        self._start = min(len(self._buffer), body + length)
        self._left_out = body + length - self._start
        self._forget()
        return head

    def first_byte(self) -> int | None:
        """First byte of the next packet, as soon as it is there."""
        return self._buffer[self._start] if len(self._buffer) > self._start else None

    def _forget(self) -> None:
        """Drop what was handed out: once for each read, not once for each packet."""
        del self._buffer[: self._start]
        self._start = 0


class _Cursor:
    """Reads fields from a packet's body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise ProtocolError("packet ends within a field")
        field = self._body[self._at : end]
        self._at = end
        return field

    def byte(self) -> int:
        return self.take(1)[0]

    def word(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def binary(self) -> bytes:
        return self.take(self.word())

    def text(self) -> str:
        """Section 1.5.3: well-formed UTF-8, without surrogates (which Python refuses too) and U+0000."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise ProtocolError("text is not UTF-8") from None
        if "\0" in text:
            raise ProtocolError("null character in text")
        return text

    def packet_id(self) -> int:
        if (packet_id := self.word()) == 0:
            raise ProtocolError("packet id 0")
        return packet_id

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)

    @property
    def at_end(self) -> bool:
        return self._at == len(self._body)


def parse_connect(body: bytes) -> Connect:
    """Section 3.1. Raises UnsupportedVersion for another version of MQTT, before looking at the rest."""
    cursor = _Cursor(body)
    name, level = cursor.text(), cursor.byte()
    if (name, level) != ("MQTT", MQTT_3_1_1):
        if name in ("MQTT", "MQIsdp"):  # the latter is MQTT 3.1
            raise UnsupportedVersion(level)
        raise ProtocolError("not MQTT")
    flags = cursor.byte()
    has_will, will_qos, will_retain = bool(flags & 0x04), flags >> 3 & 3, bool(flags & 0x20)
    has_password, has_username = bool(flags & 0x40), bool(flags & 0x80)
    if flags & 0x01:
        raise ProtocolError("reserved flag is set")
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):
        raise ProtocolError("contradictory flags of the last will")
    if has_password and not has_username:
        raise ProtocolError("password without user name")
    keep_alive = cursor.word()
    client_id = cursor.text()
    will = None
    if has_will:
        topic = cursor.text()
        if not is_topic(topic):
            raise ProtocolError("invalid topic of the last will")
        will = Publish(topic, cursor.binary(), will_qos, will_retain)
    username = cursor.text() if has_username else None
    password = cursor.binary() if has_password else None
    if not cursor.at_end:
        raise ProtocolError("bytes after the end of CONNECT")
    return Connect(client_id, bool(flags & 0x02), keep_alive, username, password, will)


def parse_publish(flags: int, body: bytes) -> Publish:
    """Section 3.3. The packet that matters for speed: cut by hand, and not with a cursor.

    Raises BadTopic where only the topic is wrong, for readers who can do without the message.
    """
    qos = flags >> 1 & 3
    if qos == 3 or (flags & 0x08 and not qos):
        raise ProtocolError("invalid flags of PUBLISH")
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + 2 if qos else end
    if len(body) < start:
        raise ProtocolError("packet ends within a field")
    packet_id = int.from_bytes(body[end:start], "big")
    if qos and not packet_id:
        raise ProtocolError("packet id 0")
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError:
        raise BadTopic("the topic is not UTF-8", packet_id) from None
    if not is_topic(topic):
        raise BadTopic("invalid topic name", packet_id)
    return Publish(topic, body[start:], qos, bool(flags & 1), packet_id)


def parse_subscribe(body: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Section 3.8: packet id, and each filter (of whatever syntax) with the QoS asked for."""
    cursor = _Cursor(body)
    packet_id = cursor.packet_id()
    wanted = []
    while not cursor.at_end:
        topic_filter, qos = cursor.text(), cursor.byte()
        if qos > 2:
            raise ProtocolError("invalid QoS in SUBSCRIBE")
        wanted.append((topic_filter, qos))
        _check_count(wanted)
    if not wanted:
        raise ProtocolError("SUBSCRIBE without a filter")
    return packet_id, wanted


def parse_unsubscribe(body: bytes) -> tuple[int, list[str]]:
    """Section 3.10."""
    cursor = _Cursor(body)
    packet_id = cursor.packet_id()
    filters = []
    while not cursor.at_end:
        filters.append(cursor.text())
        _check_count(filters)
    if not filters:
        raise ProtocolError("UNSUBSCRIBE without a filter")
    return packet_id, filters


def _check_count(filters: Sized) -> None:
    if len(filters) > _MAX_FILTERS:
        raise ProtocolError(f"more than {_MAX_FILTERS} filters in one packet")


def parse_packet_id(body: bytes) -> int:
    """The body of PUBACK and PUBREL."""
    packet_id = int.from_bytes(body, "big")
    if len(body) != 2 or not packet_id:
        raise ProtocolError("a packet id is two bytes, and not 0")
    return packet_id


def parse_connack(body: bytes) -> int:
    """Section 3.2: the return code, 0 where the connection is accepted."""
    if len(body) != 2 or body[0] > 1:
        raise ProtocolError("malformed CONNACK")
    return body[1]


def parse_suback(body: bytes) -> tuple[int, list[int]]:
    """Section 3.9: packet id, and for each filter the QoS granted or `SUBACK_FAILURE`."""
    codes = list(body[2:])
    if not codes or not set(codes) <= {0, 1, 2, SUBACK_FAILURE}:
        raise ProtocolError("malformed SUBACK")
    return parse_packet_id(body[:2]), codes


def connect(it: Connect) -> bytes:
    """Section 3.1."""
    flags = it.clean_session << 1
    fields = [_text(it.client_id)]
    if it.will is not None:
        flags |= 0x04 | it.will.qos << 3 | it.will.retain << 5
        fields += [_text(it.will.topic), _binary(it.will.payload)]
    if it.username is not None:
        flags |= 0x80
        fields.append(_text(it.username))
    if it.password is not None:
        flags |= 0x40
        fields.append(_binary(it.password))
    return _packet(0x10, _text("MQTT"), bytes((MQTT_3_1_1, flags)), it.keep_alive.to_bytes(2, "big"), *fields)


def connack_refused(refusal: Refusal) -> bytes:
    return bytes((0x20, 2, 0, refusal))


CONNACK_NOT_MQTT_5 = b"\x20\x03\x00\x84\x00"
"""CONNACK in the form of MQTT 5 (its section 3.2): unsupported protocol version, no properties. A client of
that version waits for ever, or complains of malformed packets, when it gets the form of 3.1.1."""


def publish(
    topic: bytes, payload: bytes, *, qos: int = 0, packet_id: int = 0, retain: bool, dup: bool = False
) -> bytes:
    head = 0x30 | dup << 3 | qos << 1 | retain
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    length = 2 + len(topic) + len(identifier) + len(payload)
    return b"".join((bytes((head,)), _varint(length), len(topic).to_bytes(2, "big"), topic, identifier, payload))


def subscribe(packet_id: int, wanted: Sequence[tuple[str, int]]) -> bytes:
    """Section 3.8: filters, each with the QoS that is asked for."""
    return _packet(
        0x82, packet_id.to_bytes(2, "big"), *(_text(topic_filter) + bytes((qos,)) for topic_filter, qos in wanted)
    )


def suback(packet_id: int, codes: list[int]) -> bytes:
    return _packet(0x90, packet_id.to_bytes(2, "big"), bytes(codes))


def unsuback(packet_id: int) -> bytes:
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def pubrec(packet_id: int) -> bytes:
    return b"\x50\x02" + packet_id.to_bytes(2, "big")


def pubcomp(packet_id: int) -> bytes:
    return b"\x70\x02" + packet_id.to_bytes(2, "big")


PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"


def _packet(first: int, *fields: bytes) -> bytes:
    body = b"".join(fields)
    return bytes((first,)) + _varint(len(body)) + body


def _text(text: str) -> bytes:
    return _binary(text.encode())


def _binary(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _varint(number: int) -> bytes:
    """Remaining length, section 2.2.3."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
