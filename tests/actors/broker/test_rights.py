"""Who gets in, and who writes and reads what."""

import socket

import aiomqtt
import psutil
import pytest

from actors.mqtt.packets import Publish, Refusal
from tests.actors.broker.clients import (
    RawClient,
    client,
    connect_packet,
    receive,
    received_until,
    tool,
)
from tests.brokers import READER, STT, SUPERVISOR, TTS, Login
from tests.support import wait_until

END = "system/state/end"
ALL_SYSTEM = [
    "system/config/stt",
    "system/config/tts",
    "system/control/stt",
    "system/control/tts",
    "system/state/tts",
    "system/events",
    "system/health/config-manager",
    "system/health/stt-worker",
    "system/health/tts",
    "system/applied/stt",
    "system/applied/tts",
]


async def refusal(broker, login, **options) -> int:
    """The code with which a login is refused."""
    async with RawClient.dial(broker) as raw:
        raw.send(connect_packet(login, **options))
        first, body = await raw.packet()
        assert first == 0x20
        await raw.closed()
        return body[1]


@pytest.mark.parametrize(
    ("who", "writes"),
    [
        (SUPERVISOR, [*ALL_SYSTEM, "home/a"]),
        (STT, ["system/health/stt-worker", "system/applied/stt", "home/a"]),
        (TTS, ["system/health/tts", "system/applied/tts", "home/a"]),
        (READER, []),
    ],
    ids=lambda each: getattr(each, "name", None),
)
@pytest.mark.parametrize("how", ["publish", "retained", "will"])
async def test_who_writes_what(any_broker, who, writes, how):
    """What is forbidden is acknowledged (aiomqtt waits for that) and not delivered."""
    topics = [*ALL_SYSTEM, "home/a"]
    async with client(any_broker, SUPERVISOR) as witness:
        await witness.subscribe([("system/#", 1), ("home/#", 1)])
        if how == "will":
            for topic in topics:
                await lose(any_broker, who, Publish(topic, b"", 1, retain=False))
        else:
            async with client(any_broker, who) as writer:
                for topic in topics:
                    await writer.publish(topic, b"x", qos=1, retain=how == "retained")
        if how == "will":
            # The wills of lost connections come when the broker notices.
            found = [message.topic.value for message in await receive(witness, len(writes))] if writes else []
            assert sorted(found) == sorted(writes)
        await witness.publish(END, b"", qos=1)
        rest = [topic for topic, _ in await received_until(witness, END)]
        assert rest == ([] if how == "will" else writes)
    if how == "retained":
        async with client(any_broker, SUPERVISOR) as late:
            await late.subscribe([("system/#", 1), ("home/#", 1)])
            await late.publish(END, b"", qos=1)
            assert sorted(topic for topic, _ in await received_until(late, END)) == sorted(writes)


async def lose(broker, login, will) -> None:
    """Connect with a last will, if it is let in with that, and get lost."""
    async with RawClient.dial(broker) as raw:
        raw.send(connect_packet(login, will=will))
        await raw.packet()


@pytest.mark.parametrize(
    ("who", "reads"),
    [
        (SUPERVISOR, [*ALL_SYSTEM, "home/a"]),
        (
            STT,
            [
                "system/config/stt",
                "system/control/stt",
                "system/state/tts",
                "system/health/config-manager",
                "system/health/stt-worker",
                "system/health/tts",
                "home/a",
            ],
        ),
        (READER, ALL_SYSTEM),
    ],
    ids=lambda each: getattr(each, "name", None),
)
@pytest.mark.parametrize("how", ["live", "retained"])
async def test_a_wildcard_subscription_shows_each_what_it_may_read(any_broker, who, reads, how):
    async with client(any_broker, SUPERVISOR) as owner, client(any_broker, who) as watcher:
        if how == "live":
            await watcher.subscribe("#", qos=1)
        for topic in [*ALL_SYSTEM, "home/a"]:
            await owner.publish(topic, b"x", qos=1, retain=how == "retained")
        if how == "retained":
            await watcher.subscribe("#", qos=1)
        found = [message.topic.value for message in await receive(watcher, len(reads))]
        await owner.publish(END, b"", qos=1)
        assert sorted(found) == sorted(reads)
        assert await received_until(watcher, END) == []


