"""The bridge against a broker that does what real ones only do on their worst days."""

import asyncio
import dataclasses
import logging
import socket

import pytest

from actors.bridge import BridgeActor, Trouble
from actors.bridge._link import Link
from actors.runtime import Handle
from actors.signer import SignerActor, Unsigned
from schemas.broker_address import BrokerAddress, parse_mqtt_url
from tests.actors.bridge.support import (
    CONNECT,
    DISCONNECT,
    QUICK,
    SUBSCRIBE,
    WILL,
    Puppet,
    running_bridge,
    unsigned,
)

LOGGER = "actors.bridge"


@pytest.fixture
async def puppet():
    async with Puppet().running() as it:
        yield it


async def test_a_token_is_told_after_its_puback_and_not_before(puppet):
    puppet.hold = True
    async with running_bridge(puppet.url) as rig:
        await rig.retain("a", b"1", token="a1")
        await rig.retain("b", unsigned(1), token="b1")
        await puppet.until(lambda: len(puppet.published()) == 2, "both messages")
        assert rig.tokens == []
        assert (await rig.bridge.ask(BridgeActor.status)).pending == 2
        puppet.release(1)
        await rig.until(lambda: rig.tokens, "a token")
        assert rig.tokens == [{"a": "a1", "b": "b1"}[puppet.published()[0].topic]]
        puppet.release()
        await rig.acknowledged("a1", "b1")
        assert (await rig.bridge.ask(BridgeActor.status)).pending == 0
        puppet.hold = False


async def test_a_flood_on_one_topic_is_in_order_and_ends_with_the_last_value(puppet):
    async with running_bridge(puppet.url) as rig:
        await rig.connected()
        for number in range(5000):
            rig.bridge.tell(BridgeActor.retain, "t", b"%d" % number, number)
            if number % 500 == 0:
                await asyncio.sleep(0)  # the mailbox is bounded
        await rig.acknowledged(4999)
        numbers = [int(packet.payload) for packet in puppet.published()]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 4999
        # Each value that was sent is acknowledged by its own token, and no other.
        assert rig.tokens == numbers


async def test_a_change_while_one_is_under_way_waits_for_its_puback(puppet):
    puppet.hold = True
    async with running_bridge(puppet.url) as rig:
        await rig.retain("t", b"1", token=1)
        await puppet.until(puppet.published, "the first value")
        await rig.retain("t", b"2", token=2)
        await rig.retain("t", b"3", token=3)
        await rig.retain("other", b"x", token="x")
        await puppet.until(lambda: len(puppet.published()) == 2, "another topic")
        puppet.hold = False
        puppet.release()
        await rig.acknowledged(1, 3, "x")
        assert [packet.payload for packet in puppet.published()] == [b"1", b"x", b"3"]
        assert 2 not in rig.tokens


async def test_no_more_than_the_window_is_unacknowledged(puppet):
    puppet.hold = True
    timing = dataclasses.replace(QUICK, window=4)
    async with running_bridge(puppet.url, timing=timing) as rig:
        for number in range(10):
            await rig.retain(f"t/{number}", b"x", token=number)
        await puppet.until(lambda: len(puppet.published()) == 4, "a window")
        puppet.release(1)
        await puppet.until(lambda: len(puppet.published()) == 5, "the next one")
        assert len(puppet.held) == 4
        puppet.hold = False
        puppet.release()
        await rig.acknowledged(*range(10))


async def test_unacknowledged_values_go_out_again_after_the_connection_broke(puppet):
    puppet.hold = True
    async with running_bridge(puppet.url) as rig:
        await rig.retain("t", b"1", token=1)
        await rig.bridge.ask(BridgeActor.send, "event", b"e")
        await puppet.until(lambda: len(puppet.published()) == 2, "both")
        puppet.hold = False
        puppet.cut()
        await rig.acknowledged(1)
        await puppet.until(lambda: len(puppet.published()) == 4, "both again")
        assert sorted(packet.topic for packet in puppet.published()[2:]) == ["event", "t"]
        assert puppet.connections == 2


@pytest.mark.parametrize("user", [None, "steward"])
async def test_client_ids_are_random_for_each_connection(puppet, user):
    address = dataclasses.replace(parse_mqtt_url(puppet.url), user=user)
    async with running_bridge(address) as rig:
        await rig.connected()
        puppet.cut()
        await rig.connected(again=True)
    bodies = [packet.body for packet in puppet.packets if packet.kind == CONNECT]
    names = [body[12 : 12 + int.from_bytes(body[10:12])].decode() for body in bodies]
    assert len(set(names)) == 2
    assert all(name.startswith(f"{user or 'tars-supervisor'}-") for name in names)


