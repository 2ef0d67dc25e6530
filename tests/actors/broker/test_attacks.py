"""Clients that break the rules, are broken, or are many."""

import asyncio
import contextlib

import psutil
import pytest

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
)
from tests.brokers import READER, STT, SUPERVISOR, TTS
from tests.support import eventually

MIB = 1024 * 1024
END = "home/end"

BREACHES = [
    pytest.param(packet(0x30, text("home/+") + b"x"), id="wildcard in a topic"),
    pytest.param(packet(0x30, text("") + b"x"), id="empty topic"),
    pytest.param(packet(0x30, text("a\0b") + b"x"), id="null character"),
    pytest.param(packet(0x30, text(b"\xff\xfe") + b"x"), id="no UTF-8"),
    pytest.param(packet(0x36, text("home/a") + b"\0\1x"), id="QoS 3"),
    pytest.param(packet(0x32, text("home/a") + b"\0\0x"), id="packet id 0"),
    pytest.param(packet(0x30, b"\0\x20short"), id="topic beyond the end"),
    pytest.param(packet(0x80, b"\0\1" + text("home/a") + b"\1"), id="flags of SUBSCRIBE"),
    pytest.param(packet(0x82, b"\0\1"), id="SUBSCRIBE to nothing"),
    pytest.param(packet(0x82, b"\0\1" + text("home/a") + b"\3"), id="SUBSCRIBE with QoS 3"),
    pytest.param(packet(0x82, b"\0\1" + text(b"\xff") + b"\1"), id="filter without UTF-8"),
    pytest.param(packet(0xF0, b""), id="reserved type"),
    pytest.param(packet(0x00, b""), id="type 0"),
]


@pytest.mark.parametrize("data", BREACHES)
async def test_a_breach_of_protocol_ends_the_connection_and_publishes_the_will(any_shared_broker, data):
    async with client(any_shared_broker, SUPERVISOR) as witness:
        await witness.subscribe("home/#", qos=1)
        async with RawClient.login(any_shared_broker, STT, will=Publish("home/will", b"", 0, retain=False)) as raw:
            raw.send(data)
            await raw.closed()
        assert [message.topic.value for message in await receive(witness, 1)] == ["home/will"]


async def test_a_second_connect_ends_the_connection(shared_broker):
    async with RawClient.login(shared_broker, STT) as raw:
        raw.send(connect_packet(STT))
        await raw.closed()


@pytest.mark.parametrize("kind", [0x82, 0xA2], ids=["SUBSCRIBE", "UNSUBSCRIBE"])
async def test_a_thousand_filters_in_one_packet_are_too_many(shared_broker, kind):
    each = text("home/a") + (b"\1" if kind == 0x82 else b"")
    async with RawClient.login(shared_broker, STT) as raw:
        raw.send(packet(kind, b"\0\1" + each * 1001))
        await raw.closed()


@pytest.mark.parametrize("size", [17 * 1024, 200 * MIB])
async def test_an_oversize_connect_is_refused_by_its_length(shared_broker, size):
    async with RawClient.dial(shared_broker) as raw:
        raw.send(b"\x10" + packet(0x10, bytes(size))[1:6])
        await raw.closed()


async def test_a_client_that_pings_is_not_missed(embedded_broker):
    """Silence is what counts, not what was agreed: three keep-alives with a sign of life in each."""
    broker = embedded_broker()
    async with RawClient.login(broker, STT, keep_alive=1) as raw:
        for _ in range(8):
            await asyncio.sleep(0.4)
            await raw.flushed()


@pytest.mark.parametrize("last", [packet(0xE0, b""), b"\xf0\0", b""], ids=["DISCONNECT", "breach", "FIN"])
async def test_clients_that_leave_before_they_are_welcomed_leave_nothing(embedded_broker, last):
    """CONNECT and the end in one go, and the connection is closed."""
    broker = embedded_broker()
    count = 50
    will = Publish("home/will", b"", 0, retain=False)
    for number in range(count):
        async with RawClient.dial(broker) as raw:
            raw.send(connect_packet(STT, client_id=f"stt-{number}", will=will) + last)
            raw.finish()
            await raw.closed()
    await eventually(lambda: len(broker.events("disconnected")) == count)


