"""What stock amqtt 0.12.1 does wrong, each as a test: it fails there, and passes on ours and on Mosquitto.

    TEST_BROKERS=stock pytest -m fault -rxX tests/actors/broker

shows the former: every test that names what stock does must fail (xfailed), the others pass. More tests with this
marker are where their subject is. Sizes: what takes long in full is smaller here, and in full with `-m soak`.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import aiomqtt
import anyio
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from actors.broker.config import Limits
from actors.mqtt import packets
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
from tests.brokers import HOST, STT, SUPERVISOR, TTS, Login, chosen
from tests.support import eventually

MIB = 1024 * 1024
END = "home/end"
LONG = 100.0
"""Seconds for many clients: stock amqtt spends a quarter of a second on each login."""

not_mosquitto = pytest.mark.parametrize("any_broker_with", chosen("embedded"), indirect=True)
"""For what Mosquitto does otherwise, and may."""


def fault(stock: str) -> pytest.MarkDecorator:
    return pytest.mark.fault(stock=stock)


RIGHT = fault(stock="")


def sizes(small: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [small, pytest.param(full, marks=pytest.mark.soak)])


def forged(login: Login) -> Login:
    """The same user with a wrong password."""
    return Login(login.name, login.role)


# Before the login


@fault(stock="the live client is cut off, and its session altered")
@pytest.mark.parametrize("clean", [True, False])
async def test_a_wrong_password_with_the_id_of_a_live_client_leaves_that_alone(any_broker, clean):
    options = {"client_id": "stt-live", "clean": clean}
    async with RawClient.login(any_broker, STT, **options) as live:
        await live.subscribe("home/#", qos=1)
        for wrong in (forged(STT), Login("nobody", STT.role), None):
            async with RawClient.dial(any_broker) as raw:
                raw.send(connect_packet(wrong, **options))
                await raw.closed()
        live.publish("home/a", b"alive", qos=1)
        assert (await live.message()).payload == b"alive"


OPEN = fault(stock="it stays open")
GARBAGE = [
    pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="http", marks=OPEN),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls", marks=OPEN),
    pytest.param(b"\0" * 64, id="zeros", marks=OPEN),
    pytest.param(b"\xff" * 64, id="ones", marks=RIGHT),
    pytest.param(b"\x10\xff\xff\xff\xff\x7f", id="length of five bytes", marks=RIGHT),
    pytest.param(packet(0x11, b""), id="flags of the fixed header", marks=OPEN),
    pytest.param(packet(0x10, b""), id="empty CONNECT", marks=OPEN),
    pytest.param(packet(0x10, text("MQTX") + b"\x04\x02\0\0" + text("")), id="other protocol", marks=RIGHT),
    pytest.param(packet(0x10, text("MQTT") + b"\x04\x02\0\0" + b"\xff\xffabc"), id="beyond the end", marks=OPEN),
    pytest.param(packet(0x30, text("home/a") + b"x"), id="PUBLISH before CONNECT", marks=OPEN),
]


@pytest.mark.parametrize("data", GARBAGE)
async def test_garbage_is_closed_at_once(any_shared_broker, data):
    async with RawClient.dial(any_shared_broker) as raw:
        raw.send(data)
        await raw.closed()


@fault(stock="waited for without end")
@not_mosquitto  # it waits for 90 seconds (seen: 93)
async def test_a_connect_that_does_not_come_is_not_waited_for(any_broker_with):
    broker = any_broker_with(limits=Limits(connect_seconds=1.0))
    data = connect_packet(STT)
    async with RawClient.dial(broker) as silent, RawClient.dial(broker) as slow:
        slow.send(data[:-1])
        await silent.closed()
        await slow.closed()
    async with RawClient.login(broker, STT):
        pass


@RIGHT
@not_mosquitto  # it has no bound of its own for CONNECT
async def test_an_oversize_connect_is_refused_by_its_length(any_broker):
    process = psutil.Process(any_broker.pid)
    before = process.memory_info().rss
    async with RawClient.dial(any_broker) as raw:
        raw.send(b"\x10\x80\x80\x80\x64" + bytes(32 * MIB))  # of 200 MiB
        await raw.closed()
    assert process.memory_info().rss - before < 4 * MIB


@fault(stock="all wait for a slot of one of those that say nothing")
@not_mosquitto  # it turns newcomers away, for the 90 seconds that it waits for each CONNECT
async def test_clients_that_do_not_log_in_cannot_lock_others_out(any_broker_with):
    broker = any_broker_with(limits=Limits(max_pending=4, max_connections=4, connect_seconds=60))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(RawClient.dial(broker))
        async with RawClient.login(broker, STT):
            pass


@fault(stock="who sends nonsense and resets leaves his slot taken for ever")
@sizes(500, 5000)
async def test_connections_that_are_reset_leave_nothing(any_broker_with, count):
    """Some in each state, and then there is room for as many as ever."""
    broker = any_broker_with(limits=Limits(max_pending=8, max_connections=8))
    process = psutil.Process(broker.pid)
    async with contextlib.AsyncExitStack() as stack:
        await let_in(stack, broker, "stt-first")
    before = process.num_fds(), process.memory_info().rss
    async with asyncio.timeout(LONG):
        for number in range(count):
            async with RawClient.dial(broker) as raw:
                match number % 4:
                    case 1:
                        raw.send(b"\x10\x01")
                    case 2:
                        raw.send(packet(0x10, text("MQTX") + b"\x04\x02\0\0" + text("")))
                    case 3:
                        raw.send(connect_packet(STT, client_id=f"stt-{number}"))
                        # Mosquitto may not have seen the end of the ones before, and refuse it.
                        with contextlib.suppress(EOFError):
                            await raw.packet()
                raw.reset()
        await eventually(lambda: process.num_fds() <= before[0])
        async with contextlib.AsyncExitStack() as stack:
            for number in range(8):
                await let_in(stack, broker, f"stt-{number}")
    assert process.memory_info().rss - before[1] < 4 * MIB


async def let_in(stack: contextlib.AsyncExitStack, broker: Any, client_id: str) -> None:
    """Log in and stay, as soon as the broker has seen that the ones before are gone."""
    while True:
        async with contextlib.AsyncExitStack() as attempt:
            raw = await attempt.enter_async_context(RawClient.dial(broker))
            raw.send(connect_packet(STT, client_id=client_id))
            with contextlib.suppress(EOFError):
                if (await raw.packet())[1] == b"\0\0":
                    stack.push_async_exit(attempt.pop_all())
                    return


@fault(stock="the session of each stays")
@sizes(300, 3000)
async def test_bad_logins_leave_nothing(any_broker, count):
    process = psutil.Process(any_broker.pid)
    async with RawClient.login(any_broker, STT) as live:
        before = process.num_fds(), process.memory_info().rss
        async with asyncio.timeout(LONG):
            for number in range(count):
                async with RawClient.dial(any_broker) as raw:
                    raw.send(connect_packet(forged(STT), client_id=f"stt-{number}"))
                    await raw.closed()
        await eventually(lambda: process.num_fds() <= before[0])
        assert process.memory_info().rss - before[1] < 2 * MIB
        await live.flushed()


@fault(stock="argon2 runs on the loop")
async def test_a_rush_of_logins_does_not_hold_up_who_is_there(any_broker):
    async with RawClient.login(any_broker, STT) as live, anyio.create_task_group() as tasks:
        rush = anyio.Event()

        async def log_in(number: int) -> None:
            async with RawClient.dial(any_broker) as raw:
                await rush.wait()
                raw.send(connect_packet(forged(TTS), client_id=f"tts-{number}"))
                await anyio.sleep_forever()

        for number in range(60):
            tasks.start_soon(log_in, number)
        await live.flushed()
        rush.set()
        with anyio.fail_after(DEADLINE):
            for _ in range(3):
                await live.flushed()
        tasks.cancel_scope.cancel()


# MQTT 5


@fault(stock="with a user name it reads on for ever")
@not_mosquitto  # it speaks MQTT 5
async def test_mqtt_5_is_refused_promptly_in_its_own_form(any_broker):
    async with RawClient.dial(any_broker) as raw:
        raw.send(connect_packet(SUPERVISOR, level=5))
        assert await raw.closed() == packets.CONNACK_NOT_MQTT_5


@fault(stock="they wait, or complain of a malformed packet")
@not_mosquitto
@pytest.mark.parametrize("name", ["mosquitto_pub", "mosquitto_sub"])
@pytest.mark.parametrize("version", ["5", "mqttv31"])
async def test_mosquittos_tools_understand_that_their_version_is_not_spoken(any_broker, name, version):
    message = ("-m", "x") if name == "mosquitto_pub" else ("-C", "1")
    done = await tool(name, any_broker, SUPERVISOR, "-V", version, "-t", "home/a", *message)
    assert done.returncode != 0
    assert b"protocol version" in done.stderr.lower()


@fault(stock="it waits")
@not_mosquitto
async def test_aiomqtt_understands_that_mqtt_5_is_not_spoken(any_broker):
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)unsupported protocol version"):
        async with client(any_broker, SUPERVISOR, protocol=aiomqtt.ProtocolVersion.V5):
            pass


@fault(stock="it waits")
@not_mosquitto
def test_paho_understands_that_mqtt_5_is_not_spoken(any_broker):
    refused = threading.Event()
    said: list[str] = []

    def on_connect(_client: paho.Client, _data: object, _flags: object, reason: object, _props: object) -> None:
        said.append(str(reason))
        refused.set()

    modern = paho.Client(CallbackAPIVersion.VERSION2, client_id="stt-5", protocol=MQTTProtocolVersion.MQTTv5)
    modern.username_pw_set(STT.name, STT.password)
    modern.on_connect = on_connect
    modern.connect(HOST, any_broker.port)
    modern.loop_start()
    try:
        assert refused.wait(DEADLINE)
    finally:
        modern.disconnect()
        modern.loop_stop()
    assert said[0] == "Unsupported protocol version"


# Rights


@fault(stock="it is published, and retained")
async def test_a_last_will_on_a_protected_topic_is_not_published(any_broker):
    async with client(any_broker, SUPERVISOR) as witness:
        await witness.subscribe([("system/#", 1), ("home/#", 1)])
        for retain in (True, False):
            async with RawClient.dial(any_broker) as raw:
                will = Publish("system/config/tts", b"forged", 1, retain=retain)
                raw.send(connect_packet(STT, client_id="stt-bad", will=will))
                await raw.packet()
        # The loss of the one is noticed after that of the others.
        async with RawClient.login(any_broker, STT, will=Publish("home/will", b"", 1, retain=False)):
            pass
        assert await received_until(witness, "home/will") == []
    async with client(any_broker, SUPERVISOR) as late:
        await late.subscribe([("system/#", 1), (END, 1)])
        await late.publish(END, b"", qos=1)
        assert await received_until(late, END) == []


@fault(stock="a publish to one ends the connection's service, without a word")
@pytest.mark.parametrize("topic", ["$SYS/broker/version", "$"])
async def test_dollar_topics_are_not_writable(any_shared_broker, topic):
    """Not even by the supervisor; and the connection survives the attempt."""
    async with client(any_shared_broker, SUPERVISOR) as writer:
        if topic == "$SYS/broker/version":
            await writer.subscribe("$SYS/#", qos=1)
        await writer.subscribe(END, qos=1)
        await writer.publish(topic, b"forged", qos=1, retain=True)
        await writer.publish(END, b"", qos=1)
        assert b"forged" not in [payload for _, payload in await received_until(writer, END)]


# Sessions


@fault(stock="all of others' come, for every subscription of anybody")
@pytest.mark.parametrize("clean", [True, False])
async def test_retained_messages_of_others_do_not_come_at_connect(any_broker, clean):
    """Others' subscriptions, and even one's own from an earlier connection, bring none."""
    async with client(any_broker, SUPERVISOR) as owner:
        await owner.subscribe("#", qos=1)
        for service in ("stt", "tts"):
            await owner.publish(f"system/config/{service}", b"{}", qos=1, retain=True)
        for _ in range(2):
            async with RawClient.login(any_broker, TTS, client_id="tts-new", clean=clean) as raw:
                await raw.subscribe(END, qos=1)
                raw.publish(END, b"", qos=1)
                assert (await raw.message()).topic == END


@fault(stock="the earlier connection stays, or both go")
@pytest.mark.parametrize("clean", [True, False])
async def test_a_newcomer_with_the_same_id_takes_over(any_broker, clean):
    """Both with that flag. The earlier connection ends; the newcomer lives, and gets each message once."""
    options = {"client_id": "stt-one", "clean": clean}
    async with RawClient.login(any_broker, STT, **options) as first:
        await first.subscribe("home/#", qos=1)
        async with RawClient.login(any_broker, STT, **options) as second:
            await first.closed()
            await second.subscribe("home/#", qos=1)
            second.publish("home/a", b"1", qos=1)
            second.publish("home/b", b"2", qos=1)
            assert [(await second.message()).payload for _ in range(2)] == [b"1", b"2"]


@fault(stock="foreign messages come to all")
@sizes(50, 200)
async def test_persistent_clients_reconnecting_at_once_are_right(any_broker_with, count):
    """Each gets its own message that it missed, once, and none of the others'."""
    any_broker = any_broker_with(limits=Limits(max_user_connections=count, max_user_sessions=count))

    def each(number: int) -> aiomqtt.Client:
        options = {"identifier": f"stt-{number}", "clean_session": False, "timeout": LONG}
        return client(any_broker, STT, **options)

    async def subscribe(number: int) -> None:
        async with each(number) as worker:
            await worker.subscribe([(f"home/{number}", 1), (END, 1)])

    found: dict[int, list[tuple[str, bytes]]] = {}

    async def come_back(number: int) -> None:
        async with each(number) as worker:
            await worker.publish("home/back", str(number), qos=1)
            found[number] = await received_until(worker, END, deadline=LONG)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(subscribe, number)
    async with client(any_broker, SUPERVISOR, timeout=LONG) as owner:
        await owner.subscribe("home/back", qos=1)
        for number in range(count):
            await owner.publish(f"home/{number}", str(number), qos=1, retain=True)
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(come_back, number)
            await receive(owner, count, deadline=LONG)
            await owner.publish(END, b"", qos=1)
    assert found == {number: [(f"home/{number}", str(number).encode())] for number in range(count)}


