"""The bridge against real brokers: what they retain is what is wanted, whatever happened to them."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
import signal
import socket
import ssl
import time

import pytest

from actors.bridge import BridgeActor, Desired, Timing, Trouble
from tests.actors.bridge.certificates import certificates
from tests.actors.bridge.support import (
    DEADLINE,
    QUICK,
    WILL,
    client,
    retained,
    running_bridge,
    unsigned,
)
from tests.brokers import SUPERVISOR, Broker
from tests.support import Mosquitto, eventually, needs


class Served:
    """A broker and our login there. It can be stopped, killed and started again, and then has forgotten everything."""

    def __init__(self, broker: Broker) -> None:
        self.start, self.stop, self.kill, self.restart = broker.start, broker.stop, broker.kill, broker.restart
        self.port = broker.port
        self.url = f"mqtt://{SUPERVISOR.name}:{SUPERVISOR.password}@127.0.0.1:{broker.port}"
        self._broker = broker

    @property
    def pid(self) -> int:
        return self._broker.pid


@pytest.fixture
def broker(any_broker) -> Served:
    return Served(any_broker)


class FakeClock:
    """Real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.wall_ahead = self.ahead = 0.0
        self.reads = 0

    def wall(self) -> float:
        return time.time() + self.ahead + self.wall_ahead

    def monotonic(self) -> float:
        self.reads += 1
        return time.monotonic() + self.ahead


async def test_signed_updates_are_retained_and_verify(broker):
    async with running_bridge(broker.url) as rig:
        configs = {f"service-{number}": {"größe": number, "text": "a|b"} for number in range(20)}
        for version, (service, config) in enumerate(configs.items(), 1):
            await rig.retain(f"system/config/{service}", unsigned(version, service, **config), token=service)
        await rig.acknowledged(*configs)
        found = await retained(broker.url, "system/config/#", at_least=20)
    assert len(found) == 20
    for version, (service, config) in enumerate(configs.items(), 1):
        update = rig.verified(found[f"system/config/{service}"])
        assert (update.service, update.version, update.config) == (service, version, config)
        age = dt.datetime.now(dt.UTC) - update.issued_at
        assert dt.timedelta(0) <= age < dt.timedelta(minutes=1)


async def test_an_empty_content_clears_the_topic(broker):
    async with running_bridge(broker.url) as rig:
        await rig.retain("system/health/stt", b"x", token=1)
        await rig.retain("system/health/tts", b"y", token=2)
        await rig.acknowledged(1, 2)
        await rig.retain("system/health/stt", b"", token=3)
        await rig.acknowledged(3)
        assert await retained(broker.url) == {"system/health/tts": b"y"}


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_everything_is_right_after_an_outage_with_many_changes(broker, how):
    services = [f"service-{number}" for number in range(50)]
    async with running_bridge(broker.url) as rig:
        await rig.retain("system/state/quiet", b"never changed")
        for service in services:
            await rig.retain(f"system/config/{service}", unsigned(1, service), token=(service, 1))
        await rig.acknowledged(*((service, 1) for service in services))
        getattr(broker, how)()
        await rig.until(lambda: not rig.states[-1].connected, "noticing")
        for version in range(2, 22):
            for service in services:
                await rig.retain(f"system/config/{service}", unsigned(version, service, v=version), (service, version))
        broker.start()
        await rig.acknowledged(*((service, 21) for service in services))
        await rig.settled()
        found = await retained(broker.url, at_least=51)
        assert found.pop("system/state/quiet") == b"never changed"
        updates = {topic: rig.verified(payload) for topic, payload in found.items()}
    assert {topic: update.version for topic, update in updates.items()} == {
        f"system/config/{service}": 21 for service in services
    }
    assert all(update.config == {"v": 21} for update in updates.values())
    # What was overtaken while away was never there, so it is never acknowledged.
    assert {version for _, version in rig.tokens} == {1, 21}


