"""A service's actor with a real broker: its retained topics, and the reports of a worker that was replaced."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiomqtt
import pytest
from tars_config import wire

from actors.database import DatabaseActor
from schemas.broker_address import BrokerAddress
from schemas.states import Kind, Lifecycle
from tests.actors.service.conftest import MakeRig
from tests.actors.service.support import APPLIED_TOPIC, CONFIG_TOPIC, HEALTH_TOPIC, STATE_TOPIC, Rig
from tests.conftest import MosquittoFactory
from tests.support import Mosquitto, eventually


@dataclass
class Onlooker:
    """Another client, which also plays the worker."""

    client: aiomqtt.Client
    seen: dict[str, bytes] = field(default_factory=dict)

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            self.seen[str(message.topic)] = message.payload

    async def report(self, topic: str, **payload: object) -> None:
        await self.client.publish(topic, json.dumps(payload), qos=1, retain=True)

    def state(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.seen.get(STATE_TOPIC, b"{}"))
        return found


@contextlib.asynccontextmanager
async def onlooker(broker: Mosquitto) -> AsyncIterator[Onlooker]:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("system/#", qos=1)
        looker = Onlooker(client)
        listening = asyncio.ensure_future(looker.listen())
        try:
            yield looker
        finally:
            listening.cancel()
            await asyncio.wait([listening])


@pytest.fixture
def broker(mosquitto: MosquittoFactory) -> Mosquitto:
    return mosquitto()


async def serve(make_rig: MakeRig, broker: Mosquitto, kind: Kind = Kind.PROCESS) -> Rig:
    rig = await make_rig(broker=BrokerAddress("127.0.0.1", broker.port))
    await rig.serve(kind=kind)
    return rig


async def heard(rig: Rig, looker: Onlooker) -> None:
    """The worker reports until it is believed, as one with the client library does."""
    async with asyncio.timeout(30):
        while rig.state.state is not Lifecycle.READY:
            await looker.report(HEALTH_TOPIC, ok=True, event="ready")
            await asyncio.sleep(0.02)


async def test_what_others_see_over_a_workers_life(make_rig: MakeRig, broker: Mosquitto) -> None:
    rig = await serve(make_rig, broker)
    async with onlooker(broker) as looker:
        await eventually(lambda: looker.state().get("state") == "starting" and CONFIG_TOPIC in looker.seen)
        assert wire.decode(looker.seen[CONFIG_TOPIC]).version == 1
        await eventually(lambda: (looker.state()["published"] or {}).get("version") == 1)  # type: ignore[attr-defined]
        assert looker.state()["reported"] is None
        await heard(rig, looker)
        epoch, instance = rig.state.desired.config_epoch, rig.state.instance
        await looker.report(APPLIED_TOPIC, service="svc", instance=instance, config_epoch=epoch, version=1, ok=True)
        await eventually(lambda: looker.state()["reported"] == {"config_epoch": epoch, "version": 1})
        await rig.change(volume=1)
        await eventually(lambda: looker.state()["published"] == {"config_epoch": epoch, "version": 2})
        # Desired and published; the worker has not said that it runs with it.
        assert looker.state()["desired"] == {"config_epoch": epoch, "version": 2}
        assert looker.state()["reported"] == {"config_epoch": epoch, "version": 1}
        assert set(looker.state()) == {
            *("service", "kind", "state", "since", "reason", "instance", "pid", "restarts"),
            *("desired", "published", "reported"),
        }
        await rig.close()
        await eventually(lambda: looker.state()["state"] == "stopped")
        assert looker.state()["pid"] is None
        # What it reported went with it.
        await eventually(lambda: looker.seen[HEALTH_TOPIC] == b"" and looker.seen[APPLIED_TOPIC] == b"")


async def test_what_a_previous_instance_left_is_cleared_and_not_believed(make_rig: MakeRig, broker: Mosquitto) -> None:
    async with onlooker(broker) as looker:
        await looker.report(HEALTH_TOPIC, ok=True, event="left from before")
        await looker.report(APPLIED_TOPIC, service="svc", config_epoch=None, version=9, ok=True)
        rig = await serve(make_rig, broker)
        await eventually(lambda: looker.seen.get(HEALTH_TOPIC) == b"" and looker.seen.get(APPLIED_TOPIC) == b"")
        assert (await rig.until(Lifecycle.STARTING)).reported is None
        await heard(rig, looker)


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_clearing_survives_a_broker_that_is_away(
    make_rig: MakeRig, mosquitto: MosquittoFactory, restarted: bool
) -> None:
    """The worker dies while the broker is away, which comes back with or without what it had retained."""
    broker = mosquitto(persistence=not restarted)
    rig = await serve(make_rig, broker)
    async with onlooker(broker) as looker:
        await heard(rig, looker)
    first = rig.state
    broker.stop()
    assert first.pid is not None
    os.kill(first.pid, 9)
    await rig.until(Lifecycle.STARTING, instance=first.instance)
    broker.start()
    async with onlooker(broker) as looker:
        await eventually(lambda: looker.state().get("instance") == rig.state.instance)
        assert rig.state.state is Lifecycle.STARTING  # not ready by the words of the one before
        await heard(rig, looker)
    assert len(rig.refs["svc"]) == 1


async def test_the_bridge_dies_while_deaf(make_rig: MakeRig, broker: Mosquitto) -> None:
    rig = await serve(make_rig, broker)
    async with onlooker(broker) as looker:
        await heard(rig, looker)
        first = rig.state
        rig.crash("bridge")
        assert first.pid is not None
        os.kill(first.pid, 9)
        await rig.until(Lifecycle.STARTING, instance=first.instance)
        await heard(rig, looker)
        await rig.change(volume=1)
        await eventually(lambda: wire.decode(looker.seen[CONFIG_TOPIC]).version == 2)
        await eventually(lambda: (rig.state.published or rig.state.desired).version == 2)


async def test_one_that_somebody_else_runs_is_heard_as_it_is(make_rig: MakeRig, broker: Mosquitto) -> None:
    """Nobody here knows when it ends, so its topics are never cleared."""
    async with onlooker(broker) as looker:
        await looker.report(HEALTH_TOPIC, ok=True, event="up for days")
        rig = await serve(make_rig, broker, Kind.EXTERNAL)
        epoch = rig.state.desired.config_epoch
        await looker.report(APPLIED_TOPIC, service="svc", instance="theirs", config_epoch=epoch, version=1, ok=True)
        await eventually(lambda: rig.state.reported is not None)
        # What it says of itself is all that is known of it.
        assert (await rig.until(Lifecycle.READY)).reason == "up for days"
        assert json.loads(looker.seen[HEALTH_TOPIC])["event"] == "up for days"


async def test_the_stores_memory_of_what_was_published(make_rig: MakeRig, broker: Mosquitto) -> None:
    rig = await serve(make_rig, broker)
    await rig.change(volume=1)
    await eventually(lambda: rig.state.published is not None and rig.state.published.version == 2)
    state = await rig.database.ask(DatabaseActor.load)
    assert state.services[next(iter(state.services))].published_version == 2