async def test_a_subscription_that_could_deliver_nothing_is_refused_clearly(shared_broker):
    broker = shared_broker
    seen = await tool("mosquitto_sub", broker, STT, "-t", "system/config/tts", "-C", "1", "-W", "25")
    assert b"denied" in seen.stderr


async def test_a_forbidden_publish_is_logged_once_with_a_count(embedded_broker):
    broker = embedded_broker()
    async with client(broker, READER) as reader:
        for _ in range(5):
            await reader.publish("system/config/stt", b"secret-payload", qos=1)
    wait_until(lambda: broker.events("client_summary"))
    assert [event["topic"] for event in broker.events("publish_refused")] == ["system/config/stt"]
    assert broker.events("client_summary")[0]["refused_publishes"] == 5
    assert "secret-payload" not in str(broker.events())


async def test_wrong_password_unknown_user_and_none(any_shared_broker):
    """5 is what Mosquitto says to all three; the embedded broker tells wrong from missing credentials."""
    refused = {Refusal.CREDENTIALS, Refusal.NOT_AUTHORIZED}
    assert await refusal(any_shared_broker, SUPERVISOR, password="wrong") in refused
    assert await refusal(any_shared_broker, SUPERVISOR, password=STT.password) in refused
    assert await refusal(any_shared_broker, Login("nobody", SUPERVISOR.role)) in refused
    assert await refusal(any_shared_broker, None) == Refusal.NOT_AUTHORIZED


async def test_a_wrong_password_says_so_to_people(any_shared_broker):
    wrong = Login(STT.name, STT.role)
    seen = await tool("mosquitto_pub", any_shared_broker, wrong, "-t", "home/a", "-m", "x")
    assert seen.returncode != 0
    assert b"Connection Refused" in seen.stderr
    with pytest.raises(aiomqtt.MqttError):
        async with client(any_shared_broker, wrong):
            pass


@pytest.mark.parametrize("client_id", ["stt", "stt-", "stt-worker-3f2a", "stt-é"])
async def test_client_ids_of_the_user_are_accepted(shared_broker, client_id):
    async with RawClient.login(shared_broker, STT, client_id=client_id):
        pass


@pytest.mark.parametrize("client_id", ["tts", "tts-worker", "sttx", "supervisor", "STT", "x", "stt-" + "x" * 300])
async def test_other_client_ids_are_refused(shared_broker, client_id):
    assert await refusal(shared_broker, STT, client_id=client_id) == Refusal.IDENTIFIER


async def test_users_whose_names_begin_alike_do_not_meet(embedded_broker):
    """`a-b-1` is a client id of the users `a` and `a-b`; neither cuts the other off nor gets its messages."""
    one, other = Login("a", STT.role, service="a"), Login("a-b", STT.role, service="b")
    broker = embedded_broker([one, other])
    options = {"client_id": "a-b-1", "clean": False}
    async with RawClient.login(broker, one, **options) as first:
        await first.subscribe("home/first", qos=1)
        async with RawClient.login(broker, other, **options) as second:
            await second.subscribe("home/second", qos=1)
            for topic in ("home/second", "home/first"):
                first.publish(topic, b"", qos=1)
            assert (await first.message()).topic == "home/first"
            assert (await second.message()).topic == "home/second"


async def test_an_empty_client_id_is_for_clean_sessions(any_shared_broker):
    async with RawClient.login(any_shared_broker, STT) as first, RawClient.login(any_shared_broker, STT):
        await first.flushed()
    assert await refusal(any_shared_broker, STT, client_id="", clean=False) == Refusal.IDENTIFIER


async def test_a_last_will_where_one_may_not_publish_is_refused(shared_broker):
    will = Publish("system/config/stt", b"forged", 1, retain=True)
    assert await refusal(shared_broker, STT, will=will) == Refusal.NOT_AUTHORIZED


