"""No lost replies: an ask that races an end gets a value, `Rejected` or `OutcomeUnknown`, whatever the interleaving."""

import asyncio
import random
import threading
from contextvars import Context
from typing import Any

import pykka
import pytest

from actors.runtime import Actor, ActorDown, LoopFuture, OutcomeUnknown, Ref, Rejected
from actors.runtime._inbox import Inbox
from bench.runtime import race
from tests.actors.runtime.support import DEADLINE, call, stopped, turns


class Racer(Actor):
    async def echo(self, value: int, steps: int = 0) -> int:
        for _ in range(steps):
            await asyncio.sleep(0)
        return value

    def fail(self) -> None:
        raise ValueError("told")


def _end(ref: Ref[Any], way: str) -> None:
    match way:
        case "stop":
            ref.stop(block=False)
        case "fail":
            ref.tell(call("fail"))
        case "cancel":
            ref.cancel()


async def _answer(reply: LoopFuture[Any]) -> Any:
    return await reply


@pytest.mark.parametrize("way", ["stop", "fail", "cancel"])
async def test_every_interleaving_of_asks_and_an_end_answers_the_asks(way: str, caplog: Any) -> None:
    """The end comes `before` turns after the first asks, the second asks `after` turns after it."""
    caplog.set_level("CRITICAL")
    for before in range(6):
        for after in range(6):
            ref = Racer.start()
            first = [ref.ask(call("echo", number, 2), block=False) for number in range(2)]
            await turns(before)
            _end(ref, way)
            await turns(after)
            second = [ref.ask(call("echo", number, 2), block=False) for number in range(2)]
            async with asyncio.timeout(DEADLINE):
                outcomes = await asyncio.gather(*map(_answer, first + second), return_exceptions=True)
            assert all(isinstance(each, int | Rejected | OutcomeUnknown) for each in outcomes), (before, after)
            await ref.exited
            # Whoever was refused was not handled; whoever has a value was.
            if way == "stop":
                assert outcomes[:2] == [0, 1]


async def test_asks_from_threads_race_an_end() -> None:
    """`put` and `close` from two threads: the lock makes one of them first."""
    for way in ("stop", "fail", "cancel") * 5:
        ref = Racer.start()
        await ref.started
        barrier = threading.Barrier(3)

        def ask(ref: Ref[Racer] = ref, barrier: threading.Barrier = barrier) -> list[Any]:
            barrier.wait(DEADLINE)
            outcomes: list[Any] = []
            for number in range(200):
                try:
                    outcomes.append(ref.ask(call("echo", number), timeout=DEADLINE))
                except (Rejected, OutcomeUnknown) as error:
                    outcomes.append(error)
            return outcomes

        threads = [asyncio.create_task(asyncio.to_thread(ask)) for _ in range(2)]
        await asyncio.to_thread(barrier.wait, DEADLINE)
        await turns(random.randrange(20))
        _end(ref, way)
        async with asyncio.timeout(DEADLINE):
            for outcomes in await asyncio.gather(*threads):
                assert len(outcomes) == 200
                refused = [isinstance(each, Exception) for each in outcomes]
                assert refused == sorted(refused), "an answer came after a refusal"


async def test_a_message_put_between_the_last_look_and_the_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interleaving in which stock loses the reply, forced: see the next test."""
    ref = Racer.start()
    await ref.started
    late: list[LoopFuture[int]] = []
    close = Inbox.close

    def close_with_a_late_ask(inbox: Inbox) -> Any:
        left = close(inbox)
        # From outside: in the actor's own context it would be a cycle.
        late.append(Context().run(ref.ask, call("echo", 1), block=False))
        return left

    monkeypatch.setattr(Inbox, "close", close_with_a_late_ask)
    assert await ref.stop(block=False) is True
    with pytest.raises(ActorDown):
        await late[0]


async def test_stock_loses_that_reply() -> None:
    """Why the inbox can be closed. If this fails, Pykka has mended it."""

    class Stock(pykka.ThreadingActor):
        pass

    def lose() -> None:
        ref = Stock.start()
        inbox = ref.actor_inbox
        # Past `is_alive()`, and then the actor ends before the put.
        alive, may_put, put = threading.Event(), threading.Event(), inbox.put

        def late_put(envelope: Any) -> None:
            if envelope.message == "late":
                alive.set()
                may_put.wait(DEADLINE)
            put(envelope)

        inbox.put = late_put  # type: ignore[method-assign]
        replies: list[Any] = []
        asker = threading.Thread(target=lambda: replies.append(ref.ask("late", block=False)))
        asker.start()
        alive.wait(DEADLINE)
        ref.stop(timeout=DEADLINE)
        # The reply to stop comes before the thread's last look at its inbox.
        for thread in threading.enumerate():
            if thread.name.startswith("Stock-"):
                thread.join(DEADLINE)
        may_put.set()
        asker.join(DEADLINE)
        with pytest.raises(pykka.Timeout):
            replies[0].get(timeout=0.01)

    await asyncio.to_thread(lose)


async def test_20_000_asks_racing_stops_and_crashes(caplog: Any) -> None:
    caplog.set_level("CRITICAL")
    async with asyncio.timeout(60):
        tally = await race(20_000, seed=20_261_120)
    assert tally.lost == 0
    assert tally.asked == 20_000
    assert tally.replies + tally.rejected + tally.unknown == 20_000
    # It was a race: each outcome was seen.
    assert min(tally.replies, tally.rejected, tally.unknown) > 50


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_million_asks_racing_stops_and_crashes(caplog: Any) -> None:
    caplog.set_level("CRITICAL")
    tally = await race(1_000_000, seed=1)
    assert (tally.asked, tally.lost) == (1_000_000, 0)


async def test_the_last_of_the_race_is_told() -> None:
    ref = Racer.start()
    await stopped(ref)
    with pytest.raises(ActorDown):
        await ref.ask(call("echo", 1), block=False)
