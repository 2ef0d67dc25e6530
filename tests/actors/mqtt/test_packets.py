import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.mqtt import packets
from actors.mqtt.packets import (
    BadTopic,
    Connect,
    Framer,
    Kind,
    PacketTooLarge,
    ProtocolError,
    Publish,
    UnsupportedVersion,
)
from tests.actors.broker.clients import connect_packet, packet, text
from tests.brokers import SUPERVISOR

names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
topic_names = names.filter(lambda name: name and not set(name) & set("+#") and name.count("/") < 200)
messages = st.builds(
    Publish,
    topic=topic_names,
    payload=st.binary(max_size=300),
    qos=st.integers(0, 2),
    retain=st.booleans(),
)


def body_of(data: bytes) -> bytes:
    framer = Framer(1 << 28)
    framer.feed(data)
    found = framer.next()
    assert found is not None
    return found[1]


@given(
    client_id=names,
    clean=st.booleans(),
    keep_alive=st.integers(0, 65535),
    will=st.none() | messages,
    with_login=st.booleans(),
)
def test_connect_is_read_as_it_was_written(client_id, clean, keep_alive, will, with_login):
    login = SUPERVISOR if with_login else None
    data = connect_packet(login, client_id=client_id, clean=clean, keep_alive=keep_alive, will=will)

    assert packets.parse_connect(body_of(data)) == Connect(
        client_id=client_id,
        clean_session=clean,
        keep_alive=keep_alive,
        username=login and login.name,
        password=login and login.password.encode(),
        will=will,
    )


@given(st.binary(max_size=200))
def test_any_bytes_as_connect_are_read_or_refused(body):
    with contextlib.suppress(ProtocolError):
        packets.parse_connect(body)


@given(messages, st.data())
def test_a_damaged_connect_is_read_or_refused(will, data):
    """Random bytes rarely get past the protocol's name."""
    body = bytearray(body_of(connect_packet(SUPERVISOR, client_id="supervisor-1", will=will)))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        packets.parse_connect(bytes(body[: data.draw(st.integers(0, len(body)))]))


@given(st.integers(0, 15), st.binary(max_size=100))
def test_any_bytes_as_other_packets_are_read_or_refused(flags, body):
    with contextlib.suppress(ProtocolError):
        packets.parse_publish(flags, body)
    for parse in (packets.parse_subscribe, packets.parse_unsubscribe, packets.parse_packet_id):
        with contextlib.suppress(ProtocolError):
            parse(body)


@given(messages, st.integers(1, 65535))
def test_publish_is_read_as_it_was_written(message, packet_id):
    data = packets.publish(
        message.topic.encode(), message.payload, qos=message.qos, packet_id=packet_id, retain=message.retain
    )
    expected = Publish(message.topic, message.payload, message.qos, message.retain, packet_id if message.qos else 0)
    assert packets.parse_publish(data[0] & 15, body_of(data)) == expected


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8), st.data())
def test_packets_come_out_as_they_went_in_however_the_stream_is_cut(sent, data):
    stream = b"".join(packet(first, body) for first, body in sent)
    framer, found = Framer(300), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        framer.feed(stream[:size])
        stream = stream[size:]
        while (each := framer.next()) is not None:
            found.append(each)
    assert found == sent


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10))
def test_any_bytes_are_framed_or_refused(chunks):
    framer = Framer(64)
    with contextlib.suppress(ProtocolError):
        for chunk in chunks:
            framer.feed(chunk)
            while framer.next() is not None:
                pass


def test_a_packet_over_the_limit_is_refused_by_its_length_alone():
    framer = Framer(100)
    framer.feed(b"\x30\x65")
    with pytest.raises(ProtocolError, match="101 bytes, allowed are 100"):
        framer.next()


def test_a_length_of_five_bytes_is_malformed():
    framer = Framer(1 << 30)
    framer.feed(b"\x30\xff\xff\xff\xff\x01")
    with pytest.raises(ProtocolError, match="remaining length"):
        framer.next()


MQTT = text("MQTT") + b"\x04"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "ends within"),
        (text("HTTP") + b"\x04\x02\0\0" + text(""), "not MQTT"),
        (MQTT + b"\x03\0\0" + text(""), "reserved"),
        (MQTT + b"\x0a\0\0" + text(""), "last will"),
        (MQTT + b"\x22\0\0" + text(""), "last will"),
        (MQTT + b"\x1e\0\0" + text("") + text("t") + text(""), "last will"),
        (MQTT + b"\x42\0\0" + text("") + text("p"), "without user name"),
        (MQTT + b"\x02\0\0" + text("") + b"x", "after the end"),
        (MQTT + b"\x02\0\0" + text(b"\xff"), "not UTF-8"),
        (MQTT + b"\x02\0\0" + text(b"\xed\xa0\x80"), "not UTF-8"),
        (MQTT + b"\x02\0\0" + text("a\0b"), "null character"),
        (MQTT + b"\x06\0\0" + text("") + text("a/#") + text(""), "topic of the last will"),
        (MQTT + b"\x06\0\0" + text("") + text("") + text(""), "topic of the last will"),
    ],
)
def test_malformed_connects(body, why):
    with pytest.raises(ProtocolError, match=why):
        packets.parse_connect(body)