class TestAnonymousReading:
    async def test_it_reads_system_and_nothing_else(self, embedded_broker):
        broker = embedded_broker(anonymous_read=True)
        async with RawClient.login(broker, None, client_id="any name") as stranger:
            await stranger.subscribe("#", qos=1)
            async with client(broker, SUPERVISOR) as owner:
                for topic in ("home/a", "system/config/stt", "home/b", END):
                    await owner.publish(topic, b"", qos=1)
            assert [(await stranger.message()).topic for _ in range(2)] == ["system/config/stt", END]

    async def test_it_writes_nothing(self, embedded_broker):
        broker = embedded_broker(anonymous_read=True)
        async with client(broker, SUPERVISOR) as witness:
            await witness.subscribe("#", qos=1)
            async with RawClient.login(broker, None) as stranger:
                for topic in ("home/a", "system/health/stt", "system/config/stt"):
                    stranger.publish(topic, b"", qos=1, retain=True)
                    assert await stranger.packet() == (0x40, b"\0\1")
            await witness.publish(END, b"", qos=1)
            assert await received_until(witness, END) == []
        will = Publish("home/a", b"", 0, retain=False)
        assert await refusal(broker, None, will=will) == Refusal.NOT_AUTHORIZED

    async def test_it_is_for_this_machine_only(self, embedded_broker):
        """A client that reaches us by the machine's own outer address counts as a stranger."""
        outer = [
            address.address
            for interface in psutil.net_if_addrs().values()
            for address in interface
            if address.family is socket.AF_INET and not address.address.startswith("127.")
        ]
        if not outer:
            pytest.skip("this machine has a loopback address only")
        broker = embedded_broker(anonymous_read=True, host="0.0.0.0")
        async with RawClient.dial(broker, host=outer[0]) as stranger:
            stranger.send(connect_packet(None))
            assert (await stranger.packet())[1] == bytes((0, Refusal.NOT_AUTHORIZED))
        async with RawClient.login(broker, None):
            pass

    async def test_a_wrong_password_does_not_make_one_anonymous(self, embedded_broker):
        broker = embedded_broker(anonymous_read=True)
        assert await refusal(broker, STT, password="wrong") == Refusal.CREDENTIALS

    async def test_nothing_is_kept_for_it(self, embedded_broker):
        broker = embedded_broker(anonymous_read=True)
        options = {"client_id": "old-reader", "clean": False}
        async with RawClient.login(broker, None, **options) as stranger:
            await stranger.subscribe("system/#", qos=1)
        wait_until(lambda: broker.events("disconnected"))
        async with client(broker, SUPERVISOR) as owner:
            await owner.publish("system/config/stt", b"", qos=1)
        async with RawClient.login(broker, None, **options) as stranger:
            await stranger.subscribe(END, qos=1)
            async with client(broker, SUPERVISOR) as owner:
                await owner.publish(END, b"", qos=1)
            assert (await stranger.message()).topic == END


class TestReload:
    async def test_new_users_get_in_and_others_stay(self, embedded_broker):
        broker = embedded_broker([SUPERVISOR])
        async with RawClient.login(broker, SUPERVISOR) as owner:
            assert await refusal(broker, STT) == Refusal.CREDENTIALS
            broker.reload([SUPERVISOR, STT])
            async with RawClient.login(broker, STT):
                pass
            await owner.flushed()

    async def test_who_was_removed_or_has_another_role_is_cut_off(self, embedded_broker):
        broker = embedded_broker([SUPERVISOR, STT, TTS])
        changed = Login(TTS.name, READER.role, password=TTS.password)
        async with RawClient.login(broker, STT) as stt, RawClient.login(broker, TTS) as tts:
            broker.reload([SUPERVISOR, changed])
            await stt.closed()
            await tts.closed()
        async with RawClient.login(broker, changed):
            pass

    async def test_who_has_a_new_password_is_cut_off(self, embedded_broker):
        broker = embedded_broker([STT])
        changed = Login(STT.name, STT.role, STT.service, STT.health_topic)
        async with RawClient.login(broker, STT) as stt:
            broker.reload([changed])
            await stt.closed()
        assert await refusal(broker, STT) == Refusal.CREDENTIALS