async def test_subscriptions_come_before_publishes_and_return(puppet):
    async with running_bridge(puppet.url) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, "system/health/+", lambda *_: None)
        await rig.retain("t", b"1", token=1)
        await rig.acknowledged(1)
        puppet.packets.clear()
        puppet.cut()
        await puppet.until(puppet.published, "the value again")
        first = next(packet for packet in puppet.packets if packet.kind != CONNECT)
        assert first.kind == SUBSCRIBE
        assert b"system/health/+" in first.body


async def test_a_refused_subscription_is_told(puppet, caplog):
    puppet.suback_code = 0x80
    with caplog.at_level(logging.ERROR, LOGGER):
        async with running_bridge(puppet.url) as rig:
            await rig.bridge.ask(BridgeActor.subscribe, "system/health/+", lambda *_: None)
            await rig.retain("t", b"1", token=1)
            await rig.acknowledged(1)
    assert "refuses us the subscription of system/health/+" in caplog.text


async def test_a_handler_that_raises_harms_nothing(puppet, caplog):
    heard: list[bytes] = []

    def bad(topic: str, payload: bytes) -> None:
        raise RuntimeError("handler's own")

    with caplog.at_level(logging.ERROR, LOGGER):
        async with running_bridge(puppet.url) as rig:
            await rig.bridge.ask(BridgeActor.subscribe, "x/#", bad)
            await rig.bridge.ask(BridgeActor.subscribe, "x/y", rig.heard(lambda _, payload: heard.append(payload)))
            await rig.connected()
            puppet.publish("x/y", b"1")
            puppet.publish("x/y", b"2")
            await rig.until(lambda: heard == [b"1", b"2"], "both messages")
            assert puppet.connections == 1
    assert "handler's own" in caplog.text


async def test_what_is_too_large_or_not_text_never_reaches_a_handler(puppet, caplog):
    heard: list[int] = []
    async with running_bridge(puppet.url) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, "#", rig.heard(lambda _, payload: heard.append(len(payload))))
        await rig.connected()
        puppet.publish("x", b"x" * (512 * 1024 + 1))
        puppet.publish("", b"", raw_topic=b"\xff\xfe")
        puppet.publish("x", b"x" * 512 * 1024)
        await rig.until(lambda: heard, "the message that is allowed")
        assert heard == [512 * 1024]
        assert puppet.connections == 1
    assert "dropped a message of 524289 bytes" in caplog.text
    assert "not UTF-8" in caplog.text


@pytest.mark.parametrize(
    "noise",
    [b"\xf0\xff\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x90\x00", b"\x30\x01\x00", b"\x40\x00"],
)
async def test_what_is_not_mqtt_ends_the_connection_and_no_more(puppet, noise):
    async with running_bridge(puppet.url) as rig:
        await rig.retain("t", b"1", token=1)
        await rig.acknowledged(1)
        puppet.write_raw(noise)
        puppet.cut()
        assert (await rig.trouble()).trouble in {Trouble.PROTOCOL, Trouble.CLOSED}
        await puppet.until(lambda: len(puppet.published()) == 2, "the value again")


async def test_a_listener_that_never_answers_is_called_silent(puppet):
    puppet.connack = None
    timing = dataclasses.replace(QUICK, connect_timeout=0.1)
    async with running_bridge(puppet.url, timing=timing) as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.SILENT
        assert "does not answer within 0.1 s" in failure.reason
        puppet.connack = 0
        await rig.connected()


