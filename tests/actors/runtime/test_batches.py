"""Methods that take what waits in one go: order, neighbours, answers, and the actor's end in the middle."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from actors.runtime import (
    Actor,
    ActorDied,
    ActorDown,
    AskCycle,
    AskTimeout,
    Call,
    Ending,
    Expired,
    Handle,
    Ref,
    batched,
)
from tests.actors.runtime.support import DEADLINE, call, ended, stopped, turns

request_id: ContextVar[str] = ContextVar("request_id", default="none")


class Clerk(Actor):
    """Squares numbers in batches of up to four. Words make it do other things."""

    def __init__(self) -> None:
        super().__init__()
        self.diary: list[Any] = []
        self.seen: list[str] = []
        self.gate = asyncio.Event()

    async def hold(self) -> None:
        await self.gate.wait()

    @batched(max_size=4)
    async def square(self, batch: Sequence[Call[Any, Any]]) -> None:
        self.diary.append([each.request for each in batch])
        for each in batch:
            self.seen.append(each.context.run(request_id.get))
            match each.request:
                case int(number):
                    each.reply(number * number)
                case "fail":
                    each.fail(ValueError("refused"))
                case "raise":
                    raise KeyError("all")
                case "hang":
                    await asyncio.Event().wait()
                case "exit":
                    raise SystemExit(3)
                case "cancelled":
                    asyncio.get_running_loop().create_future().cancel()
                    cancelled = asyncio.get_running_loop().create_future()
                    cancelled.cancel()
                    await cancelled
                case ("ask", Ref() as other):
                    each.reply(await other.ask(call("relay", self.actor_ref), block=False))
                case "context":
                    each.reply(request_id.get())
                case _:
                    pass  # left unanswered

    @batched(max_size=2)
    async def other(self, batch: Sequence[Call[Any, Any]]) -> None:
        self.diary.append(("other", [each.request for each in batch]))
        for each in batch:
            each.reply("other")

    def plain(self, what: str) -> str:
        self.diary.append(what)
        return what


def actor_of(ref: Ref[Clerk]) -> Clerk:
    actor = ref._actor_weakref()
    assert actor is not None
    return actor


async def _busy() -> Ref[Clerk]:
    """One that holds, so that messages gather."""
    ref = Clerk.start()
    ref.tell(call("hold"))
    await ref.started
    return ref


def square(ref: Ref[Clerk], request: Any) -> Any:
    return ref.ask(call("square", request), block=False)


async def settled(*replies: Any) -> list[Any]:
    """Results and errors alike."""

    async def read(reply: Any) -> Any:
        return await reply

    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*map(read, replies), return_exceptions=True)


async def test_consecutive_calls_are_handed_over_together_in_order() -> None:
    ref = await _busy()
    replies = [square(ref, number) for number in range(6)]
    replies.append(ref.ask(call("plain", "between"), block=False))
    replies += [ref.ask(call("other", number), block=False) for number in range(3)]
    replies.append(square(ref, 6))
    clerk = actor_of(ref)
    clerk.gate.set()
    assert await settled(*replies) == [0, 1, 4, 9, 16, 25, "between", *["other"] * 3, 36]
    assert clerk.diary == [[0, 1, 2, 3], [4, 5], "between", ("other", [0, 1]), ("other", [2]), [6]]
    await stopped(ref)


async def test_callers_see_a_method_of_one_request() -> None:
    ref = Clerk.start()
    handle: Handle[Clerk] = Handle("clerk")
    handle.attach(ref)
    async with asyncio.timeout(DEADLINE):
        assert await handle.ask(Clerk.square, 3) == 9
        assert await ref.proxy().square(4) == 16
        assert await ref.ask(call("square", batch=5), block=False) == 25  # by name
        assert handle.tell(Clerk.square, 6)
        await turns()
        assert await asyncio.to_thread(ref.ask, call("square", 7), timeout=DEADLINE) == 49
    assert actor_of(ref).diary == [[3], [4], [5], [6], [7]]
    await stopped(ref)


async def test_wrong_arguments_are_their_senders_alone() -> None:
    ref = await _busy()
    replies = [square(ref, 1), ref.ask(call("square"), block=False), square(ref, 2)]
    replies += [ref.ask(call("square", 1, 2), block=False), square(ref, 3)]
    actor_of(ref).gate.set()
    one, none, two, both, three = await settled(*replies)
    assert (one, two, three) == (1, 4, 9)
    assert isinstance(none, TypeError)
    assert isinstance(both, TypeError)
    await stopped(ref)


async def test_a_failed_call_leaves_its_neighbours_unharmed() -> None:
    ref = await _busy()
    replies = [square(ref, 2), square(ref, "fail"), square(ref, 3)]
    actor_of(ref).gate.set()
    first, failed, last = await settled(*replies)
    assert (first, last) == (4, 9)
    assert isinstance(failed, ValueError)
    await stopped(ref)


async def test_an_unanswered_call_fails() -> None:
    ref = await _busy()
    replies = [square(ref, 2), square(ref, "unknown")]
    actor_of(ref).gate.set()
    answered, unanswered = await settled(*replies)
    assert answered == 4
    assert isinstance(unanswered, RuntimeError)
    assert "square left a call unanswered" in str(unanswered)
    await stopped(ref)


@pytest.mark.parametrize(("word", "error"), [("raise", KeyError), ("cancelled", RuntimeError)])
async def test_an_exception_goes_to_all_who_have_no_answer(word: str, error: type[Exception]) -> None:
    ref = await _busy()
    replies = [square(ref, 2), square(ref, word), square(ref, 3)]
    actor_of(ref).gate.set()
    first, *others = await settled(*replies)
    assert first == 4
    assert [type(each) for each in others] == [error, error]
    assert ref.is_alive()
    assert await square(ref, 5) == 25
    await stopped(ref)


async def test_an_exception_that_a_told_call_shares_ends_the_actor() -> None:
    """As an exception from any told message does: nobody else would learn of it."""
    ref = await _busy()
    asked = square(ref, "raise")
    ref.tell(call("square", 1))
    waiting = ref.ask(call("plain", "behind"), block=False)
    actor_of(ref).gate.set()
    failure, behind = await settled(asked, waiting)
    assert isinstance(failure, KeyError)
    assert isinstance(behind, ActorDown)
    exit_ = await ended(ref)
    assert (exit_.ending, type(exit_.error)) == (Ending.FAILED, KeyError)


async def test_told_calls_have_nobody_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    ref = Clerk.start()
    for request in (2, "fail", "unknown"):
        ref.tell(call("square", request))
    assert await square(ref, 3) == 9
    assert "refused" in caplog.text
    await stopped(ref)


async def test_each_call_brings_its_senders_context() -> None:
    ref = await _busy()
    replies = []
    for number in range(3):
        request_id.set(f"request {number}")
        replies.append(square(ref, "context"))
    actor_of(ref).gate.set()
    # The method itself runs in the first one's, a copy: `call.context.run` works for the first, too.
    assert await settled(*replies) == ["request 0"] * 3
    assert actor_of(ref).seen == [f"request {number}" for number in range(3)]
    await stopped(ref)


@pytest.mark.parametrize("end", ["hang", "exit"])
async def test_an_end_in_the_middle_answers_all_of_the_batch(end: str) -> None:
    ref = await _busy()
    replies = [square(ref, 2), square(ref, end), square(ref, 3), square(ref, 4), square(ref, 5)]
    clerk = actor_of(ref)
    clerk.gate.set()
    while not clerk.diary:
        await turns(1)
    ref.cancel()
    first, *begun, waiting = await settled(*replies)
    assert first == 4
    assert [type(each) for each in begun] == [ActorDied] * 3
    assert type(waiting) is ActorDown
    assert (await ended(ref)).ending is (Ending.CANCELLED if end == "hang" else Ending.FAILED)


async def test_a_call_that_expired_is_left_out_and_one_that_was_begun_times_out() -> None:
    ref = await _busy()
    handle: Handle[Clerk] = Handle("clerk")
    handle.attach(ref)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(Expired):
            await handle.within(0).ask(Clerk.square, 1)
        kept = square(ref, 2)
        clerk = actor_of(ref)
        clerk.gate.set()
        assert await kept == 4
        assert clerk.diary == [[2]]
        with pytest.raises(AskTimeout):
            await handle.within(0.001).ask(Clerk.square, "hang")
    ref.cancel()
    await ended(ref)


async def test_a_batch_whose_askers_have_all_gone_is_not_handled() -> None:
    ref = await _busy()
    handle: Handle[Clerk] = Handle("clerk")
    handle.attach(ref)
    outcomes = await settled(*(handle.within(0).ask(Clerk.square, number) for number in range(3)))
    assert {type(each) for each in outcomes} == {Expired}
    clerk = actor_of(ref)
    clerk.gate.set()
    assert await ref.ask(call("plain", "after"), block=False) == "after"
    assert clerk.diary == ["after"]
    await stopped(ref)


async def test_a_batch_may_be_answered_from_a_thread() -> None:
    class Threaded(Actor):
        @batched(max_size=10)
        async def thread(self, batch: Sequence[Call[int, int]]) -> None:
            def work() -> None:
                for each in batch:
                    each.reply(threading.get_ident())

            await asyncio.to_thread(work)

    ref = Threaded.start()
    async with asyncio.timeout(DEADLINE):
        assert await ref.ask(call("thread", 1), block=False) != threading.get_ident()
    await stopped(ref)


async def test_a_batch_that_asks_one_of_its_senders_is_a_cycle() -> None:
    class Sender(Actor):
        async def relay(self, clerk: Ref[Clerk]) -> Any:
            return await square(clerk, ("ask", self.actor_ref))

    clerk, sender = await _busy(), Sender.start()
    innocent = square(clerk, 1)
    guilty = sender.ask(call("relay", clerk), block=False)
    await turns()
    actor_of(clerk).gate.set()
    first, second = await settled(innocent, guilty)
    assert first == 1
    assert isinstance(second, AskCycle)
    await stopped(clerk, sender)


async def test_an_answered_call_says_so() -> None:
    seen: list[list[bool]] = []

    class Asked(Actor):
        @batched(max_size=3)
        async def calls(self, batch: Sequence[Call[str, str]]) -> None:
            batch[0].reply("first")
            seen.append([each.answered for each in batch])
            batch[1].reply("second")

        async def hold(self) -> None:
            await turns(3)

    ref = Asked.start()
    ref.tell(call("hold"))
    first, second = (ref.ask(call("calls", name), block=False) for name in "ab")
    ref.tell(call("calls", "told"))
    assert await settled(first, second) == ["first", "second"]
    assert seen == [[True, False, True]]
    await stopped(ref)


def test_what_cannot_take_batches_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="at least one"):
        batched(max_size=0)

    def plain(self: Any, batch: Any) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    with pytest.raises(TypeError, match="async def"):
        batched(max_size=2)(plain)
