"""Pykka's future, awaitable on the event loop and readable from any thread."""

import asyncio
import contextlib
import queue
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar, cast

import pykka
from pykka._future import _Unset
from pykka._types import OptExcInfo

from actors.runtime.errors import BlockingOnLoop

T = TypeVar("T")
J = TypeVar("J")
M = TypeVar("M")
R = TypeVar("R")

# One lock for every future: it is held for a few bytecodes, and a lock in each costs more than sharing one.
_settling = threading.Lock()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the loop that this very thread is running, or None."""
    return asyncio._get_running_loop()  # noqa: SLF001  # the public form raises, at ten times the price


class LoopFuture(pykka.Future[T]):
    """A reply that can be awaited on the loop, or waited for with `get()` on any other thread.

    States: open -> settled (value or exception), or open -> hooked (Pykka's get hook; computed once, at the first reading).
    Setting it twice raises `queue.Full`, as Pykka's own future does.

    A reply also knows whether its message was begun: `begin()` is called by the mailbox's drain, `withdraw()` by an asker
    whose deadline has passed. Both run on the loop, so exactly one of them wins.
    """

    # Class attributes stand in for the base class's per-instance set-up, which an ask would pay for each time.
    _get_hook: Any = None
    _get_hook_result: Any = _Unset()
    _parents: tuple[pykka.Future[Any], ...] = ()
    _settled = False
    _value: Any = None
    _error: BaseException | None = None
    _traceback: types.TracebackType | None = None
    # The first one has a place of its own: nearly every reply has one reader.
    _waiter: asyncio.Future[None] | threading.Event | None = None
    _waiters: list[asyncio.Future[None] | threading.Event] | None = None
    begun = False
    withdrawn = False
    expired = False

    def __init__(self) -> None:
        # Not calling the base: see above.
        pass

    # -- the mailbox's side

    def begin(self) -> bool:
        """Mark that handling starts; False if the asker has withdrawn the message."""
        if self.withdrawn:
            return False
        self.begun = True
        return True

    def withdraw(self) -> bool:
        """Take the message back; False if its handling has begun."""
        if self.begun or self._settled:
            return False
        self.withdrawn = True
        return True

    def expire(self, error: BaseException) -> None:
        """Answer the asker in the actor's place, unless the actor has; its answer, if it still comes, is dropped."""
        with _settling:
            if self._settled:
                return
            self._error = error
            self.expired = self._settled = True
        self._wake()

    @property
    def settled(self) -> bool:
        return self._settled

    # -- Pykka's interface

    def set(self, value: T | None = None) -> None:
        self._settle(value, None)

    def set_exception(self, exc_info: OptExcInfo | None = None) -> None:
        info = sys.exc_info() if exc_info is None else exc_info
        kind, error, traceback = info
        if error is None:
            assert kind is not None
            error = kind()
        self._settle(None, error if traceback is None else error.with_traceback(traceback))

    def set_error(self, error: BaseException) -> None:
        """Settle with an exception, without going through a `sys.exc_info()` triple."""
        self._settle(None, error)

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        with _settling:
            if self._settled:
                raise queue.Full
            self._get_hook = func
        self._wake()

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for the value on a thread that is not the loop's.

        Raises:
            BlockingOnLoop: on a thread that runs an event loop, unless the value is there already.
            pykka.Timeout: not settled within `timeout` seconds.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._settled:
            self._block(timeout)
            return self.get(timeout=timeout)
        if self._error is not None:
            # As it was when it was set: else each reading would make the traceback longer.
            raise self._error.with_traceback(self._traceback)
        return cast("T", self._value)

    def __await__(self) -> Generator[Any, None, T]:
        if self._parents or not self._settled:
            yield from self._park()
        return self.get()

    __iter__ = __await__

    async def wait(self) -> None:
        """Return once it is settled, whatever with."""
        await self._park()

    def filter(self: "LoopFuture[Iterable[J]]", func: Callable[[J], bool]) -> "pykka.Future[Iterable[J]]":
        return _derived(super().filter(func), self)

    def join(self: "LoopFuture[Any]", *futures: pykka.Future[Any]) -> "pykka.Future[Iterable[Any]]":
        return _derived(super().join(*futures), self, *futures)

    def map(self, func: Callable[[T], M]) -> "pykka.Future[M]":
        return _derived(super().map(func), self)

    def reduce(self: "LoopFuture[Iterable[J]]", func: Callable[[R, J], R], *args: R) -> "pykka.Future[R]":
        return _derived(super().reduce(func, *args), self)

    # -- inside

    def _readable(self) -> bool:
        return self._settled or self._get_hook is not None

    def _settle(self, value: Any, error: BaseException | None) -> None:
        with _settling:
            if self._readable():
                if self.expired:
                    return
                raise queue.Full
            self._value = value
            if error is not None:
                self._error = error
                self._traceback = error.__traceback__
            self._settled = True
        self._wake()

    def _wake(self) -> None:
        # A reader adds itself and then looks again, so whoever is missing from this reading sees the value.
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            _release(waiter)
        waiters = self._waiters
        if waiters is not None:
            self._waiters = None
            for other in waiters:
                _release(other)

    @types.coroutine
    def _park(self) -> Generator[Any, None, None]:
        """Return once it is settled, or hooked and the futures that the hook will read are settled."""
        for parent in self._parents:
            if isinstance(parent, LoopFuture):
                yield from parent._park()  # noqa: SLF001  # the same class
        if self._readable():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._enlist(waiter)
        if self._readable():
            return
        try:
            yield from waiter
        except BaseException:
            self._strike(waiter)
            raise

    def _enlist(self, waiter: asyncio.Future[None] | threading.Event) -> None:
        with _settling:
            if self._waiter is None:
                self._waiter = waiter
            elif self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)

    def _strike(self, waiter: asyncio.Future[None] | threading.Event) -> None:
        with _settling:
            if self._waiter is waiter:
                self._waiter = None
            elif self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)

    def _block(self, timeout: float | None) -> None:
        if running_loop() is not None:
            raise BlockingOnLoop("get() would block the event loop for ever; await the future instead")
        event = threading.Event()
        self._enlist(event)
        if self._readable():
            return
        if not event.wait(timeout):
            self._strike(event)
            raise pykka.Timeout(f"{timeout} seconds")


def _release(waiter: asyncio.Future[None] | threading.Event) -> None:
    if isinstance(waiter, threading.Event):
        waiter.set()
        return
    loop = waiter.get_loop()
    if running_loop() is loop:
        if not waiter.done():
            waiter.set_result(None)
    else:
        # That loop may have ended, and with it whoever waited there.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_release, waiter)


def _derived(future: pykka.Future[M], *parents: pykka.Future[Any]) -> pykka.Future[M]:
    cast("LoopFuture[M]", future)._parents = parents  # noqa: SLF001  # one class, two instances
    return future