async def test_a_full_backlog_is_called_silent():
    """The kernel takes no more connections: connect() itself hangs."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(address)
        timing = dataclasses.replace(QUICK, connect_timeout=0.1)
        async with running_bridge(f"mqtt://127.0.0.1:{address[1]}", timing=timing) as rig:
            assert (await rig.trouble()).trouble is Trouble.SILENT


async def test_a_broker_that_acknowledges_nothing_is_called_silent(puppet):
    puppet.hold = True
    timing = dataclasses.replace(QUICK, puback_timeout=0.2)
    async with running_bridge(puppet.url, timing=timing) as rig:
        await rig.retain("t", b"1", token=1)
        failure = await rig.trouble()
        assert failure.trouble is Trouble.SILENT
        assert "acknowledges nothing" in failure.reason
        puppet.hold = False
        await rig.acknowledged(1)


async def test_no_answer_to_pings_is_called_silent(puppet):
    puppet.hold = True
    timing = dataclasses.replace(QUICK, keep_alive=1)
    async with running_bridge(puppet.url, timing=timing) as rig:
        await rig.connected()
        failure = await rig.trouble()
        assert failure.trouble is Trouble.SILENT
        assert "gone silent" in failure.reason


@pytest.mark.parametrize("code", [4, 5])
async def test_a_refused_login_is_said_and_not_repeated_until_the_address_changes(puppet, code):
    puppet.connack = code
    address = [parse_mqtt_url(puppet.url.replace("//", "//user:hunter2@"))]
    async with running_bridge(lambda: address[0]) as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.LOGIN_REFUSED
        assert "'user'" in failure.reason
        assert "MQTT_URL" in failure.reason
        assert "hunter2" not in f"{failure} {rig.states}"
        puppet.connack = 0
        address[0] = dataclasses.replace(address[0], password="another")
        await rig.connected()
        assert puppet.connections == 2


async def test_another_refusal_is_said(puppet):
    puppet.connack = 3
    async with running_bridge(puppet.url) as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.PROTOCOL
        assert "unavailable" in failure.reason
        puppet.connack = 0
        await rig.connected()


async def test_nobody_listens_and_then_somebody_does(puppet):
    address: list[BrokerAddress | None] = [None]
    async with running_bridge(lambda: address[0]) as rig:
        assert (await rig.trouble()).trouble is Trouble.NO_ADDRESS
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            address[0] = BrokerAddress("127.0.0.1", closed.getsockname()[1])
            await rig.until(lambda: rig.states[-1].failure.trouble is Trouble.REFUSED, "a refusal")
            assert "is the broker running?" in rig.states[-1].failure.reason
        address[0] = parse_mqtt_url(puppet.url)
        await rig.connected()
        # Each reason is told once, however often it was met.
        assert len(rig.states) == 3


async def test_a_host_that_does_not_exist_is_unreachable():
    async with running_bridge("mqtt://broker.invalid") as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.UNREACHABLE
        assert "broker.invalid" in failure.reason


async def test_a_fault_of_ours_is_told_and_survived(puppet):
    wills = [RuntimeError("no will"), WILL]

    def will() -> tuple[str, bytes]:
        it = wills.pop(0) if len(wills) > 1 else wills[0]
        if isinstance(it, RuntimeError):
            raise it
        return it

    async with running_bridge(puppet.url, will=will) as rig:
        await rig.connected()
        assert rig.states[0].failure.trouble is Trouble.INTERNAL


async def test_a_listener_that_raises_harms_nothing(puppet):
    def bad(_: object) -> None:
        raise RuntimeError

    async with (
        running_bridge(puppet.url) as rig,
        running_bridge(puppet.url, on_state=bad, on_acknowledged=bad) as bad_rig,
    ):
        await bad_rig.retain("t", b"1", token=1)
        await puppet.until(puppet.published, "the value")
        assert (await bad_rig.bridge.ask(BridgeActor.status)).broker
        assert rig.ref.is_alive()


async def test_messages_wait_while_away_and_the_oldest_are_dropped(puppet):
    address: list[BrokerAddress | None] = [None]
    async with running_bridge(lambda: address[0]) as rig:
        for number in range(1003):
            await rig.bridge.ask(BridgeActor.send, "events", b"%d" % number)
        state = await rig.bridge.ask(BridgeActor.status)
        assert (state.queued, state.dropped) == (1000, 3)
        address[0] = parse_mqtt_url(puppet.url)
        await puppet.until(lambda: len(puppet.published()) == 1000, "all of them")
        assert [int(packet.payload) for packet in puppet.published()] == list(range(3, 1003))
        assert not any(packet.flags & 1 for packet in puppet.published())


async def test_what_is_wanted_in_one_turn_leaves_in_one_send(puppet, monkeypatch):
    async with running_bridge(puppet.url) as rig:
        await rig.connected()
        await puppet.until(lambda: puppet.packets[-1].kind == SUBSCRIBE, "the subscription")
        sends = []
        send = Link._send
        monkeypatch.setattr(Link, "_send", lambda link: (sends.append(len(link._unsent)), send(link)))
        for number in range(5):
            rig.bridge.tell(BridgeActor.retain, f"signed/{number}", unsigned(number + 1), number)
            rig.bridge.tell(BridgeActor.retain, f"plain/{number}", b"x")
            rig.bridge.tell(BridgeActor.send, "event", b"x")
        await rig.acknowledged(*range(5))
        assert sends[0] == 15


async def test_a_broker_that_reads_nothing_fills_no_memory():
    """Of QoS 0, which nothing acknowledges, as many messages wait as while the broker is away."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(1)
        writer.transport.pause_reading()
        writer.write(b"\x20\x02\0\0")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with running_bridge(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}") as rig:
            await rig.connected()
            for _ in range(1500):
                await rig.bridge.ask(BridgeActor.send, "events", bytes(20_000), qos=0)
                await asyncio.sleep(0)
            state = await rig.bridge.ask(BridgeActor.status)
            assert state.connected
            assert state.dropped > 0
            assert state.queued * 20_000 <= 4 * 1024 * 1024
            rig.ref.cancel()
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()
        await server.wait_closed()


