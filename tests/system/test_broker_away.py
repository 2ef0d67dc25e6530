"""The broker goes away under changes: every change is taken, and what is retained is right when it is back."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import psutil

from tests.support import Mosquitto, eventually, wait_until
from tests.system.agreement import Retained, stored
from tests.system.lean import LeanClient
from tests.system.program import Program, config_only_manifest, demo_manifest

Make = Callable[..., Program]

SERVICES = 50
CHANGES = 20


async def change_all(program: Program, rounds: int) -> None:
    async def change(number: int) -> None:
        service = f"service-{number:03}"
        async with LeanClient(program.url, program.token) as client:
            version = await client.version(service)
            for _ in range(rounds):
                status, answer = await client.patch(service, version, router_wake_ack_text=f"value {version}")
                assert status == 200, answer
                version = answer["version"]

    async with asyncio.timeout(60):
        await asyncio.gather(*(change(number) for number in range(SERVICES)))


async def test_changes_while_mosquitto_is_away(program: Make, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()
    supervised = program(config_only_manifest(SERVICES), MQTT_URL=f"mqtt://127.0.0.1:{broker.port}").start()
    broker.stop()
    supervised.until("bridge is ill")
    await change_all(supervised, CHANGES)
    broker.start()
    rows = stored(supervised.folder)
    assert {row.version for row in rows.values()} == {CHANGES + 1}
    async with Retained(supervised.broker) as retained:
        await retained.until(rows, timeout=30)
        assert retained.config("service-007")["router_wake_ack_text"] == f"value {CHANGES}"
    assert supervised.stop() == 0


async def test_a_crash_between_commit_and_publish(program: Make, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()
    supervised = program(config_only_manifest(3), MQTT_URL=f"mqtt://127.0.0.1:{broker.port}").start()
    broker.stop()
    supervised.until("bridge is ill")
    assert supervised.put("service-001", router_wake_ack_text="unheard").status_code == 200
    supervised.kill()
    broker.start()
    supervised.start()
    async with Retained(supervised.broker) as retained:
        await retained.until(stored(supervised.folder), timeout=30)
        seen: dict[str, Any] = retained.config("service-001")
    assert seen["router_wake_ack_text"] == "unheard"
    assert supervised.stop() == 0


async def test_a_broker_that_refuses_the_password_is_said_clearly(
    program: Make, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto(users={"tars": "right"})
    supervised = program(config_only_manifest(1), MQTT_URL=f"mqtt://tars:wrong@127.0.0.1:{broker.port}").start()
    said = supervised.until("bridge is ill")
    assert "wrong" not in said
    with supervised.client() as client:
        health = client.get("/api/config/health").json()
    assert not health["ok"]
    assert "refuses our login" in health["components"]["bridge"]["detail"]
    assert supervised.put("service-000", router_wake_ack_text="still").status_code == 200
    assert supervised.stop() == 0


async def test_an_embedded_broker_that_keeps_dying_takes_nobody_with_it(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router"})).start()
    worker = supervised.workers()["router"]
    for _ in range(8):
        broker = supervised.workers()["embedded-broker"]
        psutil.Process(broker).kill()
        await asyncio.to_thread(
            wait_until,
            lambda before=broker: supervised.workers().get("embedded-broker") not in {None, before},
            timeout=30,
            what="the broker's next process",
        )
    assert supervised.put("router", router_wake_ack_text="heard").status_code == 200
    await asyncio.to_thread(wait_until, supervised.is_well, timeout=30, what="the health after it")
    async with Retained(supervised.broker) as retained:
        await retained.until(stored(supervised.folder), timeout=30)
    assert supervised.workers()["router"] == worker
    await asyncio.to_thread(supervised.until, "-> 'heard'", 30, service="router")
    assert supervised.stop() == 0


async def test_a_killed_supervisor_is_told_by_its_last_will(program: Make, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()
    supervised = program(config_only_manifest(1), MQTT_URL=broker.url).start()
    address = supervised.broker
    async with Retained(address, "system/health/config-manager") as retained:
        await eventually(lambda: retained.messages and health(retained)["ok"], what="the health of a running one")
        epoch = health(retained)["config_epoch"]
        supervised.kill()
        await eventually(lambda: not health(retained)["ok"], what="the last will")
        assert health(retained)["event"] == "connection lost"
        assert health(retained)["config_epoch"] == epoch
        supervised.start()
        await eventually(lambda: health(retained)["ok"], what="the health of the next one")
        assert supervised.stop() == 0
        await eventually(lambda: health(retained)["event"] == "stopped", what="the farewell")


def health(retained: Retained) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(retained.messages["system/health/config-manager"])
    return found