@pytest.mark.parametrize(("name", "level"), [("MQTT", 5), ("MQIsdp", 3), ("MQTT", 3), ("MQTT", 255)])
def test_other_versions_are_told_apart(name, level):
    with pytest.raises(UnsupportedVersion) as caught:
        packets.parse_connect(text(name) + bytes((level,)))
    assert caught.value.level == level


@pytest.mark.parametrize(
    ("flags", "body"),
    [
        (6, text("t") + b"\0\1"),
        (8, text("t")),
        (2, text("t") + b"\0\0"),
        (0, text("")),
        (0, text("a/+")),
        (0, text("#")),
        (0, text("a\0")),
        (0, text("/" * 200)),
    ],
)
def test_malformed_publishes(flags, body):
    with pytest.raises(ProtocolError):
        packets.parse_publish(flags, body)


clients = st.builds(
    Connect,
    client_id=names,
    clean_session=st.booleans(),
    keep_alive=st.integers(0, 65535),
    username=names,
    password=st.none() | st.binary(max_size=50),
    will=st.none() | messages,
)


@given(clients, st.booleans())
def test_what_a_client_says_of_itself_is_read_as_it_was_written(it, anonymous):
    if anonymous:
        it = dataclasses.replace(it, username=None, password=None)
    data = packets.connect(it)
    assert data[0] == Kind.CONNECT << 4
    assert packets.parse_connect(body_of(data)) == it


@given(st.integers(1, 65535), st.lists(st.tuples(names, st.integers(0, 2)), min_size=1, max_size=200))
def test_subscribe_is_read_as_it_was_written(packet_id, wanted):
    data = packets.subscribe(packet_id, wanted)
    assert data[0] == Kind.SUBSCRIBE << 4 | 2
    assert packets.parse_subscribe(body_of(data)) == (packet_id, wanted)


@given(st.integers(1, 65535), st.lists(st.sampled_from((0, 1, 2, packets.SUBACK_FAILURE)), min_size=1, max_size=200))
def test_suback_is_read_as_it_was_written(packet_id, codes):
    data = packets.suback(packet_id, codes)
    assert data[0] == Kind.SUBACK << 4
    assert packets.parse_suback(body_of(data)) == (packet_id, codes)


@given(st.binary(max_size=20))
def test_any_bytes_as_a_brokers_answers_are_read_or_refused(body):
    with contextlib.suppress(ProtocolError):
        assert packets.parse_connack(body) == body[1]
        assert len(body) == 2
    with contextlib.suppress(ProtocolError):
        packet_id, codes = packets.parse_suback(body)
        assert packets.suback(packet_id, codes)[2:] == body
    with contextlib.suppress(ProtocolError):
        assert packets.puback(packets.parse_packet_id(body))[2:] == body


@pytest.mark.parametrize("body", [b"", b"\0", b"\2\0", b"\0\0\0"])
def test_malformed_connacks(body):
    with pytest.raises(ProtocolError, match="CONNACK"):
        packets.parse_connack(body)


@pytest.mark.parametrize("body", [b"", b"\0\1", b"\0\1\3", b"\0\1\0\x81", b"\0\0\0"])
def test_malformed_subacks(body):
    with pytest.raises(ProtocolError):
        packets.parse_suback(body)


@pytest.mark.parametrize("topic", [b"\xff\xfe", b"", b"a/+", b"#", b"a\0b", b"a" * 4097, b"/" * 200])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_whose_topic_is_none_says_whom_to_acknowledge(topic, qos):
    data = packets.publish(topic, b"x", qos=qos, packet_id=7, retain=False)
    with pytest.raises(BadTopic) as caught:
        packets.parse_publish(data[0] & 15, body_of(data))
    assert caught.value.packet_id == 7 * qos


LIMIT, KEPT = 60, 20


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=8), st.data())
def test_packets_that_are_too_large_are_passed_over_however_the_stream_is_cut(sent, data):
    stream = b"".join(packet(first, body) for first, body in sent)
    framer, found = Framer(LIMIT), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        framer.feed(stream[:size])
        stream = stream[size:]
        while True:
            try:
                each = framer.next()
            except PacketTooLarge as large:
                if (head := framer.pass_over(KEPT)) is None:
                    break
                found.append((large.first, head, large.length))
            else:
                if each is None:
                    break
                found.append((*each, len(each[1])))
        # Never more than what one packet may have, its header, and what was fed at once.
        assert len(framer._buffer) <= LIMIT + 5 + size
    assert found == [(first, body if len(body) <= LIMIT else body[:KEPT], len(body)) for first, body in sent]