async def test_a_frozen_broker_is_noticed_and_right_again_when_it_thaws(broker):
    timing = dataclasses.replace(QUICK, connect_timeout=0.2, puback_timeout=0.3)
    async with running_bridge(broker.url, timing=timing) as rig:
        await rig.retain("t", b"1", token=1)
        await rig.acknowledged(1)
        heard: list[bytes] = []
        await rig.bridge.ask(BridgeActor.subscribe, "to us", rig.heard(lambda _, payload: heard.append(payload)))
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            await rig.retain("t", b"2", token=2)
            assert (await rig.trouble()).trouble is Trouble.SILENT
            await rig.retain("t", b"3", token=3)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        await rig.acknowledged(3)
        await rig.settled()
        # The connections that were given up may have left something to be read: the last word is ours.
        assert (await retained(broker.url))["t"] == b"3"
        async with client(broker.url) as worker:
            await worker.publish("to us", b"heard", qos=1)
        await rig.until(lambda: heard, "the subscription's return")


@pytest.mark.soak
@pytest.mark.parametrize("how", ["stop", "kill", "freeze", "mute"])
async def test_ten_seconds_away(broker, how):
    """With the times of a board. `mute`: at the broker's port somebody takes connections and never answers."""
    heard: list[bytes] = []
    services = [f"service-{number}" for number in range(50)]
    async with running_bridge(broker.url, timing=Timing()) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, "to us", rig.heard(lambda _, payload: heard.append(payload)))
        for service in services:
            await rig.retain(f"system/config/{service}", unsigned(1, service), token=(service, 1))
        await rig.acknowledged(*((service, 1) for service in services))
        with contextlib.ExitStack() as stack:
            if how == "freeze":
                os.kill(broker.pid, signal.SIGSTOP)
            else:
                broker.kill() if how == "kill" else broker.stop()
            if how == "mute":
                stack.enter_context(socket.create_server(("127.0.0.1", broker.port)))
            for version in range(2, 12):
                for service in services:
                    await rig.retain(f"system/config/{service}", unsigned(version, service), (service, version))
                await asyncio.sleep(1)
        if how == "freeze":
            os.kill(broker.pid, signal.SIGCONT)
        else:
            broker.start()
        await rig.acknowledged(*((service, 11) for service in services))
        await rig.settled()
        found = await retained(broker.url, "system/config/#", at_least=50)
        assert {rig.verified(payload).version for payload in found.values()} == {11}
        async with client(broker.url) as worker:
            await worker.publish("to us", b"heard", qos=1)
        await rig.until(lambda: heard, "the subscription's return")


@pytest.mark.parametrize("turns", [1, 3, 8, 20, 60])
async def test_cancelled_in_the_middle_of_publishing_it_loses_nothing(broker, turns):
    """The next incarnation, with the same memory, brings everything; the fixtures look for what is left behind."""
    desired = Desired()
    topics = [f"system/state/s{number}" for number in range(200)]
    async with running_bridge(broker.url, desired=desired, crash=True) as rig:
        await rig.connected()
        await asyncio.gather(*(rig.retain(topic, topic.encode() * 20) for topic in topics))
        for _ in range(turns):
            await asyncio.sleep(0)
    async with running_bridge(broker.url, desired=desired) as rig:
        await rig.settled()
        found = await retained(broker.url, "system/state/#", at_least=200)
    assert found == {topic: topic.encode() * 20 for topic in topics}


CRAMPED = """#!/bin/sh
trap '' XFSZ
ulimit -f {blocks}
exec {program} "$@"
"""


