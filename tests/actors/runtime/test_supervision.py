"""Supervision as OTP's: order, restart types, strategies, intensity, backoff, escalation, and ends that come together."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pykka
import pytest

from actors.runtime import (
    Actor,
    Backoff,
    ChildSpec,
    Ending,
    Escalation,
    Foreseen,
    Handle,
    Intensity,
    LoopFuture,
    MailboxFull,
    Ref,
    Restart,
    Strategy,
    Supervisor,
)
from tests.actors.runtime.supervised import HOUR, Child, Family, Told, fail, forever, gated
from tests.actors.runtime.support import DEADLINE, ended, stopped, turns

REST = Strategy.REST_FOR_ONE


@pytest.fixture
async def family() -> AsyncIterator[Family]:
    family = Family()
    yield family
    await stopped(family.ref)
    assert not any(handle.up for handle in family.handles.values())


# -- start and stop


async def test_children_start_in_order_and_stop_in_reverse(family: Family) -> None:
    family.supervise("a", "b", "c")
    await family.ref.started
    assert family.log == ["+a", "+b", "+c"]
    await stopped(family.ref)
    assert family.log == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_the_next_starts_when_the_one_before_is_up(family: Family) -> None:
    gate: LoopFuture[None] = LoopFuture()
    family.starts["a"].append(gated(gate))
    family.supervise("a", "b")
    await turns(20)
    assert family.log == ["+a"]
    gate.set()
    await family.ref.started
    assert family.log == ["+a", "+b"]


async def test_a_child_that_cannot_start_fails_the_start(family: Family) -> None:
    family.starts["c"].append(fail)
    family.supervise("a", "b", "c", "d")
    with pytest.raises(OSError, match="no such device"):
        await family.ref.started
    exit_ = await ended(family.ref)
    assert (exit_.ending, type(exit_.error)) == (Ending.FAILED, OSError)
    assert family.log == ["+a", "+b", "+c", "-b", "-a"]


async def test_a_child_that_hangs_in_its_start_is_cancelled(family: Family) -> None:
    family.starts["b"].append(forever)
    family.supervise("a", family.spec("b", start_timeout=0.01))
    with pytest.raises(TimeoutError, match="b was not ready within"):
        await family.ref.started
    await ended(family.ref)
    assert (await ended(family.refs["b"])).ending is Ending.CANCELLED
    assert family.log == ["+a", "+b", "-a"]


async def test_a_constructor_that_raises_fails_the_start(family: Family) -> None:
    def start() -> Ref[Child]:
        raise TypeError("constructor")

    family.supervise("a", ChildSpec(Handle("b"), start))
    with pytest.raises(TypeError, match="constructor"):
        await family.ref.started
    await ended(family.ref)


async def test_a_child_that_ignores_its_stop_is_cancelled(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    family.stops["b"].append(forever)
    await family.started("a", family.spec("b", stop_timeout=0.01))
    await stopped(family.ref)
    assert family.log == ["-b", "-a"]
    assert (await ended(family.refs["b"])).ending is Ending.CANCELLED
    assert "b did not stop within 0.01 s" in caplog.text


async def test_a_child_that_ignores_even_its_cancellation_holds_nobody_up(
    family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    class Impatient(Supervisor):
        stop_grace: ClassVar[float] = 0.01

    gate: LoopFuture[None] = LoopFuture()

    async def stubborn() -> None:
        while not gate.settled:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    family.kind = Impatient
    family.stops["b"].append(stubborn)
    await family.started("a", family.spec("b", stop_timeout=0.01))
    await stopped(family.ref)
    assert "b does not even end when cancelled" in caplog.text
    gate.set()
    await ended(family.refs["b"])


async def test_what_waits_in_a_childs_mailbox_is_handled_before_it_stops(family: Family) -> None:
    await family.started("a")
    replies = [family.refs["a"].proxy().incarnation() for _ in range(3)]
    await stopped(family.ref)
    assert [await each for each in replies] == [1, 1, 1]


# -- restart types


@pytest.mark.parametrize(
    ("restart", "way", "again"),
    [
        (Restart.PERMANENT, "crash", True),
        (Restart.PERMANENT, "stop", True),
        (Restart.PERMANENT, "cancel", True),
        (Restart.TRANSIENT, "crash", True),
        (Restart.TRANSIENT, "stop", False),
        (Restart.TRANSIENT, "cancel", True),
        (Restart.TEMPORARY, "crash", False),
        (Restart.TEMPORARY, "stop", False),
        (Restart.TEMPORARY, "cancel", False),
    ],
)
async def test_restart_types(family: Family, restart: Restart, way: str, again: bool) -> None:
    supervisor = await family.started(family.spec("a", restart), "b")
    ref = family.refs["a"]
    match way:
        case "crash":
            family.handles["a"].tell(Child.crash)
        case "stop":
            ref.stop(block=False)
        case _:
            ref.cancel()
    await ended(ref)
    await turns(20)
    assert family.handles["a"].up is again
    assert family.number["a"] == 1 + again
    restarts = await supervisor.ask(Supervisor.restarts)
    assert restarts == {"b": 0} if restart is Restart.TEMPORARY else {"a": int(again), "b": 0}


async def test_a_temporary_childs_name_is_free_when_it_has_ended(family: Family) -> None:
    supervisor = await family.started(family.spec("a", Restart.TEMPORARY))
    await family.crash("a")
    await turns()
    with pytest.raises(KeyError):
        await supervisor.ask(Supervisor.remove, "a")
    await supervisor.ask(Supervisor.add, family.spec("a", Restart.TEMPORARY))
    assert await family.handles["a"].ask(Child.incarnation) == 2


# -- strategies


async def test_one_for_one_restarts_the_one(family: Family) -> None:
    await family.started("a", "b", "c")
    await family.crash("b")
    await family.logged("!b", "+b")


async def test_rest_for_one_restarts_those_after_it_too(family: Family) -> None:
    supervisor = await family.started("a", "b", "c", "d", strategy=REST)
    await family.crash("b")
    await family.logged("!b", "-d", "-c", "+b", "+c", "+d")
    assert await supervisor.ask(Supervisor.restarts) == {"a": 0, "b": 1, "c": 1, "d": 1}


async def test_rest_for_one_stops_the_rest_at_once_and_not_after_the_backoff(family: Family) -> None:
    supervisor = await family.started("a", "b", "c", strategy=REST, backoff=HOUR)
    await family.crash("b")
    await family.logged("!b", "-c")
    assert [family.handles[name].up for name in "abc"] == [True, False, False]
    assert await supervisor.ask(Supervisor.restarts) == {"a": 0, "b": 0, "c": 0}


async def test_rest_for_one_does_not_restart_temporary_children(family: Family) -> None:
    supervisor = await family.started("a", family.spec("t", Restart.TEMPORARY), "b", strategy=REST)
    await family.crash("a")
    await family.logged("!a", "-b", "-t", "+a", "+b")
    assert await supervisor.ask(Supervisor.restarts) == {"a": 1, "b": 1}


async def test_rest_for_one_restarts_a_transient_child_that_had_finished(family: Family) -> None:
    """As OTP does: what it did may have to be done again with the new one."""
    await family.started("a", family.spec("t", Restart.TRANSIENT), strategy=REST)
    await stopped(family.refs["t"])
    await family.logged("-t")
    await family.crash("a")
    await family.logged("-t", "!a", "+a", "+t")


# -- intensity and escalation


async def test_intensity_counts_the_ends_within_its_window(family: Family) -> None:
    now = [0.0]
    await family.started("a", "b", intensity=Intensity(2, 10.0), clock=lambda: now[0])
    await family.crash("a")
    await turns(20)
    now[0] = 9.0
    await family.crash("b")
    await turns(20)
    now[0] = 10.0  # the first has left the window
    await family.crash("a")
    await turns(20)
    assert family.ref.is_alive()
    now[0] = 18.9
    await family.crash("a")
    exit_ = await ended(family.ref)
    assert exit_.ending is Ending.FAILED
    assert isinstance(exit_.error, Escalation)
    assert "a ended (failed: ValueError: a crashed): 3 ends within 10 s, 2 allowed" in str(exit_.error)
    # The others are stopped in order.
    assert family.log[-2:] == ["!a", "-b"]


async def test_the_rest_that_is_taken_along_does_not_count(family: Family) -> None:
    await family.started("a", "b", "c", "d", strategy=REST, intensity=Intensity(1, 10.0))
    await family.crash("b")
    await family.logged("!b", "-d", "-c", "+b", "+c", "+d")
    assert family.ref.is_alive()


async def test_starts_that_fail_count(family: Family) -> None:
    await family.started("a", intensity=Intensity(3, 10.0))
    family.starts["a"] += [fail, fail, fail]
    await family.crash("a")
    exit_ = await ended(family.ref)
    assert isinstance(exit_.error, Escalation)
    assert "no such device" in str(exit_.error)
    assert family.log == ["!a", "+a", "+a", "+a"]


async def test_escalation_climbs(family: Family) -> None:
    """The inner supervisor gives up, its parent restarts it with its children, and at last gives up too."""
    outer: Handle[Supervisor] = Handle("outer", timeout=DEADLINE)
    inner: Handle[Supervisor] = Handle("inner", timeout=DEADLINE)

    def start_inner() -> Ref[Supervisor]:
        return family.supervise("b", "c", intensity=Intensity(0, 10.0))

    root = Supervisor.start(
        [family.spec("a"), ChildSpec(inner, start_inner)], intensity=Intensity(1, 1000.0), backoff=Told()
    )
    outer.attach(root)
    await root.started
    family.log.clear()
    await family.crash("b")
    await family.logged("!b", "-c", "+b", "+c")
    assert await outer.ask(Supervisor.restarts) == {"a": 0, "inner": 1}
    assert await inner.ask(Supervisor.restarts) == {"b": 0, "c": 0}
    assert [await family.handles[name].ask(Child.incarnation) for name in "abc"] == [1, 2, 2]
    await family.crash("c")
    exit_ = await ended(root)
    assert isinstance(exit_.error, Escalation)
    assert "inner: c ended (failed: ValueError: c crashed): " in str(exit_.error)
    await family.logged("!b", "-c", "+b", "+c", "!c", "-b", "-a")


# -- backoff


def test_backoff_grows_from_nothing_to_its_maximum() -> None:
    backoff = Backoff(initial=1.0, maximum=6.0)
    assert backoff.delay(1) == 0.0
    for restarts, wanted in ((2, 1.0), (3, 2.0), (4, 4.0), (5, 6.0), (50, 6.0), (10_000, 6.0)):
        for _ in range(50):
            assert 0.8 * wanted <= backoff.delay(restarts) <= wanted


async def test_backoff_is_told_the_childs_ends_within_the_window(family: Family) -> None:
    now = [0.0]
    told = Told()
    await family.started("a", "b", backoff=told, intensity=Intensity(100, 10.0), clock=lambda: now[0])
    for name in ("a", "a", "b"):
        await family.crash(name)
        await turns(20)
    now[0] = 10.0
    await family.crash("a")
    await turns(20)
    assert told.asked == [1, 2, 1, 1]


async def test_the_mailbox_is_awake_during_a_backoff(family: Family) -> None:
    supervisor = await family.started("a", "b", backoff=HOUR)
    await family.crash("a")
    await turns()
    assert await supervisor.ask(Supervisor.restarts) == {"a": 0, "b": 0}
    await supervisor.ask(Supervisor.add, family.spec("c"))
    await family.crash("b")
    assert await supervisor.ask(Supervisor.restarts) == {"a": 0, "b": 0, "c": 0}
    await stopped(family.ref)
    assert family.log == ["!a", "+c", "!b", "-c"]


async def test_a_start_that_fails_is_tried_again(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    await family.started("a", "b", backoff=told)
    family.starts["a"] += [fail, fail]
    await family.crash("a")
    await family.logged("!a", "+a", "+a", "+a")
    assert told.asked == [1, 2, 3]
    assert caplog.text.count("a could not be started again") == 2
    assert await family.handles["a"].ask(Child.incarnation) == 4


async def test_a_foreseen_end_is_told_in_one_line(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """Once with when it is started again, once when it is back; the same for a start that fails."""

    async def fail_foreseen() -> None:
        raise Foreseen("its port is taken")

    caplog.set_level(logging.INFO)
    await family.started("a", backoff=Told(seconds=0.1))
    family.starts["a"].append(fail_foreseen)
    family.handles["a"].tell(Child.crash, Foreseen("its process was killed"))
    await family.logged("!a", "+a", "+a")
    await family.handles["a"].ask(Child.incarnation)
    assert [(record.levelname, record.getMessage(), record.exc_info) for record in caplog.records] == [
        ("WARNING", "a: its process was killed; it is started again in 0.1 s", None),
        ("WARNING", "a: its port is taken; it is started again in 0.1 s", None),
        ("INFO", "a runs again", None),
    ]


async def test_a_start_that_hangs_is_cancelled_and_tried_again(family: Family) -> None:
    await family.started(family.spec("a", start_timeout=0.01))
    family.starts["a"].append(forever)
    await family.crash("a")
    await family.logged("!a", "+a", "+a")
    assert await family.handles["a"].ask(Child.incarnation) == 3


async def test_a_start_that_is_cancelled_by_somebody_is_tried_again(family: Family) -> None:
    """Its `CancelledError` is not the supervisor's."""
    await family.started("a")
    family.starts["a"].append(forever)
    await family.crash("a")
    await family.logged("!a", "+a")
    family.refs["a"].cancel()
    await family.logged("!a", "+a", "+a")
    assert family.ref.is_alive()


