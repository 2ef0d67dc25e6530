"""Futures: Pykka's documented behaviour for both kinds, and what ours adds on the loop."""

import asyncio
import gc
import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pykka
import pytest

from actors.runtime import BlockingOnLoop, LoopFuture
from tests.actors.runtime.support import DEADLINE, Flavour, on_a_thread, turns

# -- both kinds, read on a thread


@on_a_thread
def test_get_gives_what_was_set_again_and_again(flavour: Flavour) -> None:
    future = flavour.future()
    future.set([1])
    assert future.get() is future.get(timeout=0)
    empty = flavour.future()
    empty.set()
    assert empty.get() is None
    assert repr(empty) == "<pykka.Future>"


@on_a_thread
def test_get_waits_for_another_thread(flavour: Flavour) -> None:
    future = flavour.future()
    reader: list[Any] = []
    thread = threading.Thread(target=lambda: reader.append(future.get(timeout=DEADLINE)))
    thread.start()
    future.set("late")
    thread.join(DEADLINE)
    assert reader == ["late"]


@on_a_thread
def test_get_times_out(flavour: Flavour) -> None:
    future = flavour.future()
    for seconds in (0, 0.001):
        with pytest.raises(pykka.Timeout, match=f"{seconds} seconds"):
            future.get(timeout=seconds)
    future.set("since")
    assert future.get(timeout=0) == "since"


@pytest.mark.parametrize(
    "set_again", [lambda each: each.set(2), lambda each: each.set_exception((KeyError, None, None))]
)
@pytest.mark.parametrize("set_first", [lambda each: each.set(1), lambda each: each.set_get_hook(lambda _timeout: 1)])
@on_a_thread
def test_a_future_is_set_once(
    flavour: Flavour, set_first: Callable[[Any], None], set_again: Callable[[Any], None]
) -> None:
    future = flavour.future()
    set_first(future)
    with pytest.raises(queue.Full):
        set_again(future)
    assert future.get() == 1


@on_a_thread
def test_a_hook_comes_too_late_for_a_value(flavour: Flavour) -> None:
    future = flavour.future()
    future.set(1)
    with pytest.raises(queue.Full):
        future.set_get_hook(lambda _timeout: 2)


@on_a_thread
def test_set_exception_takes_the_one_at_hand_or_a_triple(flavour: Flavour) -> None:
    at_hand, triple, bare = flavour.future(), flavour.future(), flavour.future()
    try:
        raise ValueError("at hand")  # noqa: TRY301  # the one at hand is what it is about
    except ValueError:
        at_hand.set_exception()
    with pytest.raises(ValueError, match="at hand"):
        at_hand.get()
    triple.set_exception((KeyError, KeyError("given"), None))
    with pytest.raises(KeyError, match="given"):
        triple.get()
    bare.set_exception((KeyError, None, None))
    with pytest.raises(KeyError):
        bare.get()


@on_a_thread
def test_reading_an_exception_again_makes_its_traceback_no_longer(flavour: Flavour) -> None:
    future = flavour.future()
    try:
        raise ValueError("once")  # noqa: TRY301  # as above
    except ValueError:
        future.set_exception()
    lengths = []
    for _ in range(3):
        try:
            future.get()
        except ValueError as error:
            traceback, length = error.__traceback__, 0
            while traceback is not None:
                traceback, length = traceback.tb_next, length + 1
            lengths.append(length)
    assert len(set(lengths)) == 1


@on_a_thread
def test_a_get_hook_runs_once_at_the_reading(flavour: Flavour) -> None:
    asked: list[float | None] = []

    def hook(timeout: float | None) -> int:
        asked.append(timeout)
        return len(asked)

    future = flavour.future()
    future.set_get_hook(hook)
    assert asked == []
    assert future.get(timeout=1.5) == 1
    assert future.get() == 1
    assert asked == [1.5]


@on_a_thread
def test_a_get_hook_that_raises_is_tried_again(flavour: Flavour) -> None:
    outcomes = iter([ValueError("not yet"), 5])

    def hook(_timeout: float | None) -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    future = flavour.future()
    future.set_get_hook(hook)
    with pytest.raises(ValueError, match="not yet"):
        future.get()
    assert future.get() == 5


