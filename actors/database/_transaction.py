"""Group commit: several requests in one transaction, each in a savepoint of its own, one fsync for all."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, TypeVar

from actors.database import statements as sql
from actors.database._errors import is_full, unavailable
from actors.database._schema import rollback, timestamp

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a request needs to write its rows: the connection, and one time for all of them."""

    connection: sqlite3.Connection
    now: datetime
    stamp: str


Work: TypeAlias = Callable[[Transaction], T]


def transact(
    connection: sqlite3.Connection, path: Path, works: Sequence[Work[T]], *, along: Work[None] | None = None
) -> list[T | Exception]:
    """Run the works in one transaction and give each one's result, or why nothing of it was stored.

    A work that fails harms no other. If the transaction as a whole fails, all of them have; whichever way it goes
    the connection is out of the transaction. Results hold only once this has returned: the commit is its last
    step. `along` is written with them if anything is, and is not worth an fsync of its own.
    """
    try:
        connection.execute(sql.BEGIN)
    except sqlite3.Error as error:
        return [unavailable(error, path) for _ in works]
    now = datetime.now(UTC)
    transaction = Transaction(connection, now, timestamp(now))
    try:
        outcomes = [_guarded(transaction, path, work, alone=len(works) == 1) for work in works]
        if all(isinstance(outcome, Exception) for outcome in outcomes):
            rollback(connection)  # nothing was written, so nothing needs an fsync
        else:
            if along is not None:
                along(transaction)
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