async def test_a_start_that_raises_system_exit_is_tried_again(family: Family) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    await family.started("a")
    family.starts["a"].append(leave)
    await family.crash("a")
    await family.logged("!a", "+a", "+a")


async def test_the_rest_waits_for_a_start_that_fails(family: Family) -> None:
    await family.started("a", "b", "c", strategy=REST)
    family.starts["b"].append(fail)
    await family.crash("a")
    # b's failed start is an end of b: what was after it starts after it.
    await family.logged("!a", "-c", "-b", "+a", "+b", "+b", "+c")


# -- adding and removing


async def test_add_starts_after_all_others_and_refuses_a_name_twice(family: Family) -> None:
    supervisor = await family.started("a")
    await supervisor.ask(Supervisor.add, family.spec("b"))
    with pytest.raises(ValueError, match="b is there already"):
        await supervisor.ask(Supervisor.add, family.spec("b"))
    await stopped(family.ref)
    assert family.log == ["+b", "-b", "-a"]


async def test_an_add_that_fails_leaves_nothing(family: Family) -> None:
    supervisor = await family.started("a")
    family.starts["b"].append(fail)
    with pytest.raises(OSError, match="no such device"):
        await supervisor.ask(Supervisor.add, family.spec("b"))
    assert await supervisor.ask(Supervisor.restarts) == {"a": 0}
    await supervisor.ask(Supervisor.add, family.spec("b"))
    assert await supervisor.ask(Supervisor.restarts) == {"a": 0, "b": 0}


