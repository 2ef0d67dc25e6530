"""Measures the actor runtime: what an ask costs, what an actor costs, and that no reply is lost.

    .venv/bin/python -m bench.runtime [--asks 1000000] [--seed 1]

Bars: an ask takes at most 3 times a bare `asyncio.Queue` and future in the same run; 1000 actors take at most 10 KiB each; no
reply is lost in 10^6 asks that race stops and crashes. Exits with 1 where one is missed.
"""

import argparse
import asyncio
import gc
import logging
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psutil
from pykka.messages import ProxyCall

from actors.runtime import Actor, Handle, LoopFuture, OutcomeUnknown, Ref, Rejected

ASK_BAR = 3.0
ACTOR_BAR = 10.0  # KiB

BLOCKS = 30
ASKS_PER_BLOCK = 1000
ACTORS = 1000


class Echo(Actor):
    async def echo(self, value: int) -> int:
        return value


# -- what an ask costs


async def ask_costs() -> dict[str, float]:
    """Median microseconds of a round trip by the way it goes, measured in interleaved blocks."""
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
    ways: dict[str, Callable[[int], Awaitable[int]]] = {"bare": bare, "ref.ask": by_ref, "handle.ask": by_handle}
    times: dict[str, list[int]] = {way: [] for way in ways}
    for block in range(BLOCKS + 2):
        for way, ask in ways.items():
            taken = await _block(ask)
            if block >= 2:  # warm by then
                times[way] += taken
    server.cancel()
    await ref.stop(block=False)
    return {way: statistics.median(each) / 1000 for way, each in times.items()}


async def _block(ask: Callable[[int], Awaitable[int]]) -> list[int]:
    clock = time.perf_counter_ns
    taken = []
    for value in range(ASKS_PER_BLOCK):
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


# -- the report


async def measure(asks: int, seed: int) -> bool:
    """Print the figures; true if every bar is held."""
    held = True

    def line(what: str, figure: str, ok: bool | None = None) -> None:
        nonlocal held
        held = held and ok is not False
        print(f"{what:<38}{figure:>22}  {'' if ok is None else 'ok' if ok else 'MISSED'}")

    costs = await ask_costs()
    line("bare queue and future, p50", f"{costs['bare']:.2f} us")
    for way in ("ref.ask", "handle.ask"):
        ratio = costs[way] / costs["bare"]
        line(f"{way}, p50", f"{costs[way]:.2f} us = {ratio:.2f}x", ratio <= ASK_BAR)
    for way, size in (await actor_costs()).items():
        line(f"an actor of {ACTORS}, {way}", f"{size:.2f} KiB", size <= ACTOR_BAR)
    begin = time.perf_counter()
    tally = await race(asks, seed=seed)
    seconds = time.perf_counter() - begin
    line(f"lost replies of {tally.asked} racing asks", f"{tally.lost}", tally.lost == 0)
    line("  answered, rejected, unknown", f"{tally.replies}, {tally.rejected}, {tally.unknown}")
    line("  in", f"{seconds:.1f} s")
    return held


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.runtime", description="Measure the actor runtime against its bars.")
    parser.add_argument("--asks", type=int, default=100_000, help="how many asks race stops and crashes")
    parser.add_argument("--seed", type=int, default=1, help="of the race")
    given: Any = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # each crash is logged
    return 0 if asyncio.run(measure(given.asks, given.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
