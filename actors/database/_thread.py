"""The connection and its thread: whatever runs there runs whole, one after the other, and is waited for."""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, cast

import aiosqlite

P = ParamSpec("P")
T = TypeVar("T")


class Done(Generic[T]):
    """How a call on the thread ended, and whether the one who waited for it was cancelled meanwhile."""

    __slots__ = ("cancelled", "work")

    def __init__(self, work: asyncio.Future[T], cancelled: asyncio.CancelledError | None) -> None:
        self.work = work
        self.cancelled = cancelled

    @property
    def error(self) -> BaseException | None:
        return self.work.exception()

    def result(self) -> T:
        """What it returned or raised; but first the cancellation, if there was one."""
        self.go_on()
        return self.work.result()

    def go_on(self) -> None:
        """Raise the cancellation, if there was one."""
        if self.cancelled is not None:
            raise self.cancelled


class ConnectionThread:
    """One SQLite connection on aiosqlite's thread, used a whole transaction at a time.

    A transaction cannot be left in the middle: whoever is cancelled while waiting for it waits on, and is
    cancelled then.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` runs on the thread."""
        self._connect = connect
        self._connection = aiosqlite.Connection(self._connect_or_note, iter_chunk_size=64)
        self._failure: BaseException | None = None
        self._open = False

    async def open(self) -> Done[None]:
        """Start the thread and connect. Where that fails, the thread has ended."""
        return await _finished(asyncio.ensure_future(self._start()))

    async def _start(self) -> None:
        await self._connection
        if self._failure is not None:
            await self._connection.close()
            raise self._failure
        self._open = True

    def _connect_or_note(self) -> sqlite3.Connection:
        # aiosqlite does not wait for its thread where this fails, which then meets a loop that is closed already.
        try:
            return self._connect()
        except BaseException as error:  # noqa: BLE001  # raised in `_start`
            self._failure = error
            return sqlite3.connect(":memory:")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Done[T]:
        """Call `function` on the thread, after everything that was called before."""
        if not self._open:
            raise RuntimeError("the connection is closed")
        # aiosqlite's own methods take one statement each, and each is two changes of thread. This is what they do
        # inside, without a task around it (which costs a tenth of a commit).
        work: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        cast("Any", self._connection)._tx.put_nowait((work, partial(function, *args, **kwargs)))  # noqa: SLF001  # so
        return await _finished(work)

    async def close(self) -> Done[None]:
        """Close the connection and end the thread, after everything that was called before."""
        self._open = False
        return await _finished(asyncio.ensure_future(self._connection.close()))


async def _finished(work: asyncio.Future[T]) -> Done[T]:
    cancelled = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
        except Exception:  # noqa: BLE001, S110  # `Done` has it
            pass
    return Done(work, cancelled)