async def test_remove_stops_and_forgets(family: Family) -> None:
    supervisor = await family.started("a", "b")
    await supervisor.ask(Supervisor.remove, "a")
    assert await supervisor.ask(Supervisor.restarts) == {"b": 0}
    with pytest.raises(KeyError):
        await supervisor.ask(Supervisor.remove, "a")
    await family.logged("-a")


async def test_a_child_is_removed_in_its_backoff(family: Family) -> None:
    supervisor = await family.started("a", "b", backoff=HOUR)
    await family.crash("a")
    await turns()
    await supervisor.ask(Supervisor.remove, "a")
    assert await supervisor.ask(Supervisor.restarts) == {"b": 0}
    assert not _timers()
    await family.logged("!a")


def _timers() -> list[Any]:
    """What the loop has planned for more than a minute from now, beside time-outs of tests."""
    loop = asyncio.get_running_loop()
    scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    return [timer for timer in scheduled if not timer.cancelled() and timer.when() > loop.time() + 600]


async def _busy(family: Family, supervisor: Handle[Supervisor]) -> tuple[LoopFuture[None], asyncio.Task[None]]:
    """Keep the supervisor at work on the start of one more child, so that messages gather."""
    gate: LoopFuture[None] = LoopFuture()
    family.starts["busy"].append(gated(gate))
    adding = asyncio.create_task(supervisor.ask(Supervisor.add, family.spec("busy")))
    async with asyncio.timeout(DEADLINE):
        while "+busy" not in family.log:
            await turns(1)
    return gate, adding


