"""Opening: the connection's settings, the numbered migrations, the log grown ahead of use."""

import os
import re
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from actors.database import statements as sql
from schemas.records import StoreUnavailable

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def timestamp(moment: datetime | None = None) -> str:
    """UTC (now, if no moment is given), ISO 8601, always with microseconds and offset: it sorts as text."""
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


class Migration(Struct, frozen=True):
    """One numbered file of `migrations/`."""

    version: int
    name: str
    text: str

    def statements(self) -> Iterator[str]:
        """One after the other, for `executescript` would commit first."""
        statement = ""
        for line in self.text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""


def migrations() -> tuple[Migration, ...]:
    """Give this release's migrations, numbered from 1 without a gap."""
    folder = Path(__file__).with_name("migrations")
    found = [
        Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    found.sort(key=lambda each: each.version)
    assert [each.version for each in found] == list(range(1, len(found) + 1)), "a migration is missing"
    return tuple(found)


def configure(connection: sqlite3.Connection, path: Path, *, autocheckpoint: int) -> None:
    """Write-ahead log, an fsync at each commit, a checkpoint every `autocheckpoint` pages.

    Raises:
        StoreUnavailable: the file system offers no shared memory, which the log needs, or the file is damaged.
        sqlite3.Error: the file is not a database, or cannot be used now.
    """
    (mode,) = connection.execute(sql.JOURNAL_MODE).fetchone()
    if mode != "wal":
        raise StoreUnavailable(
            f"The database {path} cannot have a write-ahead log (SQLite stays with {mode!r}): its file system has "
            "no shared memory; put it on a local disk",
            "locked",
        )
    for pragma in sql.PRAGMAS:
        connection.execute(pragma)
    connection.execute(sql.AUTOCHECKPOINT.format(pages=autocheckpoint))
    (verdict,) = connection.execute(sql.QUICK_CHECK).fetchone()
    if verdict != "ok":
        raise StoreUnavailable(
            f"The database {path} is damaged ({verdict}); restore a backup of it",
            "corrupted",
        )


def migrate(connection: sqlite3.Connection, path: Path, known: Sequence[Migration]) -> int:
    """Bring the schema to what this release knows and return its version; a new store gets its epoch.

    Each migration is one transaction with its row in `schema_version`.

    Raises:
        StoreUnavailable: the schema is newer than this release, or another program's.
        sqlite3.Error: the file cannot be used now.
    """
    newest = known[-1].version if known else 0
    current = _version(connection, path)
    if current > newest:
        raise StoreUnavailable(
            f"The database {path} has schema version {current}, and this release knows up to {newest}: install the "
            "newer release again, or restore a backup made before it",
            "schema-mismatch",
        )
    for migration in known[current:]:
        connection.execute(sql.BEGIN)
        try:
            # Somebody else may have come first while we waited for the lock.
            if _version(connection, path) < migration.version:
                for statement in migration.statements():
                    connection.execute(statement)
                applied = (migration.version, migration.name, timestamp())
                connection.execute(sql.INSERT_SCHEMA_VERSION, applied)
            connection.execute(sql.COMMIT)
        except BaseException:
            rollback(connection)
            raise
    if connection.execute(sql.SELECT_META).fetchone() is None:
        connection.execute(sql.INSERT_META, (str(uuid.uuid4()), timestamp()))
    return newest


def _version(connection: sqlite3.Connection, path: Path) -> int:
    if connection.execute(sql.HAS_TABLE, ("store_meta",)).fetchone() is not None:
        (version,) = connection.execute(sql.SCHEMA_VERSION).fetchone()
        return int(version or 0)
    if connection.execute(sql.HAS_ANY_TABLE).fetchone() is not None:
        raise StoreUnavailable(
            f"The database {path} was made by another program; move it away, or give another path", "schema-mismatch"
        )
    return 0


_LOG_HEADER, _FRAME_HEADER = 32, 24
"""Bytes of the log before its first frame, and of a frame before its page."""
_ZEROS = bytes(64 * 1024)


def grow_log(connection: sqlite3.Connection, path: Path, *, pages: int) -> None:
    """Have the log as large as it will be between two checkpoints: a file that grows costs each commit more.

    It gets zeros behind its end, where SQLite finds no frame, as behind the last one of a log that was written anew from its
    start (https://sqlite.org/fileformat2.html#walformat). Holes would not do: they are filled at a commit's cost. A full disk
    or a busy writer only leaves it as it is.
    """
    (page_size,) = connection.execute(sql.PAGE_SIZE).fetchone()
    size = _LOG_HEADER + pages * (_FRAME_HEADER + page_size)
    try:
        # Nobody else appends to it meanwhile.
        connection.execute(sql.BEGIN)
        try:
            with path.with_name(path.name + "-wal").open("r+b") as log:
                end = log.seek(0, os.SEEK_END)
                try:
                    for at in range(end, size, len(_ZEROS)):
                        log.write(_ZEROS[: size - at])
                    log.flush()
                    os.fdatasync(log.fileno())
                except OSError:
                    log.truncate(end)
        finally:
            rollback(connection)
    except (sqlite3.OperationalError, OSError):
        return


def rollback(connection: sqlite3.Connection) -> None:
    """End a transaction that may be open: after some errors SQLite has ended it already."""
    if connection.in_transaction:
        connection.execute(sql.ROLLBACK)