async def test_a_full_disk_at_the_brokers_side(tmp_path):
    """Mosquitto goes on in memory, and what it could not save is gone when it comes back: the bridge makes it right.

    The embedded broker writes nothing to disk.
    """
    program = tmp_path / "mosquitto.sh"
    program.write_text(CRAMPED.format(blocks=32, program=needs("mosquitto")))
    program.chmod(0o700)
    broker = Mosquitto(
        tmp_path / "mosquitto", persistence=True, extra=["autosave_interval 1", "autosave_on_changes true"]
    )
    broker._program = str(program)
    broker.start()
    try:
        async with running_bridge(broker.url) as rig:
            await rig.retain("system/state/a", b"old", token=0)
            await rig.acknowledged(0)
            for number in range(30):
                await rig.retain(f"system/state/{number}", bytes(4000), token=number + 1)
            await rig.retain("system/state/a", b"new", token=31)
            await rig.acknowledged(*range(1, 32))
            assert len(await retained(broker.url, "system/state/#", at_least=31)) == 31
            broker.kill()
            database = tmp_path / "mosquitto" / "mosquitto.db"
            assert database.stat().st_size <= 32 * 512, "there was room"
            # Mosquitto 2.0 does not start on such a file: somebody has to make room.
            database.unlink()
            await rig.until(lambda: not rig.states[-1].connected, "noticing")
            broker.start()
            await rig.connected(again=True)
            await rig.settled()
            found = await retained(broker.url, "system/state/#", at_least=31)
        assert found.pop("system/state/a") == b"new"
        assert found == {f"system/state/{number}": bytes(4000) for number in range(30)}
    finally:
        broker.stop()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_subscriptions_return_after_an_outage(broker, how):
    heard: list[tuple[str, bytes]] = []
    async with running_bridge(broker.url) as rig:
        listener = rig.heard(lambda topic, payload: heard.append((topic, payload)))
        await rig.bridge.ask(BridgeActor.subscribe, "system/+/stt", listener)
        await rig.connected()
        for number in (b"1", b"2"):
            async with client(broker.url) as worker:
                await worker.publish("system/health/stt", number, qos=1)
                await worker.publish("elsewhere", number, qos=1)
            await rig.until(lambda number=number: heard and heard[-1][1] == number, "hearing it")
            getattr(broker, how)()
            broker.start()
            await rig.connected(again=True)
    assert heard == [("system/health/stt", b"1"), ("system/health/stt", b"2")]


async def test_subscribing_later_brings_what_is_retained(broker):
    heard: list[bytes] = []
    async with running_bridge(broker.url) as rig:
        await rig.retain("t", b"1", token=1)
        await rig.acknowledged(1)
        await rig.bridge.ask(BridgeActor.subscribe, "t", rig.heard(lambda _, payload: heard.append(payload)))
        await rig.until(lambda: heard, "the retained value")


async def test_our_own_clearing_comes_back(broker):
    """So that whoever clears a topic knows from when on messages are new."""
    heard: list[bytes] = []
    async with running_bridge(broker.url) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, "t", rig.heard(lambda _, payload: heard.append(payload)))
        await rig.retain("t", b"")
        await rig.until(lambda: heard == [b""], "the empty message")


async def test_messages_are_sent_and_not_retained(broker):
    async with running_bridge(broker.url) as rig, client(broker.url) as onlooker:
        await onlooker.subscribe("system/events", qos=1)
        await rig.bridge.ask(BridgeActor.send, "system/events", b"1")
        await rig.bridge.ask(BridgeActor.send, "system/events", b"2", qos=0)
        async with asyncio.timeout(DEADLINE):
            found = [await anext(onlooker.messages) for _ in range(2)]
        assert [message.payload for message in found] == [b"1", b"2"]
        assert await retained(broker.url, "system/events") == {}


async def test_legacy_mirrors_get_the_same_bytes(broker):
    mirrors = ("config/update", "config/updated/{service}")
    async with client(broker.url) as onlooker:
        await onlooker.subscribe([("config/#", 1), ("system/config/+", 1)])
        async with running_bridge(broker.url, mirrors=mirrors) as rig:
            await rig.retain("system/config/stt", unsigned(1), token=1)
            await rig.retain("system/state/stt", b"{}", token=2)
            await rig.acknowledged(1, 2)
            async with asyncio.timeout(DEADLINE):
                found = [await anext(onlooker.messages) for _ in range(3)]
        assert {message.topic.value for message in found} == {
            "system/config/stt",
            "config/update",
            "config/updated/stt",
        }
        assert len({message.payload for message in found}) == 1
        assert all(message.qos == 1 for message in found)
        assert await retained(broker.url, "config/#") == {}