async def _waiting(family: Family, count: int) -> None:
    """Return when so many messages wait at the supervisor."""
    async with asyncio.timeout(DEADLINE):
        while len(family.ref.actor_inbox._deliveries) < count:
            await turns(1)


async def test_a_restart_that_is_due_already_is_void_once_the_child_was_removed(family: Family) -> None:
    """`remove`, and behind it the restart, and `add` under the same name: the old one stays away, the new one alone."""
    supervisor = await family.started("a", "b", backoff=Told(seconds=0.005))
    await family.crash("a")
    await turns(1)
    gate, adding = await _busy(family, supervisor)
    removing = asyncio.create_task(supervisor.ask(Supervisor.remove, "a"))
    await _waiting(family, 2)  # the restart is due
    added_again = asyncio.create_task(supervisor.ask(Supervisor.add, family.spec("a")))
    await turns()
    gate.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(adding, removing, added_again)
    await turns(20)
    assert family.number["a"] == 2
    assert await supervisor.ask(Supervisor.restarts) == {"b": 0, "busy": 0, "a": 0}


async def test_a_child_added_during_a_backoff_runs_on(family: Family) -> None:
    supervisor = await family.started("a", "b", strategy=REST, backoff=Told(seconds=0.01))
    await family.crash("a")
    await turns()
    await supervisor.ask(Supervisor.add, family.spec("c"))
    await family.logged("!a", "-b", "+c", "+a", "+b")


