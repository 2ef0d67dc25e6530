"""The database actor: owns the connection and its thread, and commits what waits in its mailbox in groups."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from actors.database._store import AUTOCHECKPOINT, Store
from actors.database._thread import ConnectionThread
from actors.runtime import Actor, Call, batched
from schemas.profiles import Author, NewProfile, Profile, ProfileChange, ProfileEntry
from schemas.records import (
    AccessEntry,
    CommitRequest,
    Committed,
    DatabaseStatus,
    NewService,
    StoreState,
    StoreUnavailable,
)
from schemas.types import ServiceName, Version

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

GROUP: Final = 64
"""Requests of one transaction: bounds how long the first of them waits for the last."""

ACKNOWLEDGE_AFTER: Final = 1.0
"""Seconds that an acknowledgement waits for others, before they get a transaction of their own."""


class DatabaseActor(Actor):
    """The only way to the store.

    Each message is one call on the connection's thread, transactions included, so no other statement can come in
    between, and a cancelled asker changes nothing: work that has begun is finished and answered, also when the
    actor itself is stopped or cancelled, and only then is the connection closed.

    Every method raises `StoreUnavailable` where the file cannot be used; the connection stays usable, and the
    next call tries again. `on_status` is told each change of the database's status with the reason; it runs on
    the loop and must not wait.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout: float = 2.0,
        autocheckpoint: int = AUTOCHECKPOINT,
        on_status: Callable[[DatabaseStatus, str | None], None] | None = None,
    ) -> None:
        """`busy_timeout`: seconds to wait for another program's lock; keep it below the askers' timeouts."""
        super().__init__()
        self._store = Store(path, busy_timeout=busy_timeout, autocheckpoint=autocheckpoint)
        self._thread = ConnectionThread(self._store.open)
        self._on_status = on_status
        # None: nothing has been told yet; whoever listens may still know the state of an incarnation before.
        self._status: DatabaseStatus | None = None
        # Acknowledged by the broker and not written yet. Losing them means publishing once more, no harm.
        self._published: dict[ServiceName, Version] = {}
        self._timer: asyncio.TimerHandle | None = None

    # -- messages

    async def load(self) -> StoreState:
        """Everything a start needs."""
        await self.write_acknowledgements()
        return await self._read(self._store.load)

    async def ensure(self, services: Sequence[NewService]) -> StoreState:
        """Give each service that has none its row, `{}` at version 1, and load; others stay untouched."""
        await self.write_acknowledgements()
        return await self._write(self._store.ensure, services)

    @batched(max_size=GROUP)
    async def commit(self, batch: Sequence[Call[CommitRequest, Committed]]) -> None:
        """Commit the requests that wait, each all or nothing, with one fsync; answered when they are on disk.

        Raises, to the asker:
            VersionMismatch: somebody else was first, or the epoch is another.
            UnknownService: there is no such row.
            ValueError: the request contradicts itself; TypeError: a value is not JSON.
        """
        await self._answer(self._store.commit, batch)

    @batched(max_size=GROUP)
    async def log_access(self, batch: Sequence[Call[AccessEntry, None]]) -> None:
        """Append to the access log; answered when it is on disk."""
        await self._answer(self._store.log_access, batch)

    def acknowledge(self, published: Sequence[tuple[ServiceName, Version]]) -> None:
        """Note what the broker has acknowledged. It is written a second from now."""
        for service, version in published:
            self._published[service] = max(version, self._published.get(service, version))
        if self._published and self._timer is None:
            self._timer = self.later(ACKNOWLEDGE_AFTER, self.write_acknowledgements)

    async def profiles(self) -> tuple[ProfileEntry, ...]:
        """All profiles by name, without what they hold."""
        return await self._read(self._store.profiles)

    async def profile(self, name: str) -> Profile:
        """Give a whole profile. Raises `UnknownProfile`."""
        return await self._read(self._store.profile, name)

    async def save_profile(self, new: NewProfile) -> ProfileEntry:
        """Save what services have set now, as of one moment.

        Raises:
            ProfileExists: and it shall not be replaced. TooManyProfiles: there is no room for another one.
            UnknownService: there is no such row.
        """
        return await self._write(self._store.save_profile, new)

    async def change_profile(self, wanted: ProfileChange) -> ProfileEntry:
        """Rename a profile, or describe it anew. Raises `UnknownProfile`, `ProfileExists`."""
        return await self._write(self._store.change_profile, wanted)

    async def delete_profile(self, name: str, author: Author) -> None:
        """Delete a profile. Raises `UnknownProfile`."""
        await self._write(self._store.delete_profile, name, author)

    def status(self) -> DatabaseStatus:
        """How the last call found the store."""
        return self._status or "healthy"

    async def write_acknowledgements(self) -> None:
        """Write what `acknowledge` noted. Where that fails it stays noted, until the next `acknowledge`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._published:
            return
        with contextlib.suppress(StoreUnavailable):
            await self._write(self._store.acknowledge, tuple(self._published.items()))
            self._published.clear()

    # -- life

    async def on_start(self) -> None:
        """Open the store. `StoreUnavailable`, of which the exit tells, where that is not possible."""
        done = await self._thread.open()
        self._note_status(done.error)
        if done.cancelled is not None and done.error is None:
            await self._close_store()
        done.result()

    async def on_stop(self) -> None:
        """Write what is noted, copy the log into the database, close."""
        await self.write_acknowledgements()
        await self._close_store()

    async def on_failure(self, *_why: object) -> None:
        """Close: what was committed is on disk, and nothing is under way any more."""
        await self._close_store()

    async def _close_store(self) -> None:
        checkpoint = await self._thread.run(self._store.checkpoint)
        (await self._thread.close()).result()
        checkpoint.go_on()

    # -- inside; the runtime's own class above has private names too

    async def _read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done = await self._thread.run(partial(function, *args, **kwargs))
        # That reading works says nothing about a full disk or a lock that writing has met.
        if done.error is not None or self._status != "locked":
            self._note_status(done.error)
        return done.result()

    async def _write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done = await self._thread.run(partial(function, *args, **kwargs))
        self._note_status(done.error)
        return done.result()

    async def _answer(
        self, function: Callable[[Sequence[R]], Sequence[T | Exception]], batch: Sequence[Call[R, T]]
    ) -> None:
        """Call it with the requests; each is answered in the turn of the loop in which the thread's answer arrives."""

        def reply(outcomes: Sequence[T | Exception]) -> None:
            refusals = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            self._note_status(refusals[-1] if len(refusals) == len(outcomes) else None)
            for call, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    call.fail(outcome)
                else:
                    call.reply(outcome)

        done = await self._thread.run(partial(function, [call.request for call in batch]), reply)
        done.result()

    def _note_status(self, error: BaseException | None) -> None:
        """Keep the status, and tell of its change."""
        # Other errors are answers about the request: the store has worked.
        unavailable = error if isinstance(error, StoreUnavailable) else None
        status: DatabaseStatus = "healthy" if unavailable is None else unavailable.database_status
        if status != self._status:
            self._status = status
            if self._on_status is not None:
                self._on_status(status, None if unavailable is None else unavailable.reason)
