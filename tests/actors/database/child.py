"""A process with a database actor of its own, for tests that kill it or take its disk away.

`python -m tests.actors.database.child <path> commits`: commits without end and prints each acknowledgement.
`python -m tests.actors.database.child <path> full`: meets a limit of file size, and goes on.
"""

import asyncio
import resource
import sys
from pathlib import Path

from actors.database import DatabaseActor, StoreUnavailable
from actors.runtime import Handle
from schemas.types import ServiceName
from tests.actors.database.support import STT, Database, change, new, request, stored

WRITERS = tuple(ServiceName(f"service-{number}") for number in range(6))


async def commit_for_ever(database: Database) -> None:
    state = await database.ask(DatabaseActor.ensure, new(*WRITERS))
    print("ready", state.config_epoch, flush=True)

    async def write(service: ServiceName) -> None:
        version = state.services[service].version
        while True:
            committed = await database.ask(
                DatabaseActor.commit, request(change(service, version, {"from": version}), request_id=f"r-{version}")
            )
            version = committed.versions[service]
            print("committed", service, version, committed.revision, flush=True)
            await database.ask(DatabaseActor.acknowledge, [(service, version)])

    async with asyncio.TaskGroup() as writers:
        for service in WRITERS:
            writers.create_task(write(service))


async def meet_the_limit(database: Database) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**20, unlimited[1]))
    huge = {"a": "x" * 16 * 2**20}
    for _ in range(2):
        try:
            await database.ask(DatabaseActor.commit, request(change(STT, 1, huge)))
        except StoreUnavailable as error:
            print("refused", error.database_status, (await stored(database, STT)).version, flush=True)
    committed = await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    print("small", committed.versions[STT], flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    committed = await database.ask(DatabaseActor.commit, request(change(STT, 2, huge)))
    print("huge", committed.versions[STT], await database.ask(DatabaseActor.status), flush=True)


async def main() -> None:
    path, what = sys.argv[1:]
    # A small log, so that kills also hit checkpoints.
    ref = DatabaseActor.start(Path(path), autocheckpoint=40)
    await ref.started
    database: Database = Handle("database")
    database.attach(ref)
    try:
        await {"commits": commit_for_ever, "full": meet_the_limit}[what](database)
    finally:
        await ref.stop(block=False)


if __name__ == "__main__":
    asyncio.run(main())