# -- ends that come together


@pytest.mark.parametrize("order", ["ac", "ca", "abc", "cba", "bc", "cb"])
async def test_children_that_end_at_once_are_restarted_once_and_in_order(family: Family, order: str) -> None:
    supervisor = await family.started("a", "b", "c", "d", strategy=REST)
    await family.crash(*order)
    await turns(40)
    first = min(order)
    taken = [name for name in "abcd" if name >= first]
    starts = [entry for entry in family.log if entry.startswith("+")]
    assert starts == [f"+{name}" for name in taken]
    restarts = await supervisor.ask(Supervisor.restarts)
    assert restarts == {name: int(name in taken) for name in "abcd"}
    assert all(family.handles[name].up for name in "abcd")


async def test_a_restart_that_is_due_is_void_once_one_before_it_ended(family: Family) -> None:
    """c's restart waits in the mailbox behind the end of a, whose own restart is an hour away: c must not go first."""

    class Twice(Told):
        def delay(self, restarts: int) -> float:
            super().delay(restarts)
            return 0.005 if len(self.asked) == 1 else 3600.0

    supervisor = await family.started("a", "b", "c", strategy=REST, backoff=Twice())
    await family.crash("c")
    await turns(1)
    gate, adding = await _busy(family, supervisor)
    await family.crash("a")
    await _waiting(family, 2)  # its end, and c's restart
    gate.set()
    await adding
    await turns(40)
    assert family.log == ["!c", "+busy", "!a", "-busy", "-b"]
    assert not any(handle.up for handle in family.handles.values())


async def test_a_child_ends_while_the_restart_of_another_waits_for_its_start(family: Family) -> None:
    gate: LoopFuture[None] = LoopFuture()
    await family.started("a", "b", "c")
    family.starts["a"].append(gated(gate))
    await family.crash("a")
    await turns(20)
    await family.crash("c")
    # Nobody keeps asking the dead one, though the supervisor is busy.
    await turns()
    assert not family.handles["c"].up
    assert family.log == ["!a", "+a", "!c"]
    gate.set()
    await family.logged("!a", "+a", "!c", "+c")


async def test_a_later_child_ends_while_the_rest_is_restarted(family: Family) -> None:
    gate: LoopFuture[None] = LoopFuture()
    await family.started("a", "b", "c", strategy=REST)
    family.starts["c"].append(gated(gate))
    await family.crash("a")
    await turns(20)
    assert family.log == ["!a", "-c", "-b", "+a", "+b", "+c"]
    await family.crash("b")  # c is still starting
    await turns()
    gate.set()
    await family.logged("!a", "-c", "-b", "+a", "+b", "+c", "!b", "-c", "+b", "+c")


async def test_a_child_that_ends_right_after_its_start_is_restarted(family: Family) -> None:
    class Brief(Actor):
        lives = 0

        async def on_start(self) -> None:  # type: ignore[override]  # hooks may be async
            Brief.lives += 1
            if Brief.lives < 3:
                self.actor_ref.stop(block=False)

    handle: Handle[Brief] = Handle("brief", timeout=DEADLINE)
    await family.started(ChildSpec(handle, Brief.start))
    async with asyncio.timeout(DEADLINE):
        while Brief.lives < 3:
            await turns(1)
    await turns(20)
    assert handle.up


