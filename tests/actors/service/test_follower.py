"""A worker that was well and dies is followed at once by an order that the holder has; and by nobody who is not wanted."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from actors.service import ServiceActor, _runner
from schemas.manifest import Backoff, Restart
from schemas.states import Lifecycle
from schemas.status import ServiceStatus, Verb
from tests.actors.service.support import NAME, SLEEPER, Rig, WorkerLog, python
from tests.support import eventually


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runner, "FORESIGHT", 0.0)


def recorded(rig: Rig) -> list[str]:
    text = (rig.runtime / "instances" / NAME).read_text()
    return [text[at : at + 32] for at in range(0, len(text), 32)]


async def provided(rig: Rig, command: tuple[str, ...] = SLEEPER, **options: Any) -> tuple[ServiceStatus, str]:
    """Serve, and wait for the order. The worker as it is, and what its follower will be called."""
    rig.backoff = Backoff(first=600.0, max=600.0)
    await rig.serve(command, **options)
    return await ordered(rig, await rig.ready())


async def ordered(rig: Rig, present: ServiceStatus) -> tuple[ServiceStatus, str]:
    await eventually(lambda: len(recorded(rig)) == 2, what="the order")
    # Without a spare child the holder leaves the start to us.
    children = Path(f"/proc/{rig.holder.pid}/task/{rig.holder.pid}/children")
    await eventually(lambda: len(children.read_text().split()) == 2, what="the spare")
    (other,) = {*recorded(rig)} - {present.instance}
    return present, other


def kill(state: ServiceStatus, number: int = signal.SIGKILL) -> None:
    assert state.pid is not None
    os.kill(state.pid, number)


def held(rig: Rig) -> list[str]:
    return [each.instance for each in rig.holder.workers.values()]


async def test_it_is_followed_and_the_follower_is_a_worker_like_any(rig: Rig, printed: WorkerLog) -> None:
    first, successor = await provided(rig)
    kill(first)
    second = await rig.ready()
    assert (second.instance, second.restarts) == (successor, 1)
    await eventually(lambda: printed.lines == ["up", "up"])
    # It has been well for a moment only: the next start is delayed, so none is ordered.
    kill(second)
    down = await rig.until(Lifecycle.BACKING_OFF)
    assert (down.reason, down.restarts) == ("was killed by SIGKILL", 2)
    assert held(rig) == []


async def test_ends_that_are_no_failure(rig: Rig, printed: WorkerLog) -> None:
    ends = python("import os, signal, time; signal.signal(10, lambda *_: os._exit(0)); print('up'); time.sleep(600)")
    first, _ = await provided(rig, ends, restart=Restart.ON_FAILURE)
    await eventually(lambda: printed.lines)
    kill(first, signal.SIGUSR1)
    await rig.until(Lifecycle.EXITED)
    assert held(rig) == []


async def test_what_is_never_restarted_is_not_followed(rig: Rig) -> None:
    await rig.serve(restart=Restart.NEVER)
    first = await rig.ready()
    await rig.change(volume=1)
    kill(first)
    await rig.until(Lifecycle.FAILED)
    assert (held(rig), recorded(rig)) == ([], [first.instance])


async def test_after_a_restart_that_was_asked_for(rig: Rig) -> None:
    first, successor = await provided(rig)
    await rig.change(engine="other")
    second = await rig.until(Lifecycle.STARTING, instance=first.instance)
    assert second.instance != successor
    assert rig.snapshot().config["engine"] == "other"


async def test_a_stop_that_was_asked_for(rig: Rig) -> None:
    await provided(rig)
    await rig.service.ask(ServiceActor.command, Verb.STOP, "me", None)
    await rig.until(Lifecycle.STOPPED)
    assert held(rig) == []


async def test_a_stop_that_crosses_a_death(rig: Rig) -> None:
    """Whoever was first, nobody is left."""
    first, _ = await provided(rig)
    kill(first)
    await rig.service.ask(ServiceActor.command, Verb.STOP, "me", None)
    await rig.until(Lifecycle.STOPPED)
    assert held(rig) == []


async def test_it_has_not_its_turn(rig: Rig) -> None:
    first, successor = await provided(rig)
    rig.fleet.keep_down([NAME], "others go first")
    kill(first)
    waiting = await rig.until(Lifecycle.WAITING)
    assert waiting.instance is None
    await eventually(lambda: held(rig) == [])
    rig.fleet.let_up([NAME])
    assert (await rig.ready()).instance != successor


async def test_its_turn_comes_while_the_one_who_had_none_is_ended(rig: Rig) -> None:
    first, successor = await provided(rig)
    rig.fleet.keep_down([NAME], "others go first")
    kill(first)
    await rig.until(Lifecycle.WAITING)
    rig.fleet.let_up([NAME])
    second = await rig.ready()
    assert second.instance != successor
    assert held(rig) == [second.instance]


async def test_the_end_of_all_right_after_a_death(rig: Rig) -> None:
    first, _ = await provided(rig)
    kill(first)
    await rig.service.ask(ServiceActor.shut_down)
    assert rig.state.state is Lifecycle.STOPPED
    assert held(rig) == []


async def test_the_actor_fails_between_order_and_death(rig: Rig) -> None:
    """Its successor takes the worker over, and provides for it again."""
    first, before = await provided(rig)
    rig.crash(NAME)
    await eventually(lambda: len(rig.refs[NAME]) == 2 and first.pid == rig.state.pid)
    await eventually(lambda: {*recorded(rig)} > {first.instance, before}, what="another order")
    kill(first)
    second = await rig.until(Lifecycle.STARTING, instance=first.instance)
    assert second.instance in recorded(rig)
    assert held(rig) == [second.instance]


async def test_the_actor_fails_after_the_death(rig: Rig) -> None:
    first, _ = await provided(rig)
    kill(first)
    rig.crash(NAME)
    second = await rig.until(Lifecycle.STARTING, instance=first.instance)
    await asyncio.sleep(0)
    assert held(rig) == [second.instance]


async def test_its_files_are_gone_by_then(rig: Rig) -> None:
    """One without its settings is not left running; the next start writes them."""
    first, _ = await provided(rig)
    shutil.rmtree(rig.runtime / "services")
    kill(first)
    down = await rig.until(Lifecycle.BACKING_OFF)
    assert "snapshot.json cannot be used" in down.reason
    assert held(rig) == []
    await rig.change(volume=1)
    assert (await rig.ready()).restarts == 1
    assert rig.snapshot().version == 2


async def test_the_program_is_gone_by_then(rig: Rig) -> None:
    program = rig.folder / "worker"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    first, _ = await provided(rig, (str(program),))
    program.unlink()
    kill(first)
    down = await rig.until(Lifecycle.FAILED)
    assert str(program) in down.reason
    assert held(rig) == []