async def test_clients_that_do_not_log_in_cannot_lock_others_out(embedded_broker):
    broker = embedded_broker(limits=Limits(max_pending=4, connect_seconds=60))
    async with RawClient.dial(broker) as oldest:
        for _ in range(4):
            await asyncio.get_running_loop().create_task(_stay(broker))
        async with RawClient.dial(broker), RawClient.dial(broker), RawClient.dial(broker), RawClient.dial(broker):
            await oldest.closed()
            async with RawClient.login(broker, STT):
                pass


async def _stay(broker) -> None:
    async with RawClient.dial(broker):
        pass


async def test_the_supervisor_gets_in_when_all_places_are_taken(embedded_broker):
    broker = embedded_broker(limits=Limits(max_connections=2))
    async with RawClient.login(broker, STT), RawClient.login(broker, TTS):
        async with RawClient.dial(broker) as one_more:
            one_more.send(connect_packet(READER))
            assert (await one_more.packet())[1] == bytes((0, packets.Refusal.UNAVAILABLE))
        async with RawClient.login(broker, SUPERVISOR):
            pass
    await eventually(lambda: len(broker.events("disconnected")) == 3)
    async with RawClient.login(broker, READER):
        pass


async def test_a_subscriber_that_does_not_read_is_dropped_and_nobody_else(embedded_broker):
    limit = MIB // 2
    broker = embedded_broker(limits=Limits(max_unsent_bytes=limit))
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
            if broker.events("disconnected"):
                break
        (gone,) = broker.events("disconnected")
        assert "does not read" in gone["reason"]
        assert process.memory_info().rss - before < 8 * MIB
        await publisher.publish("home/count", b"", qos=1)
        await receive(reader, 1)


async def test_a_subscriber_that_does_not_acknowledge_costs_a_bounded_queue(embedded_broker):
    limits = Limits(max_inflight=10, max_queued_messages=20)
    broker = embedded_broker(limits=limits)
    async with RawClient.login(broker, STT) as lazy, RawClient.login(broker, TTS) as publisher:
        await lazy.subscribe("home/#", qos=1)
        for number in range(50):
            publisher.publish("home/a", str(number).encode(), qos=1, packet_id=number + 1)
        await publisher.flushed()
        found = [int((await lazy.message()).payload) for _ in range(30)]
        assert found == list(range(30))
    await eventually(lambda: broker.events("client_summary"))
    assert broker.events("client_summary")[0]["lost_messages"] == 20


async def test_what_clients_that_are_away_cost_together_is_bounded(embedded_broker):
    """Room for two messages of 50 kB for all sessions; those that are forgotten give back what they had."""
    broker = embedded_broker(limits=Limits(max_message_bytes=110_000))

    async def subscribe_and_leave(client_id: str) -> None:
        async with RawClient.login(broker, STT, client_id=client_id, clean=False) as raw:
            await raw.subscribe("home/#", qos=1)
            raw.send(packet(0xE0, b""))
            await raw.closed()

    async def kept_for(client_id: str) -> int:
        async with RawClient.login(broker, STT, client_id=client_id, clean=False) as raw:
            raw.publish(END, b"")
            kept = 0
            while (await raw.message()).topic != END:
                kept += 1
            return kept

    async with RawClient.login(broker, TTS) as publisher:

        async def publish(count: int) -> None:
            for _ in range(count):
                publisher.publish("home/a", bytes(50_000), qos=1)
            await publisher.flushed()

        for number in range(5):
            await subscribe_and_leave(f"stt-{number}")
        await publish(2)
        for number in range(5):
            async with RawClient.login(broker, STT, client_id=f"stt-{number}", clean=True):
                pass

        await subscribe_and_leave("stt-a")
        await subscribe_and_leave("stt-b")
        await publish(3)
        assert await kept_for("stt-a") + await kept_for("stt-b") == 2


