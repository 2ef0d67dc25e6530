"""Handles: a name that survives restarts, waits while its actor is down, and never keeps a dead one."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator

import pytest

from actors.runtime import (
    Actor,
    ActorDied,
    ActorDown,
    Handle,
    LoopFuture,
    Restart,
    Supervisor,
)
from tests.actors.runtime.supervised import HOUR, Child, Family, Told, gated
from tests.actors.runtime.support import DEADLINE, stopped, turns


@pytest.fixture
async def family() -> AsyncIterator[Family]:
    family = Family()
    yield family
    await stopped(family.ref)


async def test_a_handle_survives_restarts(family: Family) -> None:
    await family.started("a")
    for number in range(1, 5):
        assert await family.handles["a"].ask(Child.incarnation) == number
        await family.crash("a")


async def test_an_ask_waits_for_the_first_start(family: Family) -> None:
    spec = family.spec("a")
    asked = asyncio.create_task(family.handles["a"].ask(Child.incarnation))
    await turns()
    await family.started(spec)
    async with asyncio.timeout(DEADLINE):
        assert await asked == 1


async def test_asks_wait_for_a_child_that_is_down(family: Family) -> None:
    gate: LoopFuture[None] = LoopFuture()
    await family.started("a")
    family.starts["a"].append(gated(gate))
    await family.crash("a")
    assert not family.handles["a"].up
    assert "down" in repr(family.handles["a"])
    asked = [asyncio.create_task(family.handles["a"].ask(Child.incarnation)) for _ in range(3)]
    await turns(20)
    assert not any(each.done() for each in asked)
    gate.set()
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*asked) == [2, 2, 2]
    assert "up" in repr(family.handles["a"])


async def test_after_the_deadline_the_actor_is_down(family: Family) -> None:
    await family.started("a", backoff=HOUR)
    await family.crash("a")
    with pytest.raises(ActorDown, match=r"a is down, and was not back within 0\.01 s"):
        await family.handles["a"].within(0.01).ask(Child.incarnation)
    assert not family.handles["a"]._slot.waiters


async def test_an_asker_that_gives_up_waiting_leaves_nothing(family: Family) -> None:
    await family.started("a", backoff=HOUR)
    await family.crash("a")
    asked = asyncio.create_task(family.handles["a"].ask(Child.incarnation))
    await turns()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not family.handles["a"]._slot.waiters


async def test_what_the_dead_one_did_not_come_to_goes_to_the_next(family: Family) -> None:
    await family.started("a")
    gate: LoopFuture[None] = LoopFuture()
    begun = asyncio.create_task(family.handles["a"].ask(Child.work, gate))
    await turns()
    waiting = [asyncio.create_task(family.handles["a"].ask(Child.incarnation)) for _ in range(3)]
    await turns()
    family.refs["a"].cancel()
    async with asyncio.timeout(DEADLINE):
        # The one begun may have been done: it is not asked again.
        with pytest.raises(ActorDied):
            await begun
        assert await asyncio.gather(*waiting) == [2, 2, 2]


async def test_an_ask_of_one_that_is_just_ending_waits_for_the_next(family: Family) -> None:
    """Between the closing of its mailbox and the word of its end: while `on_stop` runs."""
    await family.started("a", "b")
    gate: LoopFuture[None] = LoopFuture()
    family.stops["a"].append(gated(gate))
    family.refs["a"].stop(block=False)
    await turns()
    assert not family.handles["a"].up
    asked = asyncio.create_task(family.handles["a"].ask(Child.incarnation))
    await turns(20)
    assert not asked.done()
    gate.set()
    async with asyncio.timeout(DEADLINE):
        assert await asked == 2


async def test_a_methods_own_actor_down_is_not_asked_again(family: Family) -> None:
    class Middle(Actor):
        asked = 0

        def pass_on(self) -> None:
            self.asked += 1
            raise ActorDown("somebody else")

    middle: Handle[Middle] = Handle("middle")
    ref = Middle.start()
    middle.attach(ref, supervised=True)
    family.supervise()
    with pytest.raises(ActorDown, match="somebody else"):
        await middle.ask(Middle.pass_on)
    assert ref._actor_weakref().asked == 1  # type: ignore[union-attr]
    await stopped(ref)


async def test_without_a_supervisor_nobody_is_waited_for(family: Family) -> None:
    family.supervise()
    ref = Child.start(family, "a")
    handle: Handle[Child] = Handle("a", timeout=DEADLINE)
    handle.attach(ref)
    await stopped(ref)
    with pytest.raises(ActorDown, match="Child has ended"):
        await handle.ask(Child.incarnation)


async def test_a_tell_to_one_that_is_down_is_false(family: Family) -> None:
    await family.started("a", backoff=HOUR)
    assert family.handles["a"].tell(Child.incarnation) is True
    await family.crash("a")
    assert family.handles["a"].tell(Child.incarnation) is False
    await turns()
    assert family.handles["a"].tell(Child.incarnation) is False


async def test_a_call_is_answered_in_place_or_not_at_all(family: Family) -> None:
    gate: LoopFuture[None] = LoopFuture()
    spec = family.spec("a")
    handle = family.handles["a"]
    with pytest.raises(ActorDown, match="a is down"):
        handle.call(Child.incarnation)
    await family.started(spec)
    assert handle.call(Child.incarnation) == 1
    family.starts["a"].append(gated(gate))
    await family.crash("a")
    with pytest.raises(ActorDown):
        handle.call(Child.incarnation)
    asked = asyncio.create_task(handle.ask(Child.incarnation))
    gate.set()
    async with asyncio.timeout(DEADLINE):
        assert await asked == 2
    assert handle.call(Child.incarnation) == 2


async def test_a_call_does_not_come_before_the_start_is_through() -> None:
    gate: LoopFuture[None] = LoopFuture()

    class Slow(Actor):
        async def on_start(self) -> None:
            await gate

        def ready(self) -> bool:
            return True

    handle: Handle[Slow] = Handle("slow")
    ref = Slow.start()
    handle.attach(ref)
    await turns()
    with pytest.raises(ActorDown):
        handle.call(Slow.ready)
    gate.set()
    await ref.started
    assert handle.call(Slow.ready)
    await stopped(ref)


async def test_a_handle_with_another_deadline_is_the_same_name(family: Family) -> None:
    await family.started("a")
    other = family.handles["a"].within(3.0)
    assert (other.name, other.timeout, other.up) == ("a", 3.0, True)
    await family.crash("a")
    assert await other.ask(Child.incarnation) == 2


async def test_a_handle_never_keeps_a_dead_actor(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    # Records that pytest keeps hold tracebacks, and they the actor.
    monkeypatch.setattr(logging.getLogger("actors.runtime._actor"), "disabled", True)
    supervisor = await family.started("a", family.spec("b", Restart.TEMPORARY), "c", backoff=HOUR)
    watches = [weakref.ref(family.refs[name]._actor_weakref()) for name in "abc"]
    await family.crash("a", "b")
    await supervisor.ask(Supervisor.remove, "c")
    await turns()
    family.refs.clear()
    gc.collect()
    assert [watch() for watch in watches] == [None, None, None]


async def test_a_proxy_keeps_its_dead_actor_and_so_there_are_none_here(family: Family) -> None:
    """Pykka's proxies pin their actor; that is why others hold a handle."""
    await family.started("a", backoff=Told())
    proxy = family.refs["a"].proxy()
    watch = weakref.ref(proxy._actor)
    await stopped(family.refs["a"])
    family.refs.clear()
    gc.collect()
    assert watch() is not None
    del proxy
    gc.collect()
    assert watch() is None
    assert (await family.handles["a"].ask(Child.incarnation)) == 2
