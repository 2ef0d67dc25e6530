"""From SQLite's result codes to what the rest of the program understands."""

import sqlite3
from pathlib import Path

from schemas.records import StoreUnavailable

# https://www.sqlite.org/rescode.html: the low byte is the primary code, the rest refines it.
_PRIMARY = 0xFF
_LOCKED = {
    sqlite3.SQLITE_BUSY: "is held by another program; end that program, or wait for it",
    sqlite3.SQLITE_LOCKED: "is held by another program; end that program, or wait for it",
    sqlite3.SQLITE_PROTOCOL: "is held by another program; end that program, or wait for it",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space there",
    sqlite3.SQLITE_READONLY: "cannot be written; make file and folder writable for this user, or remount",
    sqlite3.SQLITE_PERM: "cannot be written; make file and folder writable for this user, or remount",
    sqlite3.SQLITE_IOERR: "cannot be read or written: input/output error; look at the kernel's log and the disk",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; see that it exists and that this user may read and write it",
    sqlite3.SQLITE_NOMEM: "cannot be used: out of memory",
}
_CORRUPTED = {
    sqlite3.SQLITE_CORRUPT: "is damaged; restore a backup of it",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database; restore a backup of it",
}


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk is."""
    return _primary_code(error) == sqlite3.SQLITE_FULL


def unavailable(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """Say what is wrong with the store at `path`, and what to do about it."""
    code = _primary_code(error)
    detail = f"({getattr(error, 'sqlite_errorname', type(error).__name__)}: {error})"
    if (what := _LOCKED.get(code)) is not None:
        return StoreUnavailable(f"The database {path} {what} {detail}", "locked")
    if (what := _CORRUPTED.get(code)) is not None:
        return StoreUnavailable(f"The database {path} {what} {detail}", "corrupted")
    # A table or column that this release expects is not there, or holds what it may not.
    return StoreUnavailable(f"The database {path} is not as this release expects it {detail}", "schema-mismatch")


def _primary_code(error: sqlite3.Error) -> int:
    # Errors of Python's own module, such as a closed connection, have none.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    # The shared-memory file could not be made to grow, which is how a full disk shows at the start.
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return sqlite3.SQLITE_FULL
    return code & _PRIMARY