async def test_a_window_is_bounded_in_bytes_too(embedded_broker):
    broker = embedded_broker(limits=Limits(max_inflight_bytes=10_000, max_queued_messages=0))
    async with RawClient.login(broker, STT) as lazy, RawClient.login(broker, TTS) as publisher:
        await lazy.subscribe("home/#", qos=1)
        for number in range(5):
            publisher.publish("home/a", bytes(6_000), qos=1, packet_id=number + 1)
        await publisher.flushed()
        for _ in range(2):
            await lazy.message()
    (summary,) = await eventually(lambda: broker.events("client_summary"))
    assert summary["lost_messages"] == 3


async def test_a_flood_does_not_pass_others_by(shared_broker):
    """One client pushes all it can; another is answered meanwhile."""
    broker = shared_broker
    async with RawClient.login(broker, STT) as flooder, RawClient.login(broker, TTS) as other:
        message = packets.publish(b"home/flood", b"x", retain=False)
        flooder.send(message * 200_000)
        for _ in range(5):
            await other.flushed()
        await flooder.flushed()


async def test_retained_messages_of_workers_are_bounded_and_the_supervisors_are_not(embedded_broker):
    broker = embedded_broker(limits=Limits(max_retained_messages=3, max_retained_bytes=100))
    async with client(broker, STT) as worker, client(broker, SUPERVISOR) as owner:
        for number in range(5):
            await worker.publish(f"home/{number}", b"x", qos=1, retain=True)
            await owner.publish(f"home/owner/{number}", b"x", qos=1, retain=True)
        await worker.publish("home/0", b"", qos=1, retain=True)
        await worker.publish("home/big", bytes(99), qos=1, retain=True)
        await worker.publish("home/1", b"replaced", qos=1, retain=True)
    async with client(broker, SUPERVISOR) as late:
        await late.subscribe("home/#", qos=1)
        await late.publish(END, b"", qos=1)
        found = dict(await received_until(late, END))
    assert {topic: value for topic, value in found.items() if "owner" not in topic} == {
        "home/1": b"replaced",
        "home/2": b"x",
    }
    assert len([topic for topic in found if "owner" in topic]) == 5


async def test_subscriptions_and_sessions_are_bounded(embedded_broker):
    broker = embedded_broker(limits=Limits(max_subscriptions=2, max_sessions=2))
    async with RawClient.login(broker, STT, client_id="stt-1", clean=False) as raw:
        assert [await raw.subscribe(f"home/{number}") for number in range(3)] == [1, 1, 0x80]
        assert await raw.subscribe("home/0") == 1
        async with RawClient.login(broker, STT, client_id="stt-2", clean=False):
            pass
        async with RawClient.dial(broker) as third:
            third.send(connect_packet(STT, client_id="stt-3", clean=False))
            assert (await third.packet())[1] == bytes((0, packets.Refusal.UNAVAILABLE))
    async with RawClient.login(broker, STT, client_id="stt-2", clean=False):
        pass


async def test_subscriptions_that_come_and_go_leave_nothing(embedded_broker):
    broker = embedded_broker()
    process = psutil.Process(broker.pid)
    async with RawClient.login(broker, STT) as raw:
        before = process.memory_info().rss
        for round_ in range(40):
            filters = [text(f"home/{round_}/{number}/".ljust(4000, "x")) for number in range(200)]
            raw.send(packet(0x82, b"\0\1" + b"".join(each + b"\0" for each in filters)))
            raw.send(packet(0xA2, b"\0\1" + b"".join(filters)))
            await raw.flushed()
        assert process.memory_info().rss - before < 16 * MIB


async def test_a_session_that_nobody_comes_back_to_makes_room(embedded_broker):
    broker = embedded_broker(limits=Limits(max_sessions=1, session_seconds=0))
    async with RawClient.login(broker, STT, client_id="stt-1", clean=False):
        pass
    code = packets.Refusal.UNAVAILABLE.value
    async with asyncio.timeout(DEADLINE):
        while code == packets.Refusal.UNAVAILABLE:
            async with RawClient.dial(broker) as other:
                other.send(connect_packet(STT, client_id="stt-2"))
                code = (await other.packet())[1][1]
    assert code == 0