async def issued_later(rig, url: str, than: dt.datetime) -> dt.datetime:
    """Wait until the retained update was issued later than that."""
    async with asyncio.timeout(DEADLINE), client(url) as onlooker:
        await onlooker.subscribe("system/config/stt", qos=1)
        async for message in onlooker.messages:
            update = rig.verified(bytes(message.payload))
            assert update.version == 1
            if update.issued_at > than:
                return update.issued_at
    raise AssertionError


async def test_updates_are_signed_again_in_time_on_clock_jumps_on_request_and_after_reconnects(broker):
    clock = FakeClock()
    timing = dataclasses.replace(QUICK, tick=0.01, wall=clock.wall, monotonic=clock.monotonic, puback_timeout=1e9)
    async with running_bridge(broker.url, timing=timing) as rig:
        await rig.retain("system/config/stt", unsigned(1), token=1)
        await rig.retain("system/state/stt", b"{}", token=2)
        await rig.acknowledged(1, 2)
        issued = rig.verified((await retained(broker.url))["system/config/stt"]).issued_at
        clock.ahead += timing.sign_again
        issued = await issued_later(rig, broker.url, issued)
        for jump in (timing.drift, -2 * timing.drift):
            clock.wall_ahead += jump
            issued = await issued_later(rig, broker.url, issued)
        rig.bridge.tell(BridgeActor.resign)
        issued = await issued_later(rig, broker.url, issued)
        broker.restart()
        await issued_later(rig, broker.url, issued)
        # Each token was told once all the same.
        assert sorted(rig.tokens) == [1, 2]


async def test_within_two_minutes_and_not_before_time(broker):
    clock = FakeClock()
    timing = dataclasses.replace(QUICK, tick=0.01, wall=clock.wall, monotonic=clock.monotonic, puback_timeout=1e9)
    assert timing.sign_again + 2 * 1.0 < 120
    counts: dict[str, int] = {}

    def count(topic: str, _payload: bytes) -> None:
        counts[topic] = counts.get(topic, 0) + 1

    async with running_bridge(broker.url, timing=timing) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, "#", rig.heard(count))
        topics = [f"system/config/service-{number}" for number in range(50)]
        for topic in topics:
            await rig.retain(topic, unsigned(1, topic.rsplit("/", 1)[1]), token=topic)
        await rig.until(lambda: all(topic in counts for topic in topics), "all of them")
        await rig.acknowledged(*topics)
        counts.clear()
        clock.ahead += timing.sign_again - timing.sign_spread - 20
        # The tick after the one that may be reading the clock right now.
        reads = clock.reads
        await eventually(lambda: clock.reads > reads + 4)
        await rig.retain("marker", b"")
        await rig.until(lambda: "marker" in counts, "the marker")
        assert counts == {"marker": 1}
        clock.ahead += timing.sign_spread + 20
        await rig.until(lambda: all(topic in counts for topic in topics), "all of them again")
        assert max(counts.values()) == 1


async def test_a_wrong_password_is_said_and_tried_again_slowly(any_broker):
    """Until then nothing else is tried: it would lock us out, or drown the log."""
    url = f"mqtt://{SUPERVISOR.name}:wrong@127.0.0.1:{any_broker.port}"
    timing = dataclasses.replace(QUICK, stubborn_retry=0.5)
    async with running_bridge(url, timing=timing) as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.LOGIN_REFUSED
        assert "'supervisor'" in failure.reason
        assert "wrong" not in failure.reason
        await rig.retain("t", b"1")
        # The same refusal again is no news; a broker that is gone is.
        any_broker.stop()
        await rig.until(lambda: rig.states[-1].failure.trouble is not Trouble.LOGIN_REFUSED, "another attempt")
        any_broker.start()
        await rig.until(lambda: rig.states[-1].failure.trouble is Trouble.LOGIN_REFUSED, "being refused again")


