"""What is refused, and that nothing happened then: blocking on the loop, cycles of asks, a full mailbox, a deadline."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pykka
import pytest
from pykka._envelope import Envelope

from actors.runtime import (
    Actor,
    ActorDown,
    AskCycle,
    AskTimeout,
    BlockingOnLoop,
    Expired,
    Handle,
    LoopFuture,
    MailboxFull,
    OutcomeUnknown,
    Ref,
    Rejected,
)
from actors.runtime._inbox import Inbox
from tests.actors.runtime.support import DEADLINE, call, stopped, turns

# Pykka types hooks as plain functions.
# mypy: disable-error-code="override"


class Diarist(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.diary: list[Any] = []
        self.field = "as it was"
        self.gate: LoopFuture[None] = LoopFuture()

    def note(self, what: Any) -> Any:
        self.diary.append(what)
        return what

    async def hold(self) -> str:
        self.diary.append("holding")
        await self.gate.wait()
        self.diary.append("held")
        return "held"

    def read(self) -> list[Any]:
        return list(self.diary)

    def on_receive(self, message: Any) -> Any:
        return self.note(message)


# -- blocking


@pytest.mark.parametrize(
    "blocking",
    [
        lambda ref: ref.ask("message"),
        lambda ref: ref.ask("message", timeout=0.1),
        lambda ref: ref.stop(),
        lambda ref: pykka.ActorRegistry.stop_all(),
        lambda ref: setattr(ref.proxy(), "field", "changed"),
    ],
    ids=["ask", "ask with a time-out", "stop", "stop_all", "proxy.x = 1"],
)
async def test_a_blocking_call_on_the_loop_is_refused_and_nothing_was_sent(blocking: Callable[[Ref[Any]], Any]) -> None:
    ref = Diarist.start()
    await ref.started
    actor = ref._actor_weakref()
    assert actor is not None
    with pytest.raises(BlockingOnLoop):
        blocking(ref)
    assert ref.actor_inbox.empty()
    await turns()
    assert ref.is_alive()
    assert actor.diary == []
    assert actor.field == "as it was"
    await stopped(ref)


async def test_blocking_get_is_refused_in_a_handler_too() -> None:
    class Blocker(Actor):
        def block(self, other: Ref[Diarist]) -> Any:
            return other.proxy().field.get()

    other, ref = Diarist.start(), Blocker.start()
    with pytest.raises(BlockingOnLoop):
        await ref.ask(call("block", other), block=False)
    await stopped(ref, other)


async def test_start_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        await asyncio.to_thread(Diarist.start)


# -- cycles


class Chained(Actor):
    """Asks the next of a list, which it hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.handled = 0
        self.outcome: LoopFuture[Any] = LoopFuture()

    async def through(self, *path: "Ref[Chained] | Handle[Chained]") -> str:
        self.handled += 1
        if not path:
            return "through"
        first, *rest = path
        return str(await _ask(first, Chained.through, *rest))

    async def through_tasks(self, first: "Ref[Chained]") -> str:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_wrap(_ask(first, Chained.through)))
        return str(task.result())

    async def through_a_thread(self, first: "Ref[Chained]") -> Any:
        return await asyncio.to_thread(first.ask, call("through"), timeout=DEADLINE)

    def tell_back(self, first: "Ref[Chained]", *path: "Ref[Chained]") -> None:
        first.tell(call("report", *path))

    async def report(self, *path: "Ref[Chained]") -> None:
        self.outcome.set(await self.through(*path))

    def spawn_back(self, *path: "Ref[Chained]") -> None:
        self.spawn(self.report(*path))

    async def nobody_awaits(self) -> None:
        self.actor_ref.proxy().report()


async def _wrap(work: Awaitable[Any]) -> Any:
    return await work


def _ask(to: "Ref[Chained] | Handle[Chained]", method: Callable[..., Any], *args: Any) -> Awaitable[Any]:
    if isinstance(to, Handle):
        return to.ask(method, *args)
    reply: LoopFuture[Any] = to.ask(call(method.__name__, *args), block=False)
    return reply


@pytest.fixture
async def two() -> Any:
    a, b = Chained.start(), Chained.start()
    yield a, b
    await stopped(a, b)


def _handled(ref: Ref[Chained]) -> int:
    actor = ref._actor_weakref()
    assert actor is not None
    return actor.handled


async def test_an_actor_that_asks_itself_is_told_so(two: Any) -> None:
    a, _ = two
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AskCycle):
            await a.ask(call("through", a), block=False)
    assert _handled(a) == 1


async def test_a_cycle_of_asks_is_refused_at_once(two: Any) -> None:
    a, b = two
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AskCycle):
            await a.ask(call("through", b, a), block=False)
        with pytest.raises(AskCycle):
            await a.ask(call("through", b, b), block=False)
        # Not a cycle: the same one twice, one after the other.
        await a.ask(call("through", b), block=False)
        await a.ask(call("through", b), block=False)
    assert (_handled(a), _handled(b)) == (4, 4)


