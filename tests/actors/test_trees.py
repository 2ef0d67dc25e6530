"""Ending whole trees, whatever their members did to get away, and nobody else."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import trees
from actors.holder import new_instance
from actors.holder.cgroups import delegated
from tests.actors.holder.support import Place, alive, ended, finish, read_line
from tests.support import eventually

ROOT = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "run")
    yield place
    place.clean()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    folder = ROOT / f"tars-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v2 folder can be made here: {error}")
    yield folder
    trees.remove(folder)


DAEMONS = """
import os, sys, time
for number in range(51):
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        for stream in range(3):
            os.close(stream)
        os.execve("/bin/sleep", ["sleep", "600"], {CLEAN} if number % 2 else os.environ)
    os.wait()
print("ready", flush=True)
time.sleep(600)
"""


async def rounds(place: Place, number: int, **options: object) -> None:
    holder = await place.attach(**options)
    script = DAEMONS.replace("{CLEAN}", "{'TARS_TEST_PLACE': os.environ['TARS_TEST_PLACE'], 'TARS_SERVICE': 'shed'}")
    for turn in range(number):
        held = await holder.spawn(place.spawn("worker", sys.executable, "-I", "-S", "-c", script))
        assert await read_line(held.stdout) == "ready"
        # One that is just becoming `sleep` has no environment for a moment.
        await eventually(lambda: len(place.processes()) == 52, what="all daemons")
        if turn % 2:
            # Death without warning: `ended` says that the next may be started.
            os.kill(held.pid, signal.SIGKILL)
            assert await ended(held) == -signal.SIGKILL
        else:
            async with asyncio.timeout(30):
                assert (await held.stop(10)).code == -signal.SIGTERM
        assert place.processes() == {}
        held.forget()
    await finish(holder)


async def test_fifty_one_daemons_are_gone_before_the_next_start(place: Place) -> None:
    await rounds(place, 20)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_fifty_one_daemons_are_gone_before_the_next_start_many_times(place: Place) -> None:
    await rounds(place, 200)


async def test_a_cgroup_ends_them_too(place: Place, cgroup: Path) -> None:
    await rounds(place, 4, cgroups=cgroup)
    assert [entry for entry in cgroup.iterdir() if entry.is_dir()] == []


async def test_memory_is_limited_only_where_the_controller_is(place: Place, cgroup: Path) -> None:
    holder = await place.attach(cgroups=cgroup)
    held = await holder.spawn(place.spawn("worker", "sleep", "600", memory=100 << 20))
    assert held.cgroup is not None
    assert str(held.pid) in (held.cgroup / "cgroup.procs").read_text().split()
    limit = held.cgroup / "memory.max"
    assert held.memory_limited == limit.exists()
    if limit.exists():
        assert int(limit.read_text()) == 100 << 20
    await finish(holder)


async def test_one_that_forks_faster_than_it_is_looked_for(place: Place) -> None:
    holder = await place.attach()
    script = (
        "import os, time\nend = time.monotonic() + 60\nprint('ready', flush=True)\nos.close(1)\n"
        # Bounded, for the day on which nobody ends it.
        "while time.monotonic() < end:\n  if os.fork(): os._exit(0)\n  os.setsid()"
    )
    held = await holder.spawn(place.spawn("worker", sys.executable, "-I", "-S", "-c", script))
    assert await read_line(held.stdout) == "ready"
    assert await ended(held) == 0
    assert place.processes() == {}
    await finish(holder)


async def test_a_term_that_is_ignored_is_followed_by_the_end_of_all(place: Place) -> None:
    holder = await place.attach()
    told = []
    held = await holder.spawn(
        place.shell("worker", "trap '' TERM; (setsid sleep 600 &); echo ready; while :; do sleep 1; done")
    )
    assert await read_line(held.stdout) == "ready"
    async with asyncio.timeout(30):
        end = await held.stop(0.05, on_overdue=lambda: told.append(place.processes()))
    assert end.code == -signal.SIGKILL
    assert len(told) == 1
    assert len(told[0]) >= 2
    assert place.processes() == {}
    await finish(holder)


async def test_another_instance_is_left_alone(place: Place) -> None:
    holder = await place.attach()
    other = await holder.spawn(place.shell("other", "(setsid sleep 600 &); echo ready; exec sleep 600"))
    await read_line(other.stdout)
    held = await holder.spawn(place.spawn("worker", "sleep", "600"))
    async with asyncio.timeout(30):
        await held.stop(5)
    assert len(place.processes()) == 2
    await finish(holder)


async def end(*found: trees.Tree) -> list[int]:
    async with asyncio.timeout(30):
        return await trees.end(found)


async def test_what_shed_its_mark_is_found_by_its_environment_session_group_and_parent() -> None:
    instance = new_instance()
    marked = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": instance})
    # The child has a clean environment and a session of its own: only its parent tells.
    script = "import os, time\nif not os.fork():\n os.setsid(); os.execve('/bin/sleep', ['sleep', '601'], {})\ntime.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", script], env={"TARS_INSTANCE": instance}, start_new_session=True)
    leader = subprocess.Popen(["/bin/sh", "-c", "sleep 602 & wait"], env={}, start_new_session=True)
    bystander = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": new_instance()})
    try:
        assert await end(trees.Tree(instance), trees.Tree(new_instance(), leader.pid)) == []
        for process in (marked, parent, leader):
            assert process.wait(30) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        for process in (marked, parent, leader, bystander):
            process.kill()
            process.wait(30)


async def test_a_stranger_who_was_given_the_number_since_is_left_alone() -> None:
    stranger = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    try:
        # The leader of that number had ended at the first tick after the machine's start.
        assert await end(trees.Tree(new_instance(), stranger.pid, 1)) == []
        assert stranger.poll() is None
        assert await end(trees.Tree(new_instance(), stranger.pid)) == []
        assert stranger.wait(30) == -signal.SIGKILL
    finally:
        stranger.kill()
        stranger.wait(30)


@pytest.mark.parametrize("leader", [0, 1])
async def test_no_leader_is_never_everybody(leader: int) -> None:
    bystander = subprocess.Popen(["/bin/sleep", "600"])
    try:
        assert await end(trees.Tree(new_instance(), leader)) == []
        assert alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait(30)


def test_a_delegated_folder_is_found_and_another_is_not_taken(cgroup: Path, tmp_path: Path) -> None:
    own = cgroup / "supervisor"
    own.mkdir()
    mounts, mine = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(f"30 23 0:26 / {ROOT} rw - cgroup2 cgroup2 rw\n")
    mine.write_text(f"5:cpu:/\n0::/{own.relative_to(ROOT)}\n")
    assert delegated(mounts, mine) is None
    try:
        os.setxattr(cgroup, "trusted.delegate", b"1")
    except OSError as error:
        pytest.skip(f"cgroups cannot be marked here: {error}")
    assert delegated(mounts, mine) == cgroup
    mine.write_text(f"0::/{cgroup.relative_to(ROOT)}\n")
    assert delegated(mounts, mine) == cgroup
    mine.write_text("0::/\n")
    assert delegated(mounts, mine) is None
    assert delegated(tmp_path / "none", mine) is None