async def test_an_end_reaches_a_supervisor_with_a_full_mailbox(family: Family) -> None:
    class Narrow(Supervisor):
        mailbox_capacity: ClassVar[int] = 2

    family.kind = Narrow
    supervisor = await family.started("a")
    gate: LoopFuture[None] = LoopFuture()
    family.starts["b"].append(gated(gate))
    asked: list[asyncio.Task[Any]] = [asyncio.create_task(supervisor.ask(Supervisor.add, family.spec("b")))]
    await turns()
    asked += [asyncio.create_task(supervisor.ask(Supervisor.restarts)) for _ in range(2)]
    await turns()
    with pytest.raises(MailboxFull):
        await supervisor.ask(Supervisor.restarts)
    await family.crash("a")
    gate.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*asked)
        assert await family.handles["a"].ask(Child.incarnation) == 2


# -- a supervisor's own end


async def test_a_cancelled_supervisor_cancels_its_children(family: Family) -> None:
    family.stops["b"].append(forever)  # it would never stop in order
    await family.started("a", "b")
    family.ref.cancel()
    assert (await ended(family.ref)).ending is Ending.CANCELLED
    assert sorted(family.log) == ["xa", "xb"]
    for ref in family.refs.values():
        assert ref.exited.settled


@pytest.mark.parametrize("phase", ["start", "restart", "stop"])
async def test_a_supervisor_cancelled_in_the_middle_leaves_no_child(family: Family, phase: str) -> None:
    if phase == "start":
        family.starts["b"].append(forever)
        family.supervise("a", "b", "c")
        await turns(20)
    else:
        await family.started("a", "b", "c")
        (family.starts if phase == "restart" else family.stops)["b"].append(forever)
        if phase == "restart":
            await family.crash("b")
        else:
            family.ref.stop(block=False)
        await turns(20)
    family.ref.cancel()
    assert (await ended(family.ref)).ending is Ending.CANCELLED
    for ref in family.refs.values():
        assert ref.exited.settled
    assert pykka.ActorRegistry.get_all() == []


async def test_a_grandchild_that_will_not_stop_costs_its_supervisor_the_order_and_nobody_else(
    family: Family,
) -> None:
    inner: Handle[Supervisor] = Handle("inner")
    family.stops["b"].append(forever)
    root = Supervisor.start(
        [ChildSpec(inner, lambda: family.supervise("b", "c"), stop_timeout=0.01), family.spec("a")], backoff=Told()
    )
    await root.started
    family.log.clear()
    await stopped(root)
    assert family.log == ["-a", "-c", "-b"]
    for ref in family.refs.values():
        assert ref.exited.settled


async def test_a_supervisor_whose_handler_fails_stops_its_children(family: Family) -> None:
    class Failing(Supervisor):
        def fail(self) -> None:
            raise ValueError("told")

    family.kind = Failing
    supervisor: Any = await family.started("a", "b")
    supervisor.tell(Failing.fail)
    assert (await ended(family.ref)).ending is Ending.FAILED
    assert family.log == ["-b", "-a"]


# -- nothing grows


async def test_thousands_of_restarts_leave_nothing(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_actor", "supervision"):
        # Records that pytest keeps hold tracebacks, and they the actors.
        monkeypatch.setattr(logging.getLogger(f"actors.runtime.{module}"), "disabled", True)
    await family.started("a", "b", intensity=Intensity(1_000_000, 1.0))
    old: list[weakref.ref[Any]] = []

    async def rounds(count: int) -> None:
        for _ in range(count):
            old.append(weakref.ref(family.refs["a"]._actor_weakref()))
            await family.crash("a")
            await family.handles["a"].ask(Child.incarnation)

    await rounds(20)
    gc.collect()
    before = len(gc.get_objects()), len(asyncio.all_tasks()), len(pykka.ActorRegistry.get_all())
    await rounds(1000)
    family.log.clear()
    gc.collect()
    after = len(gc.get_objects()), len(asyncio.all_tasks()), len(pykka.ActorRegistry.get_all())
    # Some of what is counted are the weak references above.
    assert after[0] - before[0] < 1000 + 200
    assert after[1:] == before[1:]
    assert [watch() for watch in old] == [None] * len(old)
