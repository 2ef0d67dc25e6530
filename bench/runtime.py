"""The actor runtime: what an ask costs, what an actor costs, and that no reply is lost in asks that race stops and crashes."""

import asyncio
import contextlib
import gc
import logging
import random
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import psutil
from pykka.messages import ProxyCall

from actors.runtime import Actor, Handle, LoopFuture, OutcomeUnknown, Ref, Rejected
from bench._harness import Bar, Block, Row, Run, Series, interleaved

ASKS_PER_BLOCK = 3000
ACTORS = 1000
RACING = 100_000


class Echo(Actor):
    async def echo(self, value: int) -> int:
        return value


# -- what an ask costs


@contextlib.asynccontextmanager
async def asking() -> AsyncIterator[dict[str, Callable[[int], Awaitable[int]]]]:
    """The ways to ask: a bare queue and future, a ref, a handle."""
    ref = Echo.start()
    handle: Handle[Echo] = Handle("echo")
    handle.attach(ref)
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[asyncio.Future[int], int]] = asyncio.Queue()

    async def serve() -> None:
        while True:
            future, value = await queue.get()
            future.set_result(value)

    async def bare(value: int) -> int:
        future: asyncio.Future[int] = loop.create_future()
        await queue.put((future, value))
        return await future

    async def by_ref(value: int) -> int:
        reply: int = await ref.ask(ProxyCall(("echo",), (value,), {}), block=False)
        return reply

    async def by_handle(value: int) -> int:
        return await handle.ask(Echo.echo, value)

    server = asyncio.create_task(serve())
    yield {"bare": bare, "ref": by_ref, "handle": by_handle}
    server.cancel()
    await ref.stop(block=False)


async def _block(ask: Callable[[int], Awaitable[int]], count: int) -> list[float]:
    clock = time.perf_counter
    taken = []
    for value in range(count):
        begin = clock()
        await ask(value)
        taken.append(clock() - begin)
    return taken


# -- what an actor costs


async def actor_costs() -> dict[str, float]:
    """KiB per actor, of 1000 that are started and idle: as Python counts, and as the kernel does."""
    process = psutil.Process()  # type: ignore[no-untyped-call]  # psutil brings no types
    await _stopped(await _started(10))  # what only the first ones cost
    gc.collect()
    before = process.memory_info().rss
    refs = await _started()
    rss = process.memory_info().rss - before
    await _stopped(refs)
    del refs
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    refs = await _started()
    traced = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await _stopped(refs)
    return {"tracemalloc": traced / ACTORS / 1024, "RSS": rss / ACTORS / 1024}


async def _started(count: int = ACTORS) -> list[Ref[Echo]]:
    refs = [Echo.start() for _ in range(count)]
    for ref in refs:
        await ref.started
        await ref.ask(ProxyCall(("echo",), (1,), {}), block=False)
    return refs


async def _stopped(refs: list[Ref[Echo]]) -> None:
    for ref in refs:
        await ref.stop(block=False)


# -- lost replies


@dataclass
class Tally:
    """What became of the asks of a race."""

    asked: int = 0
    replies: int = 0
    rejected: int = 0
    unknown: int = 0
    lost: int = 0


class Racer(Actor):
    """Answers after a few turns of the loop, until it is stopped, told to fail, or cancelled."""

    async def work(self, value: int, steps: int) -> int:
        for _ in range(steps):
            await asyncio.sleep(0)
        return value

    async def crash(self, steps: int) -> None:
        await self.work(0, steps)
        raise ValueError("told to")


async def race(asks: int, *, seed: int) -> Tally:
    """Ask actors that are ended at random moments in every way; a reply that is not there when the actor is gone is lost."""
    chance = random.Random(seed)
    tally = Tally()
    while tally.asked < asks:
        ref = Racer.start()
        replies: list[tuple[int, LoopFuture[int]]] = []
        end_at = chance.randrange(30)
        for turn in range(end_at + 5):
            if turn == end_at:
                _end(ref, chance)
            for _ in range(min(chance.randrange(5), asks - tally.asked)):
                message = ProxyCall(("work",), (tally.asked, chance.choice((0, 0, 1, 3))), {})
                replies.append((tally.asked, ref.ask(message, block=False)))
                tally.asked += 1
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await ref.exited.wait()
        for value, reply in replies:
            _count(value, reply, tally)
    return tally


def _end(ref: Ref[Racer], chance: random.Random) -> None:
    match chance.randrange(3):
        case 0:
            ref.stop(block=False)
        case 1:
            ref.tell(ProxyCall(("crash",), (chance.randrange(3),), {}))
        case _:
            ref.cancel()


def _count(value: int, reply: LoopFuture[int], tally: Tally) -> None:
    if not reply.settled:
        tally.lost += 1
        return
    try:
        if reply.get() == value:
            tally.replies += 1
        else:
            tally.lost += 1
    except Rejected:
        tally.rejected += 1
    except OutcomeUnknown:
        tally.unknown += 1


# -- the rows


def rows(run: Run) -> Iterator[Row]:
    count = run.count(ASKS_PER_BLOCK)
    logging.disable(logging.CRITICAL)  # each crash is logged
    with asyncio.Runner() as runner:
        context = asking()
        ways = runner.run(context.__aenter__())

        def side(ask: Callable[[int], Awaitable[int]]) -> Block:
            return lambda: runner.run(_block(ask, count))

        sides = {name: ("us", side(ask)) for name, ask in ways.items()}
        for _, measure in sides.values():
            measure()
        found = interleaved(run, sides)
        runner.run(context.__aexit__(None, None, None))
        sizes = runner.run(actor_costs())
        tally = runner.run(race(run.count(RACING), seed=1))
    logging.disable(logging.NOTSET)
    peer = "queue and future"
    yield Row("runtime", "an ask through a handle p50", found["handle"], found["bare"], peer, bar=Bar(3))
    yield Row("runtime", "an ask through a ref p50", found["ref"], found["bare"], peer, bar=Bar(3))
    for way, size in sizes.items():
        yield Row("runtime", f"memory of an actor ({way})", Series("KiB", [size]), bar=Bar(10))
    yield Row("runtime", f"replies lost of {tally.asked} racing asks", Series("", [tally.lost]), bar=Bar(0))
