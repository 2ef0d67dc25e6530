"""Requests of several statements: all of them in one transaction, each in a savepoint of its own, one fsync for all."""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, TypeVar

from msgspec import Struct

from actors.database import statements as sql
from actors.database._errors import is_full, unavailable
from actors.database._schema import rollback, timestamp
from schemas.types import Epoch, Revision

T = TypeVar("T")


class Mark(Struct, frozen=True):
    """How far the store was: which life of it, and its last revision."""

    epoch: Epoch
    revision: Revision

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> "Mark":
        epoch, revision, _ = connection.execute(sql.SELECT_META).fetchone()
        return cls(epoch, revision)


class Transaction(Struct):
    """What a request needs to write its rows: the connection, one time for all of them, and how far the store is.

    A request that makes a revision moves the mark on, as its last step.
    """

    connection: sqlite3.Connection
    now: datetime
    stamp: str
    mark: Mark


Work: TypeAlias = Callable[[Transaction], T]


def transact(connection: sqlite3.Connection, path: Path, works: Sequence[Work[T]]) -> list[T | Exception]:
    """Run the works in one transaction and give each one's result, or why nothing of it was stored.

    A work that fails harms no other. If the transaction as a whole fails, all of them have; whichever way it goes
    the connection is out of the transaction. Results hold only once this has returned: the commit is its last step.
    """
    try:
        connection.execute(sql.BEGIN)
    except sqlite3.Error as error:
        return [unavailable(error, path) for _ in works]
    try:
        now = datetime.now(UTC)
        transaction = Transaction(connection, now, timestamp(now), Mark.read(connection))
        outcomes = [_guarded(transaction, path, work, alone=len(works) == 1) for work in works]
        if all(isinstance(outcome, Exception) for outcome in outcomes):
            rollback(connection)  # nothing was written, so nothing needs an fsync
        else:
            connection.execute(sql.COMMIT)
    except sqlite3.Error as error:
        rollback(connection)
        if is_full(error) and len(works) > 1:
            # SQLite gives up the whole transaction then. The disk may still have room for those who want less.
            return [outcome for work in works for outcome in transact(connection, path, [work])]
        return [unavailable(error, path) for _ in works]
    except BaseException:
        rollback(connection)
        raise
    return outcomes


def _guarded(transaction: Transaction, path: Path, work: Work[T], *, alone: bool) -> T | Exception:
    connection = transaction.connection
    if not alone:
        connection.execute(sql.SAVEPOINT)
    try:
        result = work(transaction)
    except Exception as error:
        if not connection.in_transaction:
            # SQLite has given up the whole transaction (an I/O error, say), the neighbours' rows with it.
            raise
        if not alone:
            connection.execute(sql.ROLLBACK_TO)
            connection.execute(sql.RELEASE)
        return unavailable(error, path) if isinstance(error, sqlite3.Error) else error
    if not alone:
        connection.execute(sql.RELEASE)
    return result
