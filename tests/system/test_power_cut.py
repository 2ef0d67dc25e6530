"""The supervisor is killed under load: whatever was acknowledged is there, everything agrees, workers are adopted, not doubled.

`task soak` pulls it 200 times; the suite 20 times, at seeded moments.
"""

import asyncio
import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.support import wait_until
from tests.system.agreement import Retained, cached, history, stored
from tests.system.lean import LeanClient
from tests.system.program import Program, config_only_manifest, demo_manifest

Make = Callable[..., Program]

WORKERS = {"stt-worker": "stt", "router": "router"}
WRITERS = 6


@dataclass
class Load:
    """Writers that change one service each, as fast as they are answered, until the program is gone."""

    acknowledged: set[tuple[str, int, str, str]] = field(default_factory=set)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, program: Program, service: str) -> None:
        try:
            async with LeanClient(program.url, program.token) as client:
                version = await client.version(service)
                while True:
                    text = f"value {version}"
                    status, answer = await client.patch(service, version, router_wake_ack_text=text)
                    assert status == 200, answer
                    version = answer["version"]
                    self.acknowledged.add((service, version, "router_wake_ack_text", json.dumps(text)))
                    self.begun.set()
        except (OSError, asyncio.IncompleteReadError):
            return


async def pull_the_cable(program: Program, dice: random.Random, services: list[str]) -> set[tuple[str, int, str, str]]:
    """Load the running program and kill it at a random moment; what it had acknowledged."""
    load = Load()
    async with asyncio.timeout(60):
        writers = [asyncio.create_task(load.write(program, service)) for service in services]
        await load.begun.wait()
        await asyncio.sleep(dice.uniform(0.0, 0.3))  # the moment of the cut, not a synchronisation
        program.kill()
        await asyncio.gather(*writers)
    return load.acknowledged


async def everything_agrees(program: Program) -> None:
    """Store, cache and retained messages hold the same versions and values."""
    rows = stored(program.folder)
    key = base64.b64decode(program.variable("LKG_HMAC_KEY_BASE64"))

    def cache_agrees() -> bool:
        payload = cached(program.folder, key)
        return payload["versions"] == {service: row.version for service, row in rows.items()}

    wait_until(cache_agrees, what="the cache's agreement with the store")
    payload = cached(program.folder, key)
    async with Retained(program.broker) as retained:
        await retained.until(rows, timeout=30)
        for service, row in rows.items():
            assert payload["config_epoch"] == row.epoch
            assert payload["payload"][service] == retained.config(service)
            assert row.config.items() <= retained.config(service).items()


async def cut_and_look(program: Program, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    services = [f"service-{number:03}" for number in range(WRITERS)]
    workers = program.start().workers()
    assert set(workers) == {*WORKERS, "embedded-broker"}
    for number in range(rounds):
        acknowledged = await pull_the_cable(program, dice, services)
        program.start()
        lost = acknowledged - history(program.folder)
        assert not lost, f"round {number}: acknowledged and lost: {sorted(lost)[:3]}"
        rows = stored(program.folder)
        assert all(rows[service].version >= version for service, version, _, _ in acknowledged)
        assert program.workers() == workers, f"round {number}"
        await everything_agrees(program)
    assert program.stop() == 0
    assert program.processes() == []


MANIFEST = f"{config_only_manifest(WRITERS)}\n{demo_manifest(WORKERS)}"


async def test_twenty_power_cuts(program: Make) -> None:
    await cut_and_look(program(MANIFEST), seed=20261120, rounds=20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_two_hundred_power_cuts(program: Make) -> None:
    await cut_and_look(program(MANIFEST), seed=1, rounds=200)