@on_a_thread
def test_derived_futures(flavour: Flavour) -> None:
    number, numbers, other = flavour.future(), flavour.future(), flavour.future()
    mapped = number.map(lambda value: value + 10)
    filtered = numbers.filter(lambda value: value > 1)
    reduced = numbers.reduce(lambda one, two: one + two)
    reduced_from = numbers.reduce(lambda one, two: one + two, 100)
    joined = number.join(numbers, other)
    chained = filtered.map(list).map(len)
    number.set(30)
    numbers.set([1, 2, 3])
    other.set("x")
    assert mapped.get(timeout=DEADLINE) == 40
    assert filtered.get(timeout=DEADLINE) == [2, 3]
    assert reduced.get(timeout=DEADLINE) == 6
    assert reduced_from.get(timeout=DEADLINE) == 106
    assert joined.get(timeout=DEADLINE) == [30, [1, 2, 3], "x"]
    assert chained.get(timeout=DEADLINE) == 2
    with pytest.raises(queue.Full):
        mapped.set("by hand")


@on_a_thread
def test_derived_futures_pass_time_outs_and_errors_on(flavour: Flavour) -> None:
    future = flavour.future()
    mapped = future.map(lambda value: len(list(value)))
    with pytest.raises(pykka.Timeout):
        mapped.get(timeout=0)
    future.set(5)
    with pytest.raises(TypeError):
        mapped.get(timeout=DEADLINE)
    with pytest.raises(TypeError):
        future.filter(bool).get(timeout=DEADLINE)
    with pytest.raises(TypeError):
        future.reduce(max).get(timeout=DEADLINE)
    empty = flavour.future()
    empty.set([])
    assert empty.reduce(max, 7).get(timeout=DEADLINE) == 7


# -- ours, on the loop


async def test_awaiting_lets_the_loop_run() -> None:
    future: LoopFuture[str] = LoopFuture()
    asyncio.get_running_loop().call_soon(future.set, "from a callback")
    async with asyncio.timeout(DEADLINE):
        assert await future == "from a callback"
        assert await future == "from a callback"


async def test_a_thread_wakes_all_who_await() -> None:
    future: LoopFuture[int] = LoopFuture()
    readers = [asyncio.create_task(future.map(lambda value: value + 1).wait()) for _ in range(2)]  # type: ignore[attr-defined]  # it is ours
    readers += [asyncio.create_task(future.wait()) for _ in range(3)]
    blocked = asyncio.create_task(asyncio.to_thread(future.get, timeout=DEADLINE))
    await turns()
    await asyncio.to_thread(future.set, 1)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*readers)
        assert await blocked == 1


async def test_awaiting_raises_what_was_set() -> None:
    future: LoopFuture[int] = LoopFuture()
    future.set_error(KeyError("set"))
    with pytest.raises(KeyError, match="set"):
        await future
    await future.wait()  # whatever it is


async def test_awaiting_a_derived_future_awaits_those_it_reads() -> None:
    one: LoopFuture[Iterable[int]] = LoopFuture()
    two: LoopFuture[int] = LoopFuture()
    joined = one.filter(lambda each: each > 1).map(list).join(two)
    task = asyncio.ensure_future(_read(joined))
    await turns()
    one.set([1, 2])
    await turns()
    assert not task.done()
    two.set(3)
    async with asyncio.timeout(DEADLINE):
        assert await task == [[2], 3]


async def _read(future: pykka.Future[Any]) -> Any:
    return await future


async def test_a_hook_set_later_wakes_who_awaits() -> None:
    future: LoopFuture[int] = LoopFuture()
    task = asyncio.create_task(_read(future))
    await turns()
    future.set_get_hook(lambda _timeout: 4)
    async with asyncio.timeout(DEADLINE):
        assert await task == 4


