"""The store itself: plain synchronous code on one SQLite connection, all of it on one thread."""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from actors.database import _profiles, _read, _schema, _write
from actors.database import statements as sql
from actors.database._errors import is_full, unavailable
from actors.database._files import Identity, secure
from actors.database._transaction import Mark, T, Work, transact
from schemas.profiles import Author, NewProfile, Profile, ProfileChange, ProfileEntry
from schemas.records import (
    AccessEntry,
    CommitRequest,
    Committed,
    NewService,
    StoreState,
    StoreUnavailable,
)
from schemas.types import ServiceName, Version

R = TypeVar("R")

AUTOCHECKPOINT = 500
"""Pages of the log after which SQLite copies them into the database. A commit alone takes six or seven."""

STATEMENTS = 64
"""Prepared statements kept; there are fewer."""

Publication: TypeAlias = tuple[ServiceName, Version]


class Store:
    """The open database. `open` comes first; everything happens on the thread that called it.

    Methods raise `StoreUnavailable` where the file cannot be used.
    """

    def __init__(self, path: Path, *, busy_timeout: float = 2.0, autocheckpoint: int = AUTOCHECKPOINT) -> None:
        """`busy_timeout`: seconds to wait for another program's lock."""
        self._path = path
        self._busy_timeout = busy_timeout
        self._autocheckpoint = autocheckpoint
        self._schema_version = 0

    def open(self) -> sqlite3.Connection:
        """Open the store; create it, or bring its schema up to date, where needed. Closing is the caller's."""
        secure(self._path)
        known = _schema.migrations()
        try:
            connection = sqlite3.connect(
                self._path,
                timeout=self._busy_timeout,
                isolation_level=None,  # transactions begin and end where the code says so
                cached_statements=STATEMENTS,
            )
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error
        try:
            _schema.configure(connection, self._path, autocheckpoint=self._autocheckpoint)
            self._schema_version = _schema.migrate(connection, self._path, known)
            # Some room beyond the checkpoint's mark: the commit that reaches it goes past it.
            _schema.grow_log(connection, self._path, pages=self._autocheckpoint + 100)
            for statement in sql.COMMITS:
                connection.execute(statement)
            self._mark = Mark.read(connection)
        except sqlite3.Error as error:
            connection.close()
            raise unavailable(error, self._path) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = Identity(self._path)
        return connection

    def checkpoint(self) -> None:
        """Copy the log into the database, before it is closed; SQLite then removes the log if nobody else reads.

        What cannot be copied now stays in the log and counts at the next opening.
        """
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute(sql.CHECKPOINT_TRUNCATE)

    def load(self) -> StoreState:
        """Everything a start needs."""
        try:
            self._identity.verify()
            state = _read.load(self._connection, self._path, self._schema_version)
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error
        self._mark = Mark(state.config_epoch, state.revision)
        return state

    def ensure(self, services: Sequence[NewService]) -> StoreState:
        """Give each service that has none its row, and load."""
        self._alone(partial(_write.ensure, services=services))
        return self.load()

    def commit(self, requests: Sequence[CommitRequest]) -> Sequence[Committed | Exception]:
        """Commit the requests with one fsync and give each one's outcome."""
        outcomes = self._checked(self._commit, requests)
        for outcome in reversed(outcomes):
            if isinstance(outcome, Committed):
                self._mark = Mark(outcome.config_epoch, outcome.revision)
                break
        return outcomes

    def acknowledge(self, published: Sequence[Publication]) -> None:
        """Record what the broker has acknowledged."""
        self._alone(partial(_write.acknowledge, published=published))

    def log_access(self, entries: Sequence[AccessEntry]) -> Sequence[Exception | None]:
        """Append to the access log in one transaction and give each one's outcome."""
        return self._checked(self._one_by_one, [partial(_write.log_access, entry=entry) for entry in entries])

    def _commit(self, requests: Sequence[CommitRequest]) -> Sequence[Committed | Exception]:
        try:
            together = _write.commit_together(self._connection, requests, self._mark)
        except sqlite3.Error as error:
            if not is_full(error):
                return [unavailable(error, self._path) for _ in requests]
            together = None  # the disk may have room for those who want less
        return together or self._one_by_one([partial(_write.commit, request=request) for request in requests])

    def profiles(self) -> tuple[ProfileEntry, ...]:
        """All profiles by name."""
        return self._look(_profiles.entries)

    def profile(self, name: str) -> Profile:
        """Give a whole profile."""
        return self._look(partial(_profiles.profile, name=name))

    def save_profile(self, new: NewProfile) -> ProfileEntry:
        """Save the present as a profile."""
        return self._alone(partial(_profiles.save, new=new))

    def change_profile(self, wanted: ProfileChange) -> ProfileEntry:
        """Rename it, or describe it anew."""
        return self._alone(partial(_profiles.change, wanted=wanted))

    def delete_profile(self, name: str, author: Author) -> None:
        """Delete it."""
        self._alone(partial(_profiles.delete, name=name, author=author))

    def _look(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._identity.verify()
            return read(self._connection)
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error
        except ValueError as error:
            raise StoreUnavailable(
                f"The database {self._path} holds a profile that cannot be read ({error}); delete that", "corrupted"
            ) from error

    def _alone(self, work: Work[T]) -> T:
        (outcome,) = self._checked(self._one_by_one, [work])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _one_by_one(self, works: Sequence[Work[T]]) -> Sequence[T | Exception]:
        return transact(self._connection, self._path, works)

    def _checked(
        self, function: Callable[[Sequence[R]], Sequence[T | Exception]], asked: Sequence[R]
    ) -> Sequence[T | Exception]:
        """Call it if the files are those that were opened; else that is everybody's answer."""
        try:
            self._identity.verify()
        except StoreUnavailable as error:
            return [StoreUnavailable(error.reason, error.database_status) for _ in asked]
        return function(asked)
