"""Killed at random instants, supervisor or holder: nothing is doubled, orphaned or lost."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.actors.holder.driver import PROCESSES, SERVICES
from tests.actors.holder.support import DEADLINE, Place, finish
from tests.support import eventually

HERE = Path(__file__).parents[3]


class Driver:
    """A supervisor that is there to be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def attached(self) -> int:
        """Wait until it has all its workers; give the holder's pid."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = await self.process.stdout.readline()
        assert line.startswith(b"attached "), line
        return int(line.split()[1])


@contextlib.asynccontextmanager
async def supervisor(
    place: Place, seed: int = 0, *, churning: bool = True, program: str = "driver"
) -> AsyncIterator[Driver]:
    """A supervisor that is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.actors.holder.{program}", str(place.folder), str(seed), str(int(churning))),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Driver(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def doubled(place: Place) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (place.folder / "doubled").read_text()
    return ""


async def settle(place: Place) -> None:
    """One worker of each service with its child, and nobody else, once all that was under way is done."""
    async with supervisor(place, 0, churning=False) as last:
        await last.attached()
        await eventually(lambda: Counter(place.processes().values()) == PROCESSES, what=f"{PROCESSES}")
    assert doubled(place) == ""
    holder = await place.attach()
    assert sorted(held.service for held in holder.workers.values()) == sorted(SERVICES)
    await finish(holder)
    assert place.processes() == {}


async def killed_supervisors(place: Place, rounds: int) -> None:
    dice = random.Random(4)
    holders, stills = set(), set()
    for turn in range(rounds):
        async with supervisor(place, turn) as driver:
            holders.add(await driver.attached())
            stills |= {pid for pid, service in place.processes().items() if service == "still" and speaks(pid)}
            # Anywhere in the stops, ends and starts of a worker that is restarted all the time.
            await asyncio.sleep(dice.uniform(0, 0.04))
    assert len(holders) == 1
    assert len(stills) == 1, "a worker was lost"
    await settle(place)


def speaks(pid: int) -> bool:
    """Whether its output comes to the holder: that of the worker does, that of its child does not."""
    return str(Path(f"/proc/{pid}/fd/1").readlink()).startswith("pipe:")


async def test_a_supervisor_killed_at_random_instants(place: Place) -> None:
    await killed_supervisors(place, 30)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_supervisor_killed_at_many_random_instants(place: Place) -> None:
    await killed_supervisors(place, 300)


async def killed_holders(place: Place, rounds: int) -> None:
    dice = random.Random(5)
    async with supervisor(place, 1) as driver:
        seen = set()
        for _ in range(rounds):
            holder = await driver.attached()
            assert holder not in seen
            seen.add(holder)
            await asyncio.sleep(dice.uniform(0, 0.04))
            os.kill(holder, signal.SIGKILL)
        await driver.attached()
    await settle(place)


async def test_a_holder_killed_at_random_instants(place: Place) -> None:
    await killed_holders(place, 5)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_holder_killed_at_many_random_instants(place: Place) -> None:
    await killed_holders(place, 50)


async def test_both_killed_at_once(place: Place) -> None:
    dice = random.Random(6)
    for turn in range(5):
        async with supervisor(place, turn) as driver:
            holder = await driver.attached()
            await asyncio.sleep(dice.uniform(0, 0.04))
            for pid in dice.sample((holder, driver.process.pid), 2):
                os.kill(pid, signal.SIGKILL)
    await settle(place)


async def test_the_control_without_records_doubles(place: Place) -> None:
    """What the others assert can fail: with the records gone, the lock shows who is left."""
    async with supervisor(place, 0, churning=False) as driver:
        holder = await driver.attached()
        await eventually(
            lambda: Counter(place.processes().values()) == PROCESSES, what="all workers and their children"
        )
    os.kill(holder, signal.SIGKILL)
    for record in (place.folder / "instances").iterdir():
        record.unlink()
    async with supervisor(place, 0, churning=False) as driver:
        await driver.attached()
        # All that have left somebody: the workers themselves end with their holder.
        left = sorted({*SERVICES} - {"lone"})
        await eventually(lambda: sorted(doubled(place).split()) == left, what="doubled workers")
    await finish(await place.attach())


async def test_output_is_complete_and_in_order_across_supervisors_that_are_killed(place: Place) -> None:
    dice = random.Random(7)
    for _ in range(5):
        async with supervisor(place, program="reader") as driver:
            await driver.attached()
            await asyncio.sleep(dice.uniform(0, 0.03))
    async with supervisor(place, program="reader") as driver:
        await driver.attached()
        async with asyncio.timeout(DEADLINE):
            assert await driver.process.stdout.readline() == b"done\n"
    said = (place.folder / "book").read_bytes()
    # A supervisor that is killed between two system calls has read what it did not write down, or the other way round
    # with what was kept. All else is there once, and in order.
    torn = sum(now != last + 1 for last, now in pairwise(map(int, said.split())))
    assert torn <= 5
    assert said.endswith(b"\n1499\n")
    assert said.startswith(b"0\n1\n")
    assert len(set(said.split())) > 1300
