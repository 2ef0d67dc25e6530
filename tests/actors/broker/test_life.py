"""What any MQTT 3.1.1 broker does, on the embedded one and on Mosquitto."""

import contextlib
import threading

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from actors.broker.config import Limits
from actors.mqtt.packets import Publish
from tests.actors.broker.clients import (
    DEADLINE,
    RawClient,
    client,
    connect_packet,
    packet,
    receive,
    received_until,
    text,
    tool,
)
from tests.brokers import HOST, READER, STT, SUPERVISOR, TTS

END = "home/end"


@pytest.mark.fault(stock="each is delivered at the subscription's QoS, QoS 0 as 1")
async def test_messages_of_both_qos_reach_every_subscriber_in_order(any_shared_broker):
    async with client(any_shared_broker, SUPERVISOR) as first, client(any_shared_broker, STT) as second:
        for each in (first, second):
            await each.subscribe("home/#", qos=1)
        async with client(any_shared_broker, TTS) as publisher:
            for number in range(40):
                await publisher.publish("home/light", str(number), qos=number % 2)
        for each in (first, second):
            found = await receive(each, 40)
            assert [int(message.payload) for message in found] == list(range(40))
            assert [message.qos for message in found] == [0, 1] * 20
            assert not any(message.retain for message in found)


@pytest.mark.fault(stock="a message of QoS 0 is delivered at 1")
async def test_the_lower_qos_of_message_and_subscription_holds(any_shared_broker):
    async with client(any_shared_broker, SUPERVISOR) as subscriber:
        await subscriber.subscribe("home/zero", qos=0)
        await subscriber.subscribe("home/one", qos=1)
        async with client(any_shared_broker, STT) as publisher:
            for topic in ("home/zero", "home/one"):
                for qos in (0, 1):
                    await publisher.publish(topic, b"", qos=qos)
        assert [message.qos for message in await receive(subscriber, 4)] == [0, 0, 0, 1]


@pytest.mark.fault(stock="the first QoS stays")
@pytest.mark.parametrize("qos", [0, 1])
async def test_subscribing_again_changes_the_qos(any_shared_broker, qos):
    async with client(any_shared_broker, SUPERVISOR) as subscriber:
        await subscriber.subscribe("home/a", qos=1 - qos)
        await subscriber.subscribe("home/a", qos=qos)
        async with client(any_shared_broker, STT) as publisher:
            await publisher.publish("home/a", b"", qos=1)
        assert (await receive(subscriber, 1))[0].qos == qos


async def test_unsubscribing_ends_it(any_shared_broker):
    async with client(any_shared_broker, SUPERVISOR) as subscriber:
        await subscriber.subscribe([("home/a", 1), (END, 1)])
        await subscriber.publish("home/a", b"early", qos=1)
        await receive(subscriber, 1)
        await subscriber.unsubscribe("home/a")
        await subscriber.publish("home/a", b"late", qos=1)
        await subscriber.publish(END, b"", qos=1)
        assert await received_until(subscriber, END) == []


async def test_a_retained_message_is_kept_replaced_and_cleared(any_broker):
    async with client(any_broker, SUPERVISOR) as owner:
        for value in (b"old", b"new"):
            await owner.publish("system/config/stt", value, qos=1, retain=True)

        async with client(any_broker, STT) as late:
            await late.subscribe("system/config/stt", qos=1)
            (found,) = await receive(late, 1)
            assert (found.payload, found.retain, found.qos) == (b"new", True, 1)

            await owner.publish("system/config/stt", b"live", qos=1, retain=True)
            (found,) = await receive(late, 1)
            assert (found.payload, found.retain) == (b"live", False)

            await owner.publish("system/config/stt", b"", qos=1, retain=True)
            (found,) = await receive(late, 1)
            assert (found.payload, found.retain) == (b"", False)

        async with client(any_broker, STT) as later:
            await later.subscribe([("system/config/stt", 1), (END, 1)])
            await later.publish(END, b"", qos=1)
            assert await received_until(later, END) == []


async def test_mosquittos_tools(any_broker):
    published = await tool(
        "mosquitto_pub", any_broker, SUPERVISOR, "-t", "system/config/stt", "-m", "hello", "-q", "1", "-r"
    )
    assert published.returncode == 0, published.stderr
    seen = await tool("mosquitto_sub", any_broker, READER, "-t", "system/#", "-v", "-C", "1", "-W", "25")
    assert (seen.returncode, seen.stdout) == (0, b"system/config/stt hello\n")