SLEEPER = """
import sys, paho.mqtt.client as paho
host, port, user, password = sys.argv[1:]
client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=user + "-sleeper")
client.username_pw_set(user, password)
client.will_set("home/will", "gone", qos=1, retain=True)
client.on_connect = lambda *_: client.publish("home/here", "", qos=1)
client.connect(host, int(port), keepalive=1)
client.loop_forever()
"""


@fault(stock="keep-alive is not enforced")
async def test_a_stopped_client_is_missed_after_its_keep_alive(any_broker):
    async with client(any_broker, SUPERVISOR) as witness:
        await witness.subscribe("home/#", qos=1)
        process = subprocess.Popen([sys.executable, "-c", SLEEPER, HOST, str(any_broker.port), STT.name, STT.password])
        try:
            (here,) = await receive(witness, 1)
            assert here.topic.value == "home/here"
            process.send_signal(signal.SIGSTOP)
            (will,) = await receive(witness, 1)
            assert (will.topic.value, will.payload) == ("home/will", b"gone")
        finally:
            process.kill()
            process.wait(DEADLINE)


# Bounds


@fault(stock="there is no bound")
async def test_an_oversize_packet_ends_the_connection(any_broker_with):
    broker = any_broker_with(limits=Limits(max_packet_bytes=1000))
    async with RawClient.login(broker, STT) as raw:
        raw.publish("home/a", bytes(900), qos=1)
        assert await raw.packet() == (0x40, b"\0\1")
        raw.publish("home/a", bytes(1000), qos=1)
        await raw.closed()


