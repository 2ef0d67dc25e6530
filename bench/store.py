"""What a commit costs: the database actor against bare SQLite writing the same rows, in turns in one run.

    .venv/bin/python -m bench.store [--rounds 2000] [--folder DIR]

`raw`: sqlite3 on this thread, WAL, synchronous=FULL, the same tables, statements and rows, one transaction each.
`actor`: the same rows through `DatabaseActor`, asked one after the other, from the ask to the answer.
`16 writers`: as many askers at once, each on a service of its own; `raw` is then its sequential rate.
Name a folder on the storage that is meant: a commit is mostly one fsync.
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import orjson

from actors.database import DatabaseActor
from actors.database import statements as sql
from actors.database._store import Store
from actors.runtime import Handle
from schemas.records import Change, CommitRequest, HistoryChange, ItemRow, NewService
from schemas.types import Checksum, ServiceName, Version

WARM_UP = 200
WRITERS = 16
ONE = ServiceName("stt-worker")
MANY = tuple(ServiceName(f"service-{number}") for number in range(WRITERS))
NOW = "2026-11-20T00:00:00.000000+00:00"


def config(number: int) -> dict[str, object]:
    """Ten settings, of which one has another value each time: what is equal would never be written."""
    return {"vad_threshold": number / 7, **{f"setting_{each}": each for each in range(9)}}


def request(service: ServiceName, number: int) -> CommitRequest:
    item = ItemRow(
        "vad_threshold", number / 7, "float", "simple", "How loud speech is", "Higher: less sensitive", (0.1,)
    )
    change = Change(
        service=service,
        config=config(number),
        expected_version=Version(number),
        checksum=Checksum(f"{number:064x}"),
        history=(HistoryChange("vad_threshold", (number - 1) / 7, number / 7),),
        items=(item,),
    )
    return CommitRequest((change,), "owner", "rest", f"request-{number}", "bench", "127.0.0.1")


class Raw:
    """The floor: the same rows, with nothing around them."""

    def __init__(self, path: Path) -> None:
        store = Store(path)
        self.connection = store.open()
        store.ensure([NewService(ONE, Checksum("0" * 64))])
        store.commit([request(ONE, 1)])  # the item's row is there

    def commit(self, number: int) -> None:
        run = self.connection.execute
        checksum, name, value = f"{number:064x}", f"request-{number}", orjson.dumps(number / 7).decode()
        document = orjson.dumps(config(number)).decode()
        run(sql.BEGIN)
        run(sql.UPDATE_SERVICE, (document, NOW, "owner", checksum, name, ONE, number, None))
        run(sql.NEXT_REVISION)
        run(sql.INSERT_HISTORY, (ONE, "vad_threshold", value, value, 0, number, number, NOW, "owner", "bench"))
        words = ("float", "simple", "How loud speech is", "Higher: less sensitive", "[0.1]", False)
        run(sql.UPDATE_ITEM, (value, NOW, "owner", ONE, "vad_threshold", *words))
        detail = '{"versions":{"stt-worker":2}}'
        address = "127.0.0.1"
        run(
            sql.INSERT_ACCESS,
            (NOW, "owner", "write", "rest", ONE, None, True, "bench", name, address, number, detail),
        )
        run(sql.COMMIT)


def told(name: str, seconds: Sequence[float]) -> float:
    ordered = sorted(seconds)
    middle = statistics.median(ordered)
    print(f"{name:<12} p50 {middle * 1e6:7.0f} us   p95 {ordered[int(len(ordered) * 0.95)] * 1e6:7.0f} us")
    return middle


async def sequential(raw: Raw, database: Handle[DatabaseActor], rounds: int) -> None:
    bare, acted = [], []
    for number in range(2, rounds + WARM_UP):
        before = time.perf_counter()
        raw.commit(number)
        between = time.perf_counter()
        await database.ask(DatabaseActor.commit, request(ONE, number))
        bare.append(between - before)
        acted.append(time.perf_counter() - between)
    floor, middle = told("raw", bare[WARM_UP:]), told("actor", acted[WARM_UP:])
    print(f"{'ratio':<12} {middle / floor:.2f}   raw is {1 / statistics.fmean(bare[WARM_UP:]):.0f} commits/s")


async def grouped(database: Handle[DatabaseActor], rounds: int) -> None:
    async def write(service: ServiceName) -> None:
        for number in range(1, rounds + 1):
            await database.ask(DatabaseActor.commit, request(service, number))

    before = time.perf_counter()
    async with asyncio.TaskGroup() as writers:
        for service in MANY:
            writers.create_task(write(service))
    seconds = time.perf_counter() - before
    print(f"{WRITERS} writers   {rounds * WRITERS / seconds:7.0f} commits/s")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--folder", help="where the stores are made; default: the folder for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        raw = Raw(Path(folder) / "raw.db")
        ref = DatabaseActor.start(Path(folder) / "actor.db")
        await ref.started
        database: Handle[DatabaseActor] = Handle("database")
        database.attach(ref)
        with closing(raw.connection):
            everybody = [NewService(each, Checksum("0" * 64)) for each in (ONE, *MANY)]
            await database.ask(DatabaseActor.ensure, everybody)
            await database.ask(DatabaseActor.commit, request(ONE, 1))
            print(f"SQLite {sqlite3.sqlite_version}, {folder}")
            await sequential(raw, database, options.rounds)
            await grouped(database, max(options.rounds // 4, 1))
        await ref.stop(block=False)


if __name__ == "__main__":
    asyncio.run(main())
