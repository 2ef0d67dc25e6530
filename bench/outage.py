"""A broker that is away: how long until everything retained is right again.

Mosquitto is stopped, 50 services are changed 20 times each over ten seconds through REST, Mosquitto comes back. Told: the
answers that were not 200, and the time from the moment Mosquitto accepts connections to the moment a fresh subscriber has
seen the right version of every service.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench._harness import Bar, Row, Run, Series
from tests.support import Mosquitto
from tests.system.agreement import Retained, stored
from tests.system.lean import LeanClient
from tests.system.program import Program, config_only_manifest

SECONDS = 10.0
SERVICES = 50
CHANGES = 20


async def change(program: Program, number: int, seconds: float, statuses: Counter[int]) -> None:
    service = f"service-{number:03}"
    async with LeanClient(program.url, program.token) as client:
        version = await client.version(service)
        began = time.monotonic()
        for turn in range(CHANGES):
            await asyncio.sleep(began + seconds * turn / CHANGES - time.monotonic())
            status, answer = await client.patch(service, version, router_wake_ack_text=f"value {version}")
            statuses[status] += 1
            version = answer.get("version", version)


async def measure(folder: Path, seconds: float) -> tuple[int, float]:
    """Answers that were not 200; seconds until all was right."""
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    program = Program(folder / "program", config_only_manifest(SERVICES), MQTT_URL=broker.url)
    try:
        program.start()
        broker.stop()
        statuses: Counter[int] = Counter()
        await asyncio.gather(*(change(program, number, seconds, statuses) for number in range(SERVICES)))
        rows = stored(program.folder)
        broker.start()
        back = time.monotonic()
        async with Retained(program.broker) as retained:
            await retained.until(rows, timeout=30)
        right = time.monotonic() - back
        program.stop()
    finally:
        program.close()
        broker.stop()
    return statuses.total() - statuses[200], right


def rows(run: Run) -> Iterator[Row]:
    seconds = SECONDS / 5 if run.quick else SECONDS
    refused, right = asyncio.run(measure(run.folder, seconds))
    name = f"broker away {seconds:g} s, {SERVICES} services x {CHANGES} PATCH"
    yield Row("outage", f"{name}: not 200", Series("", [refused]), bar=Bar(0))
    yield Row("outage", "  retained state right after its return", Series("ms", [right * 1e3]), bar=Bar(1000))