async def test_a_cycle_through_handles_tasks_and_threads_is_seen(two: Any) -> None:
    a, b = two
    handle: Handle[Chained] = Handle("a")
    handle.attach(a)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AskCycle):
            await handle.ask(Chained.through, b, handle)
        with pytest.raises(ExceptionGroup) as group:
            await a.ask(call("through_tasks", a), block=False)
        assert group.group_contains(AskCycle)
        with pytest.raises(AskCycle):
            await a.ask(call("through_a_thread", a), block=False)


async def test_a_tell_starts_a_new_chain(two: Any) -> None:
    a, b = two
    async with asyncio.timeout(DEADLINE):
        # a is asked, asks b, which tells a, which asks b: nobody waits for himself.
        await a.ask(call("through", b), block=False)
        await b.ask(call("tell_back", a, b), block=False)
        assert await a._actor_weakref().outcome == "through"


async def test_a_told_actor_may_not_ask_itself_either(two: Any) -> None:
    a, _ = two
    a.tell(call("report", a))
    async with asyncio.timeout(DEADLINE):
        assert isinstance((await a.exited).error, AskCycle)


async def test_a_spawned_task_is_no_part_of_the_chain(two: Any) -> None:
    a, b = two
    async with asyncio.timeout(DEADLINE):
        await a.ask(call("spawn_back", a), block=False)
        assert await a._actor_weakref().outcome == "through"
        await b.ask(call("spawn_back", a), block=False)
        assert await b._actor_weakref().outcome == "through"


async def test_a_cycle_raises_even_where_nobody_awaits(two: Any) -> None:
    """A reply that nobody reads would hide that the work is not done."""
    a, _ = two
    with pytest.raises(AskCycle):
        await a.ask(call("nobody_awaits"), block=False)


async def test_an_actor_that_asks_itself_in_on_start_is_told_so() -> None:
    class Narcissus(Actor):
        async def on_start(self) -> None:
            await self.actor_ref.ask("me", block=False)

    ref = Narcissus.start()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AskCycle):
            await ref.started
        await ref.exited


# -- a full mailbox


class Narrow(Diarist):
    mailbox_capacity: ClassVar[int] = 3


async def _filled() -> tuple[Ref[Narrow], list[LoopFuture[Any]]]:
    """One at work on a message, with as many waiting as it may have."""
    ref = Narrow.start()
    replies = [ref.ask(call("hold"), block=False)]
    while not replies[0].begun:
        await turns(1)
    replies += [ref.ask(number, block=False) for number in range(3)]
    return ref, replies


async def test_a_full_mailbox_refuses_and_control_messages_pass() -> None:
    ref, replies = await _filled()
    handle: Handle[Narrow] = Handle("narrow")
    handle.attach(ref)
    with pytest.raises(MailboxFull, match="Narrow"):
        ref.tell("told")
    with pytest.raises(MailboxFull):
        await ref.ask("asked", block=False)
    with pytest.raises(MailboxFull):
        await handle.ask(Narrow.note, "asked")
    assert handle.tell(Narrow.note, "told") is False
    stop = ref.stop(block=False)
    actor = ref._actor_weakref()
    assert actor is not None
    actor.gate.set()
    async with asyncio.timeout(DEADLINE):
        assert [await each for each in replies] == ["held", 0, 1, 2]
        assert await stop is True
    assert actor.diary == ["holding", "held", 0, 1, 2]


async def test_a_full_mailbox_refuses_threads_and_has_room_again() -> None:
    ref, replies = await _filled()
    with pytest.raises(MailboxFull):
        await asyncio.to_thread(ref.tell, "from a thread")
    with pytest.raises(MailboxFull):
        await asyncio.to_thread(ref.ask, "from a thread")
    actor = ref._actor_weakref()
    assert actor is not None
    actor.gate.set()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(each.wait() for each in replies))
        assert await asyncio.to_thread(ref.ask, "from a thread", timeout=DEADLINE) == "from a thread"
    await stopped(ref)


async def test_a_timer_passes_a_full_mailbox() -> None:
    """A tick that plans the next one would never come back."""

    class Busy(Narrow):
        async def set_up(self) -> None:
            self.later(0, self.note, "tick")
            await self.hold()

    ref = Busy.start()
    ref.tell(call("set_up"))
    actor = ref._actor_weakref()
    assert actor is not None
    async with asyncio.timeout(DEADLINE):
        while not actor.diary:
            await turns(1)
        for number in range(3):
            ref.tell(number)
        while len(ref.actor_inbox._deliveries) < 4:
            await turns(1)
        actor.gate.set()
        while len(actor.diary) < 6:
            await turns(1)
        assert await ref.ask(call("read"), block=False) == ["holding", "held", 0, 1, 2, "tick"]
    await stopped(ref)


async def test_a_message_put_between_the_look_and_the_wait_is_seen() -> None:
    """From a thread, which finds nobody waiting yet and so wakes nobody."""
    loop = asyncio.get_running_loop()
    inbox = Inbox()

    class Interleaved:
        def create_future(self) -> Any:
            thread = threading.Thread(target=inbox.put, args=(Envelope("late"),))
            thread.start()
            thread.join(DEADLINE)
            return loop.create_future()

    inbox.bind(Interleaved())  # type: ignore[arg-type]  # as much of a loop as is used here
    async with asyncio.timeout(DEADLINE):
        await inbox.wait()
    assert inbox.take().envelope.message == "late"