@fault(stock="what waits for it grows without bound")
async def test_a_subscriber_that_stops_reading_costs_little_and_harms_nobody(any_broker_with):
    broker = any_broker_with(limits=Limits(max_unsent_bytes=MIB // 2, max_queued_messages=20))
    process = psutil.Process(broker.pid)
    async with (
        RawClient.dial(broker, receive_buffer=4096) as stalled,
        client(broker, SUPERVISOR) as reader,
        client(broker, TTS) as publisher,
    ):
        stalled.send(connect_packet(STT, client_id="stt-stalled", keep_alive=0))
        await stalled.packet()
        await stalled.subscribe("home/#", qos=0)
        await reader.subscribe("home/count", qos=1)
        before = process.memory_info().rss
        for _ in range(400):
            await publisher.publish("home/noise", bytes(64 * 1024), qos=1)
        assert process.memory_info().rss - before < 10 * MIB
        await publisher.publish("home/count", b"", qos=1)
        await receive(reader, 1)


@RIGHT
async def test_it_ends_with_a_half_open_client(any_broker):
    """Stock does on Python 3.11, whose servers do not wait for their connections; from 3.12 on it hangs."""
    async with RawClient.dial(any_broker) as half_open, RawClient.login(any_broker, STT) as raw:
        half_open.send(connect_packet(STT)[:20])
        await raw.flushed()
        os.kill(any_broker.pid, signal.SIGINT)
        await eventually(lambda: not any_broker.running)