async def test_a_wrong_password_is_said_and_mended(mosquitto):
    broker = mosquitto(users={"supervisor": "right"})
    async with running_bridge(broker.url.replace("//", "//supervisor:wrong@")) as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.LOGIN_REFUSED
        assert "'supervisor'" in failure.reason
        assert "wrong" not in failure.reason
    async with running_bridge(broker.url) as rig:
        assert "without a user name" in (await rig.trouble()).reason
    async with running_bridge(broker.url.replace("//", "//supervisor:right@")) as rig:
        await rig.connected()


async def test_an_orderly_stop_publishes_no_last_will(broker):
    """Also where messages for us are unread at that moment, which make the kernel reset the connection."""
    for _ in range(20):
        async with client(broker.url) as worker:
            async with running_bridge(broker.url) as rig:
                await rig.bridge.ask(BridgeActor.subscribe, "noise", lambda *_: None)
                await rig.retain(WILL[0], b"stopped", token=1)
                await rig.acknowledged(1)
                await asyncio.gather(*(worker.publish("noise", b"x" * 1000) for _ in range(50)))
            await worker.publish("fence", b"", qos=1)
        assert (await retained(broker.url, WILL[0])) == {WILL[0]: b"stopped"}


async def test_a_crash_publishes_the_last_will(broker):
    async with client(broker.url) as onlooker:
        await onlooker.subscribe(WILL[0], qos=1)
        async with running_bridge(broker.url, crash=True) as rig:
            await rig.retain(WILL[0], b"up", token=1)
            await rig.acknowledged(1)
        async with asyncio.timeout(DEADLINE):
            assert [(await anext(onlooker.messages)).payload for _ in range(2)] == [b"up", WILL[1]]


async def test_a_last_will_of_an_older_connection_is_undone(broker):
    """The broker may find out that a connection of ours broke long after the next one was made."""
    heard: list[bytes] = []
    async with running_bridge(broker.url) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, WILL[0], rig.heard(lambda _, payload: heard.append(payload)))
        await rig.retain(WILL[0], b"up", token=1)
        await rig.acknowledged(1)
        async with client(broker.url) as late:
            await late.publish(WILL[0], WILL[1], qos=1, retain=True)
        await rig.until(lambda: heard[-2:] == [WILL[1], b"up"], "putting it right")
        assert await retained(broker.url, WILL[0]) == {WILL[0]: b"up"}


async def test_a_restarted_bridge_knows_everything_again(broker):
    """One memory for all incarnations of the actor."""
    desired, heard = Desired(), []
    async with running_bridge(broker.url, desired=desired, crash=True) as rig:
        await rig.bridge.ask(BridgeActor.subscribe, "t", lambda _, payload: heard.append(payload))
        await rig.retain("system/config/stt", unsigned(1), token=1)
        await rig.acknowledged(1)
        await rig.retain("late", b"2", token=2)
    broker.restart()
    async with running_bridge(broker.url, desired=desired) as rig:
        await rig.settled()
        assert set(await retained(broker.url)) >= {"system/config/stt", "late"}
        async with client(broker.url) as worker:
            await worker.publish("t", b"x", qos=1)
        async with asyncio.timeout(DEADLINE):
            while not heard:
                await asyncio.sleep(0.005)


