"""A broker that is away: how long until everything retained is right again.

Mosquitto is stopped, 50 services are changed 20 times each over ten seconds through REST, Mosquitto comes back. Told: the
answers to the changes, and the time from the moment Mosquitto accepts connections to the moment a fresh subscriber has
seen the right version of every service.

    .venv/bin/python -m bench.outage [--seconds 10]
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support import Mosquitto
from tests.system.agreement import Retained, stored
from tests.system.lean import LeanClient
from tests.system.program import Program, config_only_manifest

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


async def measure(folder: Path, seconds: float) -> None:
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
    print(f"broker away for {seconds:g} s, {SERVICES} services x {CHANGES} changes")
    print(f"  answers: {', '.join(f'{count} x {status}' for status, count in sorted(statuses.items()))}")
    print(f"  all retained state right after its return: {right:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), seconds))


if __name__ == "__main__":
    main()