async def test_puts_from_many_threads_all_arrive_in_each_threads_order() -> None:
    ref = Diarist.start()

    def tell(thread: int) -> None:
        for number in range(500):
            ref.tell((thread, number))

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(asyncio.to_thread(tell, thread) for thread in range(4)))
        diary = await ref.ask(call("read"), block=False)
    for thread in range(4):
        assert [number for origin, number in diary if origin == thread] == list(range(500))
    await stopped(ref)


# -- deadlines


async def _held(timeout: float = 0.0) -> tuple[Ref[Diarist], Handle[Diarist], asyncio.Task[str]]:
    """An actor at work, and a handle whose asks expire at the next turn."""
    ref = Diarist.start()
    handle: Handle[Diarist] = Handle("diarist")
    handle.attach(ref)
    held = asyncio.create_task(handle.ask(Diarist.hold))
    actor = ref._actor_weakref()
    assert actor is not None
    while not actor.diary:
        await turns(1)
    return ref, handle.within(timeout), held


def _release(ref: Ref[Any]) -> None:
    actor = ref._actor_weakref()
    assert actor is not None
    actor.gate.set()


async def test_a_message_that_expires_while_it_waits_is_never_handled() -> None:
    ref, impatient, held = await _held()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(Expired, match="did not come to note") as refusal:
            await impatient.ask(Diarist.note, "expired")
        assert isinstance(refusal.value, Rejected)
        assert isinstance(refusal.value, pykka.Timeout)
        _release(ref)
        assert await held == "held"
        assert await ref.ask(call("read"), block=False) == ["holding", "held"]
    await stopped(ref)


async def test_a_message_that_was_begun_may_have_any_outcome() -> None:
    ref = Diarist.start()
    handle: Handle[Diarist] = Handle("diarist", timeout=0.001)
    handle.attach(ref)
    await ref.started
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(AskTimeout, match="not done with hold") as timeout:
            await handle.ask(Diarist.hold)
        assert isinstance(timeout.value, OutcomeUnknown)
        _release(ref)
        # The late reply went nowhere and harmed nobody.
        assert await ref.ask(call("read"), block=False) == ["holding", "held"]
    await stopped(ref)


async def test_expired_messages_make_room_in_a_full_mailbox() -> None:
    class Small(Diarist):
        mailbox_capacity: ClassVar[int] = 100

    ref = Small.start()
    handle: Handle[Small] = Handle("small")
    handle.attach(ref)
    held = asyncio.create_task(handle.ask(Diarist.hold))
    async with asyncio.timeout(DEADLINE):
        while not (actor := ref._actor_weakref()) or not actor.diary:
            await turns(1)
        for round_ in range(5):
            outcomes = await asyncio.gather(
                *(handle.within(0).ask(Diarist.note, (round_, number)) for number in range(100)),
                return_exceptions=True,
            )
            assert {type(each) for each in outcomes} == {Expired}
        ref.tell("kept")
        _release(ref)
        await held
        assert await ref.ask(call("read"), block=False) == ["holding", "held", "kept"]
    await stopped(ref)


async def test_a_cancelled_asker_cancels_nothing() -> None:
    ref, _, held = await _held()
    handle: Handle[Diarist] = Handle("diarist")
    handle.attach(ref)
    waiting = asyncio.create_task(handle.ask(Diarist.note, "queued"))
    await turns()
    for asker in (held, waiting):
        asker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asker
    _release(ref)
    async with asyncio.timeout(DEADLINE):
        assert await ref.ask(call("read"), block=False) == ["holding", "held", "queued"]
    await stopped(ref)


async def test_a_reply_and_a_cancellation_in_the_same_turn() -> None:
    """The asker is cancelled, as with any awaitable, and the actor goes on."""
    ref, _, held = await _held()
    _release(ref)
    actor = ref._actor_weakref()
    assert actor is not None
    while actor.diary != ["holding", "held"]:
        await turns(1)
    held.cancel()
    async with asyncio.timeout(DEADLINE):
        await asyncio.wait([held])
        assert held.cancelled() or held.result() == "held"
        assert await ref.ask("next", block=False) == "next"
    await stopped(ref)


async def test_messages_before_the_first_step_wait_for_on_start() -> None:
    class Early(Diarist):
        async def on_start(self) -> None:
            await turns()
            self.note("on_start")

    ref = Early.start()
    reply = ref.ask("early", block=False)
    assert not reply.begun
    async with asyncio.timeout(DEADLINE):
        await reply
        await ref.started
        assert await ref.ask(call("read"), block=False) == ["on_start", "early"]
    await stopped(ref)


async def test_errors_are_pykkas_too() -> None:
    ref = Diarist.start()
    await stopped(ref)
    with pytest.raises(pykka.ActorDeadError, match="Diarist"):
        ref.tell("too late")
    with pytest.raises(ActorDown):
        await ref.ask("too late", block=False)
