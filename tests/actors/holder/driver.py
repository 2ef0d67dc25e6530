"""A small supervisor that tests kill: `python -m tests.actors.holder.driver FOLDER SEED CHURN`.

It has four services: `still` and `daemon` are left alone, `churn` and `lone` are stopped, killed and started again without a
pause where CHURN is 1. All but `lone` have a child in a session of its own; `lone` has a standing order. Each worker holds a
lock that its children inherit, and says so where another has it: that is how doubling shows. What is told on standard output
is for the test.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from actors.holder import Held, Holder, Spawn, attach

WORKER = """
exec 9>{folder}/{service}.lock
flock -n 9 || echo {service} >> {folder}/doubled
[ {service} = lone ] || (setsid sleep 600 >/dev/null 2>&1 &)
exec sleep 600
"""
SERVICES = ("still", "churn", "daemon", "lone")
PROCESSES = {**dict.fromkeys(SERVICES, 2), "lone": 1}


def spawn(folder: Path, service: str) -> Spawn:
    environment = {"PATH": "/usr/bin:/bin", "TARS_TEST_PLACE": str(folder)}
    argv = ("/bin/sh", "-c", WORKER.format(folder=folder, service=service))
    return Spawn(service=service, argv=argv, cwd=Path("/"), environment=environment)


async def present(holder: Holder, folder: Path, service: str) -> Held:
    """Give the service's worker: the one that is there, or a new one once nothing of the last is left."""
    for held in list(holder.workers.values()):
        if held.service == service:
            if held.running:
                return held
            end = await asyncio.shield(held.ended)
            following = await held.successor() if end.successor else None
            held.forget()
            if following is not None:
                return following
    return await holder.spawn(spawn(folder, service))


async def keep(holder: Holder, folder: Path, service: str) -> None:
    while True:
        held = await present(holder, folder, service)
        await asyncio.shield(held.ended)


async def churn(holder: Holder, folder: Path, service: str, dice: random.Random) -> None:
    while True:
        held = await present(holder, folder, service)
        if service == "lone":
            holder.follow(held, spawn(folder, service))
            # The holder needs a moment until it has a spare: not every round is one of its kind.
            await asyncio.sleep(dice.uniform(0, 0.06))
        if dice.random() < 0.5:
            os.kill(held.pid, signal.SIGKILL)
            await asyncio.shield(held.ended)
        else:
            await held.stop(dice.choice((0.0, 1.0)))


async def serve(folder: Path, dice: random.Random, *, churning: bool) -> None:
    while True:
        holder = await attach(folder)
        for service in SERVICES:
            await present(holder, folder, service)
        print("attached", holder.pid, flush=True)
        work = [
            asyncio.create_task(
                churn(holder, folder, service, dice)
                if churning and service in {"churn", "lone"}
                else keep(holder, folder, service)
            )
            for service in SERVICES
        ]
        await asyncio.wait([holder.lost])
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        holder.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), random.Random(int(sys.argv[2])), churning=sys.argv[3] == "1"))
