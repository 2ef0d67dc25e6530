"""What goes wrong with files, and that everything works again afterwards."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from actors.database import DatabaseActor, StoreUnavailable
from actors.database._errors import unavailable
from actors.database._store import Store
from schemas.records import Committed, DatabaseStatus
from tests.actors.database.conftest import Starter
from tests.actors.database.support import STT, TTS, change, new, request, stored

DEADLINE = 30
SIDECARS = ("-wal", "-shm")


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


async def refused(start: Starter) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await start()
    assert str(start.path) in str(caught.value)
    return caught.value


# -- files


@pytest.fixture
def no_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


async def test_files_are_private_whatever_the_umask(start: Starter, no_umask: object) -> None:
    await start()
    assert [mode(beside(start.path, suffix)) for suffix in ("", *SIDECARS)] == [0o600] * 3


async def test_wider_modes_are_narrowed(start: Starter) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    # A reader of its own keeps the sidecars there after the stop.
    with closing(sqlite3.connect(start.path)) as reader:
        reader.execute("SELECT * FROM service_configs").fetchall()
        await start.stop()
        everything = [beside(start.path, suffix) for suffix in ("", *SIDECARS)]
        for each in everything:
            each.chmod(0o666)
        await start()
        assert [mode(each) for each in everything] == [0o600] * 3


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
async def test_a_link_is_refused(start: Starter, tmp_path: Path, suffix: str) -> None:
    await start()
    await start.stop()
    name = beside(start.path, suffix)
    elsewhere = tmp_path / "elsewhere"
    if suffix:
        elsewhere.write_bytes(b"planted")
    else:
        name.rename(elsewhere)
    name.symlink_to(elsewhere)
    assert "not a regular file" in str(await refused(start))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_another_users_file_is_refused(start: Starter) -> None:
    await start()
    await start.stop()
    os.chown(start.path, 12345, -1)
    assert "belongs to user 12345" in str(await refused(start))


async def test_what_lies_beside_a_missing_database_is_kept_aside(start: Starter) -> None:
    """A log without its database would be deleted by SQLite, or replayed into the next one."""
    log = beside(start.path, "-wal")
    log.write_bytes(b"the only copy")
    database = await start()
    assert beside(start.path, "-wal.orphan").read_bytes() == b"the only copy"
    assert (await database.ask(DatabaseActor.load)).services == {}


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    starter = Starter(tmp_path / "nowhere" / "config.db")
    error = await refused(starter)
    assert error.database_status == "locked"
    assert "No such file or directory" in str(error)


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_file_taken_away_in_use_acknowledges_nothing(start: Starter, suffix: str) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    name = beside(start.path, suffix)
    name.rename(beside(start.path, "-away"))
    name.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    beside(start.path, "-away").rename(name)
    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))


# -- content


def garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database\n" * 300)


def broken_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'service_configs'").fetchone()
    start = (root - 1) * 4096
    content[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, 4096 * 3)


@pytest.mark.parametrize("damage", [garbage, broken_pages, cut_short])
async def test_a_damaged_file_is_told(start: Starter, damage: Callable[[Path], None]) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    await start.stop()
    damage(start.path)
    error = await refused(start)
    assert error.database_status == "corrupted"
    assert "restore a backup" in str(error)


@pytest.mark.parametrize("content", ["{", "[]", "7"])
async def test_a_row_that_is_not_an_object_is_told(start: Starter, content: str) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    with closing(sqlite3.connect(start.path, isolation_level=None)) as other:
        other.execute("UPDATE service_configs SET config_json = ?", (content,))
    with pytest.raises(StoreUnavailable, match="stt-worker") as caught:
        await database.ask(DatabaseActor.load)
    assert caught.value.database_status == "corrupted"


async def test_another_programs_database_is_left_alone(start: Starter) -> None:
    with closing(sqlite3.connect(start.path)) as other:
        other.execute("CREATE TABLE service_configs (service TEXT PRIMARY KEY, value TEXT)")
    error = await refused(start)
    assert error.database_status == "schema-mismatch"
    assert "another program" in str(error)


async def test_a_newer_schema_is_refused_and_left_alone(start: Starter) -> None:
    await start()
    await start.stop()
    with closing(sqlite3.connect(start.path, isolation_level=None)) as newer:
        newer.execute("INSERT INTO schema_version VALUES (2, '0002_later.sql', '2027-01-01T00:00:00.000000+00:00')")
    before = start.path.read_bytes()
    error = await refused(start)
    assert error.database_status == "schema-mismatch"
    assert "schema version 2" in str(error)
    assert "up to 1" in str(error)
    assert start.path.read_bytes() == before


# -- while it runs


async def test_a_lock_held_by_another_is_told_and_passes(start: Starter) -> None:
    told: list[tuple[DatabaseStatus, bool]] = []
    database = await start(busy_timeout=0.02, on_status=lambda status, reason: told.append((status, reason is None)))
    await database.ask(DatabaseActor.ensure, new(STT))
    with closing(sqlite3.connect(start.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(
            *(database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}))) for _ in range(3)),
            return_exceptions=True,
        )
        assert [type(each) for each in outcomes] == [StoreUnavailable] * 3
        assert {each.database_status for each in outcomes if isinstance(each, StoreUnavailable)} == {"locked"}
        assert await database.ask(DatabaseActor.status) == "locked"
        # Reading goes on, and does not hide that writing does not.
        assert (await stored(database, STT)).version == 1
        assert await database.ask(DatabaseActor.status) == "locked"
        other.execute("ROLLBACK")
    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    assert await database.ask(DatabaseActor.status) == "healthy"
    # The first is that of the start: whoever listens may know an incarnation before.
    assert told == [("healthy", True), ("locked", False), ("healthy", True)]


async def test_another_writer_is_waited_for(start: Starter) -> None:
    database = await start(busy_timeout=10.0)
    await database.ask(DatabaseActor.ensure, new(STT))
    with closing(sqlite3.connect(start.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = asyncio.create_task(database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}))))
        done, _ = await asyncio.wait((asked,), timeout=0.05)
        assert not done
        other.execute("COMMIT")
    async with asyncio.timeout(DEADLINE):
        assert (await asked).versions == {STT: 2}


def test_a_full_disk_refuses_the_one_it_cannot_hold_and_recovers(path: Path) -> None:
    """SQLite's own limit stands for the disk's: what fits goes through, what does not leaves no trace."""
    store = Store(path, autocheckpoint=50)
    with closing(store.open()) as connection:
        store.ensure(new(STT, TTS))
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        huge = request(change(STT, 1, {"a": "x" * 4096 * (pages + 10)}))
        small = request(change(TTS, 1, {"a": 1}))

        alone = store.commit([huge])
        assert isinstance(alone[0], StoreUnavailable)
        assert alone[0].database_status == "locked"
        assert "disk is full" in str(alone[0])

        first, second = store.commit([huge, small])
        assert isinstance(first, StoreUnavailable)
        assert isinstance(second, Committed)
        state = store.load()
        assert {name: each.version for name, each in state.services.items()} == {STT: 1, TTS: 2}

        connection.execute("PRAGMA max_page_count = 1000000")
        (again,) = store.commit([huge])
        assert isinstance(again, Committed)


@pytest.mark.parametrize("point", ["first", "last"])
def test_a_commit_that_fails_as_a_whole_fails_everybody_and_recovers(path: Path, point: str) -> None:
    """The group's last step goes wrong: nobody is told otherwise, and the connection is out of the transaction."""
    store = Store(path)
    with closing(store.open()) as connection:
        before = store.ensure(new(STT, TTS))
        # A deferred constraint is looked at by COMMIT itself.
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        condition = {"first": "NEW.service = 'stt-worker'", "last": "NEW.service = 'tts-worker'"}[point]
        connection.execute(
            f"CREATE TRIGGER breaks AFTER UPDATE ON service_configs WHEN {condition} BEGIN INSERT INTO child VALUES (7); END"
        )
        outcomes = store.commit([request(change(STT, 1, {"a": 1})), request(change(TTS, 1, {"a": 1}))])
        assert [type(each) for each in outcomes] == [StoreUnavailable] * 2
        assert not connection.in_transaction
        assert store.load() == before
        connection.execute("DROP TRIGGER breaks")
        outcomes = store.commit([request(change(STT, 1, {"a": 1})), request(change(TTS, 1, {"a": 1}))])
        assert [type(each) for each in outcomes] == [Committed] * 2


async def test_a_failing_start_ends_with_the_reason_and_no_thread(start: Starter) -> None:
    garbage(start.path)
    ref = DatabaseActor.start(start.path)
    with pytest.raises(StoreUnavailable):
        await ref.started
    assert isinstance((await ref.exited).error, StoreUnavailable)


def test_a_full_disk_at_the_start_is_called_so(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert "the disk is full; free some space" in str(unavailable(error, tmp_path / "config.db"))