async def test_get_on_the_loop_is_refused_unless_the_value_is_there() -> None:
    future: LoopFuture[int] = LoopFuture()
    for blocking in (future.get, future.map(str).get, future.join(future).get, lambda: pykka.get_all([future])):
        with pytest.raises(BlockingOnLoop):
            blocking()
    future.set(1)
    assert future.get() == 1
    assert future.map(str).get() == "1"


async def test_giving_up_leaves_nothing_in_the_future() -> None:
    """A future that lives as long as an actor (`exited`) is waited for with many a deadline."""
    future: LoopFuture[int] = LoopFuture()
    kept = asyncio.create_task(future.wait())
    await turns()
    waiters = []
    for _ in range(5):
        task = asyncio.create_task(future.wait())
        await turns()
        # What the task is parked on must go with it.
        waiters.append(weakref.ref(task))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
    with pytest.raises(pykka.Timeout):
        await asyncio.to_thread(future.get, timeout=0)
    gc.collect()
    assert [each() for each in waiters] == [None] * 5
    assert not future._waiters
    future.set(1)
    async with asyncio.timeout(DEADLINE):
        await kept


async def test_a_reader_whose_loop_has_ended_harms_nobody() -> None:
    future: LoopFuture[int] = LoopFuture()

    def on_a_loop_of_its_own() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(future.wait())
        loop.run_until_complete(asyncio.sleep(0))
        # Ends without the task's end: the future still knows of a waiter there.
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is destroyed pending, as this test wants
        abandoned.append(task)

    abandoned: list[Any] = []
    await asyncio.to_thread(on_a_loop_of_its_own)
    mine = asyncio.create_task(_read(future))
    await turns()
    future.set(9)
    async with asyncio.timeout(DEADLINE):
        assert await mine == 9
    abandoned.pop().get_coro().close()


async def test_two_loops_await_one_future() -> None:
    future: LoopFuture[int] = LoopFuture()
    parked = threading.Event()

    async def elsewhere() -> int:
        asyncio.get_running_loop().call_soon(parked.set)
        async with asyncio.timeout(DEADLINE):
            return await future

    there = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    here = asyncio.create_task(_read(future))
    assert await asyncio.to_thread(parked.wait, DEADLINE)
    future.set(2)
    async with asyncio.timeout(DEADLINE):
        assert tuple(await asyncio.gather(here, there)) == (2, 2)


async def test_exactly_one_of_begin_and_withdraw_wins() -> None:
    begun: LoopFuture[int] = LoopFuture()
    assert begun.begin()
    assert not begun.withdraw()
    withdrawn: LoopFuture[int] = LoopFuture()
    assert withdrawn.withdraw()
    assert not withdrawn.begin()


async def test_an_expired_reply_drops_the_late_answer_and_a_late_expiry_the_deadline() -> None:
    expired: LoopFuture[int] = LoopFuture()
    expired.expire(TimeoutError("deadline"))
    expired.set(1)
    expired.set_error(ValueError("late"))
    with pytest.raises(TimeoutError, match="deadline"):
        await expired
    answered: LoopFuture[int] = LoopFuture()
    answered.set(1)
    answered.expire(TimeoutError("deadline"))
    assert await answered == 1


async def test_expiry_and_an_answer_from_a_thread_race_without_harm() -> None:
    """A batch may be answered on its actor's thread while the deadline passes on the loop."""

    def answer(futures: list[LoopFuture[int]], start: threading.Barrier) -> None:
        start.wait(DEADLINE)
        for future in futures:
            future.set(1)

    futures: list[LoopFuture[int]] = [LoopFuture() for _ in range(2000)]
    start = threading.Barrier(2)
    thread = asyncio.create_task(asyncio.to_thread(answer, futures, start))
    await turns()
    start.wait(DEADLINE)
    for future in futures:
        future.expire(TimeoutError("deadline"))
    await thread
    outcomes = [1 if not future.expired else 0 for future in futures]
    for future, answered in zip(futures, outcomes, strict=True):
        if answered:
            assert future.get() == 1
        else:
            with pytest.raises(TimeoutError):
                future.get()
