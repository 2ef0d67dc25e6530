"""The connection and its thread: whatever runs there runs whole, one after the other, and is waited for."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

import aiosqlite

T = TypeVar("T")


class Work(asyncio.Future[T]):
    """A call on the thread. It cannot be cancelled: whoever is cancelled while awaiting it goes on once it is done.

    A task asks the future that it awaits to be cancelled; as this one refuses, the task keeps the cancellation and
    meets it at its next step (`asyncio.Task.cancel`), which is when the work has ended.
    """

    def __init__(self, then: Callable[[T], None] | None = None) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._then = then

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002  # the future's signature
        return False

    def set_result(self, result: T, /) -> None:
        """Wake the one who waits, and call `then` in this very turn of the loop."""
        super().set_result(result)
        if self._then is not None:
            self._then(result)

    def take(self, task: asyncio.Task[T]) -> None:
        """End as the task has."""
        try:
            result = task.result()
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            self.set_exception(error)
        else:
            self.set_result(result)


class Done(Generic[T]):
    """How a call on the thread ended, and whether the one who waited for it was cancelled meanwhile."""

    __slots__ = ("cancelled", "work")

    def __init__(self, work: Work[T], cancelled: asyncio.CancelledError | None) -> None:
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
        return await _whole(self._start())

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

    async def run(self, function: Callable[[], T], then: Callable[[T], None] | None = None) -> Done[T]:
        """Call `function` on the thread, after everything that was called before.

        `then` is called on the loop with what it returned, in the turn in which that arrives there, whether or not
        the one who waits here was cancelled meanwhile. It may not raise.
        """
        if not self._open:
            raise RuntimeError("the connection is closed")
        # aiosqlite's own methods take one statement each, and each is two changes of thread. This is what they do
        # inside: its thread calls the function, and the loop's then the future's `set_result` or `set_exception`.
        work = Work(then)
        cast("Any", self._connection)._tx.put_nowait((work, function))  # noqa: SLF001  # so
        return await _finished(work)

    async def close(self) -> Done[None]:
        """Close the connection and end the thread, after everything that was called before."""
        self._open = False
        return await _whole(self._connection.close())


async def _whole(coroutine: Coroutine[Any, Any, T]) -> Done[T]:
    work: Work[T] = Work()
    task = asyncio.create_task(coroutine)
    task.add_done_callback(work.take)
    return await _finished(work)


async def _finished(work: Work[T]) -> Done[T]:
    cancelled = None
    try:
        await work
    except asyncio.CancelledError as cancellation:
        cancelled = cancellation
    except Exception:  # noqa: BLE001, S110  # `Done` has it
        pass
    return Done(work, cancelled)
