"""What a commit costs: bare fsync, bare SQLite writing our rows, and the database actor in this process.

`sqlite`: sqlite3 on this thread, WAL, synchronous=FULL, the same tables and rows by plain statements, one transaction each.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import orjson

from actors.database import DatabaseActor
from actors.database._store import Store
from actors.runtime import Handle, Ref
from bench._harness import Row, Run, interleaved
from schemas.records import Change, CommitRequest, HistoryChange, ItemRow, NewService
from schemas.types import Checksum, ServiceName, Version

Times = Callable[[int], list[float]]
"""Do it so many times; seconds of each."""

WARM_UP = 200
ONE = ServiceName("stt-worker")
NOW = "2026-11-20T00:00:00.000000+00:00"
PAGE = 4096
PAGES = 256

UPDATE_SERVICE = """
    UPDATE service_configs
    SET config_json = ?, version = version + 1, updated_at = ?, updated_by = ?, checksum = ?, request_id = ?
    WHERE service = ? AND version = ?
"""
NEXT_REVISION = "UPDATE store_meta SET revision = revision + 1 WHERE id = 1"
INSERT_HISTORY = """
    INSERT INTO config_history
        (service, key, old_value_json, new_value_json, is_secret, version, revision, changed_at, changed_by,
         change_reason)
    VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?)
"""
UPDATE_ITEM = "UPDATE config_items SET value_json = ?, updated_at = ?, updated_by = ? WHERE service = ? AND key = ?"
INSERT_ACCESS = """
    INSERT INTO access_log
        (timestamp, user_id, action, origin, service, success, reason, request_id, address, revision, detail)
    VALUES (?, ?, 'write', 'rest', ?, 1, ?, ?, ?, ?, ?)
"""


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


@contextlib.contextmanager
def fsyncs(folder: Path) -> Iterator[Times]:
    """Write 4 KiB into a file that has its size already, and fdatasync."""
    descriptor = os.open(folder / "fsync", os.O_CREAT | os.O_RDWR, 0o600)
    os.pwrite(descriptor, bytes(PAGE * PAGES), 0)
    os.fsync(descriptor)

    def measure(count: int) -> list[float]:
        taken = []
        for number in range(count):
            page = os.urandom(PAGE)
            began = time.perf_counter()
            os.pwrite(descriptor, page, number % PAGES * PAGE)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
        return taken

    try:
        yield measure
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def sqlite_commits(folder: Path) -> Iterator[Times]:
    """Commit the rows of one change, with nothing around them."""
    store = Store(folder / "raw.db")
    connection = store.open()
    store.ensure([NewService(ONE, Checksum("0" * 64))])
    store.commit([request(ONE, 1)])  # the item's row is there
    run = connection.execute
    number = 1

    def commit() -> None:
        checksum, name, value = f"{number:064x}", f"request-{number}", orjson.dumps(number / 7).decode()
        document = orjson.dumps(config(number)).decode()
        run("BEGIN IMMEDIATE")
        run(UPDATE_SERVICE, (document, NOW, "owner", checksum, name, ONE, number))
        run(NEXT_REVISION)
        run(INSERT_HISTORY, (ONE, "vad_threshold", value, value, number, number, NOW, "owner", "bench"))
        run(UPDATE_ITEM, (value, NOW, "owner", ONE, "vad_threshold"))
        detail = '{"versions":{"stt-worker":2}}'
        run(INSERT_ACCESS, (NOW, "owner", ONE, "bench", name, "127.0.0.1", number, detail))
        run("COMMIT")

    def measure(count: int) -> list[float]:
        nonlocal number
        taken = []
        for _ in range(count):
            number += 1
            began = time.perf_counter()
            commit()
            taken.append(time.perf_counter() - began)
        return taken

    with closing(connection):
        yield measure


def rows(run: Run) -> Iterator[Row]:
    """A commit through the database actor, from the ask to the answer."""
    with sqlite_commits(run.folder) as sqlite, asyncio.Runner() as runner:

        async def start() -> tuple[Handle[DatabaseActor], Ref[DatabaseActor]]:
            ref = DatabaseActor.start(run.folder / "actor.db")
            await ref.started
            database: Handle[DatabaseActor] = Handle("database")
            database.attach(ref)
            await database.ask(DatabaseActor.ensure, [NewService(ONE, Checksum("0" * 64))])
            return database, ref

        database, ref = runner.run(start())
        number = 0

        async def asks(count: int) -> list[float]:
            nonlocal number
            taken = []
            for _ in range(count):
                number += 1
                made = request(ONE, number)
                began = time.perf_counter()
                await database.ask(DatabaseActor.commit, made)
                taken.append(time.perf_counter() - began)
            return taken

        count = run.count(500)
        runner.run(asks(WARM_UP))
        sqlite(WARM_UP)
        found = interleaved(
            run, {"ours": ("us", lambda: runner.run(asks(count))), "raw": ("us", lambda: sqlite(count))}
        )

        async def end() -> None:
            await ref.stop(block=False)

        runner.run(end())
    yield Row("store", "commit through the database actor", found["ours"], found["raw"], "raw sqlite3")
