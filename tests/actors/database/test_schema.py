"""Tables that others know, and the numbered migrations."""

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import orjson
import pytest

from actors.database import DatabaseActor
from actors.database._schema import Migration, grow_log, migrate, migrations
from actors.database._store import Store
from schemas.records import Committed, StoreUnavailable
from tests.actors.database.conftest import Starter
from tests.actors.database.support import STT, change, new, request, rows

# What existing readers bring along: index, table, columns.
READERS_INDEXES = (
    ("idx_service_configs_epoch", "service_configs", "config_epoch"),
    ("idx_config_items_service", "config_items", "service"),
    ("idx_config_items_complexity", "config_items", "complexity"),
    ("idx_config_items_key", "config_items", "key"),
    ("idx_config_items_search", "config_items", "service, key, description"),
    ("idx_config_history_service", "config_history", "service"),
    ("idx_config_history_time", "config_history", "changed_at"),
    ("idx_config_profiles_created", "config_profiles", "created_at"),
    ("idx_encrypted_secrets_key_id", "encrypted_secrets", "key_id"),
    ("idx_access_log_time", "access_log", "timestamp"),
    ("idx_access_log_user", "access_log", "user_id"),
)
TABLES = {table for _, table, _ in READERS_INDEXES} | {"schema_version"}


def readers_statements(prefix: str = "") -> Iterator[str]:
    for table in TABLES:
        yield f"CREATE TABLE IF NOT EXISTS {table} (anything TEXT)"
    for index, table, columns in READERS_INDEXES:
        yield f"CREATE INDEX IF NOT EXISTS {prefix}{index} ON {table} ({columns})"


@pytest.mark.parametrize("flags", ["", "?mode=ro"])
async def test_existing_readers_find_their_tables_and_indexes(start: Starter, flags: str) -> None:
    """Under the names that they use nothing has to be written: even a read-only connection gets through."""
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    with closing(sqlite3.connect(f"file:{start.path}{flags}", uri=True)) as reader:
        for statement in readers_statements():
            reader.execute(statement)
        ((service, config, version, epoch, updated_at, updated_by),) = reader.execute(
            "SELECT service, config_json, version, config_epoch, updated_at, updated_by FROM service_configs"
        ).fetchall()
    assert (service, orjson.loads(config), version, updated_by) == (STT, {"a": 1}, 2, "owner")
    assert isinstance(config, str)
    assert epoch == (await database.ask(DatabaseActor.load)).config_epoch
    assert datetime.fromisoformat(updated_at).utcoffset() is not None


async def test_readers_with_other_index_names_may_add_theirs(start: Starter) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    with closing(sqlite3.connect(start.path)) as reader:
        for statement in readers_statements(prefix="other_"):
            reader.execute(statement)
    committed = await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    assert committed.versions == {STT: 2}


@pytest.mark.parametrize("statement", ["DELETE FROM access_log", "UPDATE access_log SET user_id = 'nobody'"])
async def test_the_access_log_cannot_be_rewritten(start: Starter, statement: str) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    with (
        closing(sqlite3.connect(start.path)) as other,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        other.execute(statement)


def test_a_new_store_tells_its_migrations(path: Path) -> None:
    with closing(Store(path).open()):
        pass
    assert rows(path, "SELECT version, name FROM schema_version") == [
        (each.version, each.name) for each in migrations()
    ]


LATER = (
    *migrations(),
    Migration(
        2,
        "0002_note.sql",
        "ALTER TABLE service_configs ADD COLUMN note TEXT;\n"
        "CREATE TRIGGER noted AFTER UPDATE ON service_configs BEGIN\n"
        "    SELECT 1;\n"
        "    SELECT 2;\n"
        "END;\n",
    ),
)


def test_an_older_store_is_brought_up_to_date_with_its_content(path: Path) -> None:
    store = Store(path)
    with closing(store.open()) as connection:
        store.ensure(new(STT))
        (committed,) = store.commit([request(change(STT, 1, {"a": 1}))])
        assert isinstance(committed, Committed)
        before = store.load()
        assert migrate(connection, path, LATER) == 2
        assert migrate(connection, path, LATER) == 2
        assert store.load() == before
        assert connection.execute("SELECT note FROM service_configs").fetchall() == [(None,)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name = 'noted'").fetchone()
    # The release that does not know it leaves it alone.
    with pytest.raises(StoreUnavailable, match="schema version 2"):
        Store(path).open()


def test_a_migration_that_fails_leaves_nothing_of_itself(path: Path) -> None:
    broken = (*migrations(), Migration(2, "0002_broken.sql", "CREATE TABLE half (a);\nCREATE TABLE half (b);\n"))
    store = Store(path)
    with closing(store.open()) as connection:
        before = store.ensure(new(STT))
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection, path, broken)
        assert not connection.in_transaction
        assert store.load() == before
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone() is None
        assert connection.execute("SELECT max(version) FROM schema_version").fetchone() == (1,)


def test_the_log_is_grown_before_it_is_used(path: Path) -> None:
    """A file that keeps its size needs no new blocks in the middle of a commit."""
    store = Store(path, autocheckpoint=100)
    log = path.with_name(path.name + "-wal")
    with closing(store.open()):
        size = log.stat().st_size
        assert size >= 200 * 4096
        store.ensure(new(STT))
        for version in range(1, 100):
            (outcome,) = store.commit([request(change(STT, version, {"a": version}))])
            assert isinstance(outcome, Committed)
        assert log.stat().st_size == size


@pytest.mark.parametrize("commits", [0, 1, 60])
def test_a_grown_log_is_read_to_its_last_frame_and_no_further(path: Path, tmp_path: Path, commits: int) -> None:
    """As after a kill: the zeros behind the frames are nothing to SQLite, nor are they where there is no frame yet."""
    store = Store(path, autocheckpoint=100)
    with closing(store.open()) as connection:
        store.ensure(new(STT))
        # All that is there so far goes into the database, and the next frame to the start of the log.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        grow_log(connection, path, pages=200)
        for version in range(1, commits + 1):
            store.commit([request(change(STT, version, {"a": version}))])
        left = tmp_path / "left.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(path.with_name(path.name + suffix), left.with_name(left.name + suffix))
        expected = store.load()
    again = Store(left, autocheckpoint=100)
    with closing(again.open()):
        assert again.load() == expected


def test_a_full_disk_leaves_the_log_as_it_was(path: Path) -> None:
    store = Store(path, autocheckpoint=100)
    with closing(store.open()) as connection:
        log = path.with_name(path.name + "-wal")
        size = log.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, limits[1]))
            grow_log(connection, path, pages=500)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert log.stat().st_size == size
        store.ensure(new(STT))


def test_an_acknowledged_write_is_on_disk(path: Path) -> None:
    """FULL: an fsync of the log at each commit. NORMAL would lose the last commits in a power cut, and no kill shows it."""
    with closing(Store(path).open()) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        (pages,) = connection.execute("PRAGMA wal_autocheckpoint").fetchone()
        assert 250 <= pages <= 1000


def test_the_wheel_carries_the_migrations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("tars_supervisor-*.whl")
    with zipfile.ZipFile(wheel) as content:
        carried = {name.rpartition("/")[2] for name in content.namelist() if "actors/database/migrations/" in name}
    assert carried == {each.name for each in migrations()}