async def test_a_qos_2_hoarder_is_cut_off(embedded_broker):
    broker = embedded_broker(limits=Limits(max_queued_messages=5))
    async with RawClient.login(broker, STT) as raw:
        for number in range(6):
            raw.publish("home/a", b"", qos=2, packet_id=number + 1)
        await raw.closed()
    (gone,) = await eventually(lambda: broker.events("disconnected"))
    assert "QoS 2" in gone["reason"]


async def test_one_user_cannot_take_all_places(embedded_broker):
    """Neither connections nor sessions; others, and the supervisor, have theirs."""
    broker = embedded_broker(limits=Limits(max_user_connections=2, max_user_sessions=3))
    full = bytes((0, packets.Refusal.UNAVAILABLE))

    async def refused(client_id: str) -> bool:
        async with RawClient.dial(broker) as raw:
            raw.send(connect_packet(STT, client_id=client_id, clean=False))
            return (await raw.packet())[1] == full

    async with (
        RawClient.login(broker, STT, client_id="stt-1"),
        RawClient.login(broker, STT, client_id="stt-2", clean=False),
    ):
        assert await refused("stt-3")
        # Who takes over a connection of his own needs no further place.
        async with RawClient.login(broker, STT, client_id="stt-1"):
            pass
        async with RawClient.login(broker, TTS), RawClient.login(broker, TTS, client_id="tts-2"):
            pass
        for _ in range(5):
            async with RawClient.login(broker, SUPERVISOR):
                pass
    await eventually(lambda: len(broker.events("disconnected")) == len(broker.events("connected")))
    # One session is kept; two more have a place.
    for number in (3, 4):
        async with RawClient.login(broker, STT, client_id=f"stt-{number}", clean=False):
            pass
    assert await refused("stt-5")
    async with RawClient.login(broker, STT, client_id="stt-2", clean=False) as back:
        assert back.session_present
    async with RawClient.login(broker, TTS, client_id="tts-1", clean=False):
        pass


async def test_what_is_not_acknowledged_is_bounded_for_a_user_and_overall(embedded_broker):
    """Ten clients of one user acknowledge nothing: what they are sent is bounded together, and others miss nothing."""
    size = 10_000
    broker = embedded_broker(limits=Limits(max_user_message_bytes=5 * size, max_message_bytes=8 * size))
    async with contextlib.AsyncExitStack() as stack:
        hoarders = [
            await stack.enter_async_context(RawClient.login(broker, STT, client_id=f"stt-{number}"))
            for number in range(10)
        ]
        for each in hoarders:
            await each.subscribe("home/#", qos=1)
        reader = await stack.enter_async_context(RawClient.login(broker, TTS))
        await reader.subscribe("home/#", qos=1)
        owner = await stack.enter_async_context(RawClient.login(broker, SUPERVISOR))
        await owner.subscribe("home/#", qos=1)
        for number in range(20):
            owner.publish("home/a", bytes(size), qos=1, packet_id=number + 1)
            # Each has nothing that it did not acknowledge when the next one comes.
            for each in (reader, owner):
                assert len((await each.message()).payload) == size
                await each.flushed()
        sent = 0
        for each in hoarders:
            each.send(packet(0xC0, b""))
            while (await each.packet())[0] >> 4 == 3:
                sent += 1
        # One message for each of them whatever the bound, and what five of them take is all that it allows.
        assert sent == 10
    async with RawClient.login(broker, STT, client_id="stt-new") as fresh:
        # What they had was given back.
        await fresh.subscribe("home/#", qos=1)
        for number in range(4):
            fresh.publish("home/a", bytes(size), qos=1, packet_id=number + 1)
        await fresh.flushed()
        kinds = [(await fresh.packet())[0] for _ in range(8)]
        assert sorted(kinds) == [0x32] * 4 + [0x40] * 4