async def test_tls(mosquitto, tmp_path):
    cert, key = certificates(tmp_path)
    broker = mosquitto(extra=[f"certfile {cert}", f"keyfile {key}"])
    url = broker.url.replace("mqtt://", "mqtts://")

    def trusting() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(cert))

    async with running_bridge(url, tls_context=trusting) as rig:
        heard: list[bytes] = []
        await rig.bridge.ask(BridgeActor.subscribe, "t/#", rig.heard(lambda _, payload: heard.append(payload)))
        # More than one TLS record, and more than a socket's buffer.
        for number in range(20):
            await rig.retain(f"t/{number}", b"x" * 200_000, token=number)
        await rig.acknowledged(*range(20))
        await rig.until(lambda: len(heard) == 20, "all of them back")
    async with running_bridge(url) as rig:
        failure = await rig.trouble()
        assert failure.trouble is Trouble.TLS
        assert "self-signed" in failure.reason.replace("self signed", "self-signed")
    async with running_bridge(broker.url) as rig:
        # Without TLS towards a TLS listener: it closes, or says what is not MQTT.
        assert (await rig.trouble()).trouble in {Trouble.CLOSED, Trouble.PROTOCOL, Trouble.SILENT}


async def test_over_tls_an_orderly_stop_publishes_no_last_will_and_a_crash_does(mosquitto, tmp_path):
    cert, key = certificates(tmp_path)
    broker = mosquitto(extra=[f"certfile {cert}", f"keyfile {key}"])
    trusting = ssl.create_default_context(cafile=str(cert))
    url = broker.url.replace("mqtt://", "mqtts://")
    heard: list[bytes] = []
    async with running_bridge(url, tls_context=lambda: trusting, will=lambda: ("onlooker", b"")) as onlooker:
        listener = onlooker.heard(lambda _, payload: heard.append(payload))
        await onlooker.bridge.ask(BridgeActor.subscribe, WILL[0], listener)
        await onlooker.connected()
        for _ in range(5):
            async with running_bridge(url, tls_context=lambda: trusting) as rig:
                await rig.bridge.ask(BridgeActor.subscribe, "noise", lambda *_: None)
                await rig.retain(WILL[0], b"stopped", token=1)
                await rig.acknowledged(1)
                for _ in range(50):
                    await onlooker.bridge.ask(BridgeActor.send, "noise", b"x" * 1000)
            await onlooker.bridge.ask(BridgeActor.send, WILL[0], b"fence")
            await onlooker.until(lambda: heard[-1:] == [b"fence"], "the fence")
        assert set(heard) == {b"stopped", b"fence"}
        async with running_bridge(url, crash=True, tls_context=lambda: trusting) as rig:
            await rig.connected()
        await onlooker.until(lambda: heard[-1] == WILL[1], "the last will")


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_over_tls_ended_at_any_moment_it_leaves_nothing(turns, mosquitto, tmp_path):
    cert, key = certificates(tmp_path)
    broker = mosquitto(extra=[f"certfile {cert}", f"keyfile {key}"])
    trusting = ssl.create_default_context(cafile=str(cert))
    url = broker.url.replace("mqtt://", "mqtts://")
    async with running_bridge(url, crash=True, tls_context=lambda: trusting) as rig:
        for number in range(20):
            await rig.retain(f"t/{number}", unsigned(number + 1))
        if turns > 20:
            await rig.connected()
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_tls_towards_something_that_has_none(broker):
    timing = dataclasses.replace(QUICK, connect_timeout=1)
    async with running_bridge(broker.url.replace("mqtt://", "mqtts://"), timing=timing) as rig:
        assert (await rig.trouble()).trouble in {Trouble.TLS, Trouble.UNREACHABLE, Trouble.SILENT}


async def test_a_large_backlog_of_large_configs_goes_out(broker):
    text = "x" * 200_000
    async with running_bridge(broker.url) as rig:
        for number in range(40):
            await rig.retain(f"system/config/service-{number}", unsigned(1, f"service-{number}", text=text), number)
        await rig.acknowledged(*range(40))
        found = await retained(broker.url, "system/config/#", at_least=40)
        assert len(found) == 40
        assert rig.verified(found["system/config/service-39"]).config == {"text": text}