async def test_the_signer_away_holds_back_only_what_has_to_be_signed(puppet):
    async with running_bridge(puppet.url) as rig:
        await rig.connected()
        signer = rig.signer._slot.ref
        rig.signer.detach()
        await rig.retain("signed", unsigned(1), token="signed")
        await rig.retain("plain", b"1", token="plain")
        await rig.acknowledged("plain")
        assert "signed" not in rig.tokens
        rig.signer.attach(signer)
        await rig.acknowledged("signed")


async def test_what_comes_while_a_signature_is_awaited_does_not_wait_for_a_tick(puppet):
    async with running_bridge(puppet.url, timing=dataclasses.replace(QUICK, tick=1000)) as rig:
        await rig.connected()
        rig.signer.detach()
        await rig.retain("signed", unsigned(1), token="signed")
        await rig.retain("plain", b"1", token="plain")
        await rig.acknowledged("plain")
        assert "signed" not in rig.tokens
        rig.ref.cancel()


async def test_what_cannot_be_signed_holds_back_nothing(puppet, caplog):
    async with running_bridge(puppet.url) as rig:
        await rig.retain("bad", Unsigned("NOT A NAME", b"{}", "0" * 64, 1, "x"), token="bad")
        await rig.retain("good", unsigned(1), token="good")
        await rig.acknowledged("good")
        await rig.retain("bad", unsigned(2), token="mended")
        await rig.acknowledged("mended")
    assert "version 1 of bad cannot be signed" in caplog.text
    assert "bad" not in rig.tokens


async def test_an_orderly_stop_publishes_what_is_pending_and_says_goodbye(puppet):
    async with running_bridge(puppet.url) as rig:
        await rig.connected()
        for number in range(100):
            rig.bridge.tell(BridgeActor.retain, f"t/{number}", b"last words")
        rig.ref.stop(block=False)
        await rig.ref.exited.wait()
    await puppet.until(lambda: puppet.packets[-1].kind == DISCONNECT, "DISCONNECT")
    assert len(puppet.published()) == 100


async def test_goodbye_arrives_although_something_is_unread(puppet):
    """Closing a socket with unread bytes resets the connection, and what was sent last may be lost."""
    async with running_bridge(puppet.url) as rig:
        await rig.connected()
        await puppet.until(lambda: puppet.packets[-1].kind == SUBSCRIBE, "the subscription")
        for _ in range(40):
            puppet.publish("x", b"x" * 100_000)
        rig.ref.stop(block=False)
        await rig.ref.exited.wait()
    await puppet.until(lambda: puppet.packets[-1].kind == DISCONNECT, "DISCONNECT")


async def test_an_orderly_stop_does_not_wait_for_a_silent_broker(puppet):
    puppet.hold = True
    async with running_bridge(puppet.url) as rig:
        await rig.retain("t", b"1")
        await puppet.until(puppet.published, "the value")
    await puppet.until(lambda: puppet.packets[-1].kind == DISCONNECT, "DISCONNECT")


@pytest.mark.parametrize("turns", range(24))
async def test_ended_at_any_moment_it_leaves_nothing(puppet, turns):
    """The fixtures look for tasks, threads and sockets that are left."""
    async with running_bridge(puppet.url, crash=True) as rig:
        for number in range(20):
            await rig.retain(f"t/{number}", unsigned(number + 1))
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_bad_names_are_the_askers_error(puppet):
    async with running_bridge(puppet.url) as rig:
        with pytest.raises(ValueError, match="wildcard"):
            await rig.retain("a/#", b"")
        with pytest.raises(ValueError, match="wildcard"):
            await rig.bridge.ask(BridgeActor.send, "a/+", b"")
        with pytest.raises(ValueError, match="QoS"):
            await rig.bridge.ask(BridgeActor.send, "a", b"", qos=2)
        with pytest.raises(ValueError, match="'#' is not the last"):
            await rig.bridge.ask(BridgeActor.subscribe, "a/#/b", print)
        assert rig.ref.is_alive()


async def test_a_mirror_must_be_a_topic():
    signer: Handle[SignerActor] = Handle("signer")
    with pytest.raises(ValueError, match="wildcard"):
        BridgeActor(BrokerAddress("x", 1), signer=signer, will=lambda: WILL, mirrors=["config/#"])