@pytest.mark.fault(stock="what was not worked through at DISCONNECT is lost")
async def test_a_client_that_publishes_and_leaves_at_once_loses_nothing(any_shared_broker):
    """mosquitto_pub -l sends its lines and DISCONNECT in one go."""
    async with client(any_shared_broker, SUPERVISOR) as subscriber:
        await subscriber.subscribe("home/line", qos=1)
        async with RawClient.login(any_shared_broker, STT) as raw:
            for number in range(100):
                raw.publish("home/line", str(number).encode(), qos=number % 2, packet_id=number + 1)
            raw.send(packet(0xE0, b""))
            await raw.closed()
        # Messages of QoS 0 may pass those of QoS 1 that wait for the subscriber's acknowledgements.
        found = await receive(subscriber, 100)
        assert {int(message.payload) for message in found} == set(range(100))


def test_paho_with_its_own_thread(any_shared_broker):
    got, subscribed = threading.Event(), threading.Event()
    seen: list[tuple[str, bytes, bool]] = []

    def on_message(_client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        seen.append((message.topic, message.payload, message.retain))
        got.set()

    listener = paho.Client(CallbackAPIVersion.VERSION2, client_id="stt-paho")
    listener.username_pw_set(STT.name, STT.password)
    listener.on_connect = lambda each, *_: each.subscribe("home/+/state", 1)
    listener.on_subscribe = lambda *_: subscribed.set()
    listener.on_message = on_message
    listener.connect(HOST, any_shared_broker.port)
    listener.loop_start()
    try:
        assert subscribed.wait(DEADLINE)
        assert listener.publish("home/lamp/state", b"on", qos=2).rc == paho.MQTT_ERR_SUCCESS
        assert got.wait(DEADLINE)
    finally:
        listener.disconnect()
        listener.loop_stop()
    assert seen == [("home/lamp/state", b"on", False)]


async def test_a_message_of_qos_2_is_delivered_once_though_sent_twice(any_shared_broker):
    async with client(any_shared_broker, SUPERVISOR) as subscriber, RawClient.login(any_shared_broker, STT) as raw:
        await subscriber.subscribe("home/#", qos=1)
        for _ in range(2):
            raw.publish("home/once", b"", qos=2, packet_id=9)
            assert await raw.packet() == (0x50, b"\0\x09")
        raw.send(packet(0x62, b"\0\x09"))
        assert await raw.packet() == (0x70, b"\0\x09")
        raw.publish(END, b"", qos=1)
        assert await received_until(subscriber, END) == [("home/once", b"")]


@pytest.mark.fault(stock="it is marked as retained")
async def test_a_persistent_session_gets_what_it_missed(any_broker):
    options = {"client_id": "stt-keeps", "clean": False}
    async with RawClient.login(any_broker, STT, **options) as raw:
        await raw.subscribe("home/#", qos=1)
        raw.send(packet(0xE0, b""))
        await raw.closed()
    async with client(any_broker, SUPERVISOR) as publisher:
        await publisher.publish("home/zero", b"not kept", qos=0)
        for number in range(3):
            await publisher.publish("home/a", str(number), qos=1, retain=True)
    async with RawClient.login(any_broker, STT, **options) as raw:
        found = [await raw.message() for _ in range(3)]
        assert [(each.payload, each.retain) for each in found if each.topic == "home/a"] == [
            (b"0", False),
            (b"1", False),
            (b"2", False),
        ]
        # The subscription is there still, and nothing was sent because of the reconnect alone.
        raw.publish(END, b"", qos=1)
        assert (await raw.message()).topic == END


@pytest.mark.fault(stock="it is lost with the connection")
async def test_what_was_not_acknowledged_comes_again(any_shared_broker):
    options = {"client_id": "stt-forgets", "clean": False}
    async with client(any_shared_broker, SUPERVISOR) as publisher:
        async with RawClient.login(any_shared_broker, STT, **options) as raw:
            await raw.subscribe("home/#", qos=1)
            await publisher.publish("home/a", b"twice", qos=1)
            first, body = await raw.packet()
            assert (first, body[2:8]) == (0x32, b"home/a")
            raw.reset()
        async with RawClient.login(any_shared_broker, STT, **options) as raw:
            first, again = await raw.packet()
            assert (first, again) == (0x3A, body), "the same packet with DUP set"


async def test_a_clean_session_leaves_nothing(any_broker):
    options = {"client_id": "stt-keeps", "clean": False}
    async with RawClient.login(any_broker, STT, **options) as raw:
        assert not raw.session_present
        await raw.subscribe("home/#", qos=1)
    async with RawClient.login(any_broker, STT, **options) as raw:
        assert raw.session_present
    async with RawClient.login(any_broker, STT, client_id="stt-keeps", clean=True) as raw:
        assert not raw.session_present
    async with client(any_broker, SUPERVISOR) as publisher:
        await publisher.publish("home/a", b"", qos=1)
    async with RawClient.login(any_broker, STT, **options) as raw:
        assert not raw.session_present
        await raw.subscribe(END, qos=1)
        raw.publish(END, b"", qos=1)
        assert (await raw.message()).topic == END


@pytest.mark.parametrize("retain", [False, True])
async def test_a_last_will_is_published_when_the_client_is_lost(any_broker, retain):
    will = Publish("home/will", b"gone", 1, retain)
    async with client(any_broker, SUPERVISOR) as witness:
        await witness.subscribe("home/will", qos=1)
        async with RawClient.login(any_broker, STT, will=will):
            pass
        (found,) = await receive(witness, 1)
        assert (found.payload, found.qos) == (b"gone", 1)
    async with client(any_broker, SUPERVISOR) as late:
        await late.subscribe([("home/will", 1), (END, 1)])
        await late.publish(END, b"", qos=1)
        assert await received_until(late, END) == ([("home/will", b"gone")] if retain else [])


async def test_no_last_will_after_a_disconnect(any_shared_broker):
    will = Publish("home/will", b"gone", 1, retain=False)
    async with client(any_shared_broker, SUPERVISOR) as witness:
        await witness.subscribe("home/#", qos=1)
        async with RawClient.login(any_shared_broker, STT, will=will) as raw:
            raw.send(packet(0xE0, b""))
            await raw.closed()
        await witness.publish(END, b"", qos=1)
        assert await received_until(witness, END) == []


async def test_a_malformed_filter_does_not_subscribe(any_shared_broker):
    """Mosquitto closes the connection, the embedded broker answers 0x80; both are allowed."""
    async with RawClient.login(any_shared_broker, SUPERVISOR) as raw:
        raw.send(packet(0x82, b"\0\1" + text("home/#/x") + b"\1"))
        with contextlib.suppress(EOFError):
            assert await raw.packet() == (0x90, b"\0\1\x80")


async def test_a_large_message_arrives_whole(any_shared_broker):
    payload = bytes(range(256)) * 1024
    async with client(any_shared_broker, SUPERVISOR) as subscriber, client(any_shared_broker, SUPERVISOR) as publisher:
        await subscriber.subscribe("system/config/stt", qos=1)
        await publisher.publish("system/config/stt", payload, qos=1)
        assert (await receive(subscriber, 1))[0].payload == payload


async def test_a_slow_subscriber_gets_all_retained_messages(embedded_broker):
    """Sixteen times what may wait for it unsent: retained messages are sent as they are read."""
    broker = embedded_broker(limits=Limits(max_unsent_bytes=512 * 1024))
    expected = {f"system/state/s{number}" for number in range(40)}
    async with RawClient.login(broker, SUPERVISOR) as owner:
        for topic in expected:
            owner.publish(topic, bytes(200 * 1024), retain=True)
        await owner.flushed()
        async with RawClient.dial(broker, receive_buffer=4096) as late:
            late.send(connect_packet(STT))
            await late.packet()
            await late.subscribe("system/state/#", qos=0)
            # It is busy while the broker could send.
            for _ in range(20):
                await owner.flushed()
            assert {(await late.message()).topic for _ in expected} == expected


async def test_many_retained_messages_come_all_whatever_the_windows(embedded_broker):
    """More than fit into a client's window of unacknowledged messages, and more than a session may queue."""
    broker = embedded_broker()
    expected = {f"system/state/s{number}" for number in range(1500)}
    async with RawClient.login(broker, SUPERVISOR) as owner:
        for number, topic in enumerate(expected, start=1):
            owner.publish(topic, bytes(500), qos=1, packet_id=number, retain=True)
        await owner.flushed()
    async with RawClient.login(broker, STT) as late:
        await late.subscribe("system/state/#", qos=1)
        assert {(await late.message()).topic for _ in expected} == expected


async def test_who_subscribes_in_the_same_breath_as_it_connects_gets_each_message_once(any_broker):
    async with client(any_broker, SUPERVISOR) as owner:
        for number in range(3):
            await owner.publish(f"system/state/{number}", b"", qos=1)
            await owner.publish(f"system/state/{number}", b"x", qos=1, retain=True)
        async with RawClient.dial(any_broker) as raw:
            subscribe = packet(0x82, b"\0\1" + text("system/state/#") + b"\1")
            raw.send(connect_packet(STT) + subscribe)
            kinds = [(await raw.packet())[0] for _ in range(5)]
            assert sorted(kinds) == [0x20, 0x33, 0x33, 0x33, 0x90]
            await owner.publish("system/state/end", b"", qos=1)
            assert (await raw.packet())[0] == 0x32
