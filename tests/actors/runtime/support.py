"""What the runtime's tests share: deadlines, gates that open from any thread, and either kind of actor behind one door."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pykka
from pykka.messages import ProxyCall

from actors.runtime import Actor, LoopFuture, Ref

DEADLINE = 30.0


def call(name: str, *args: Any, **kwargs: Any) -> ProxyCall:
    """Pykka's message for calling a method."""
    return ProxyCall((name,), args, kwargs)


async def turns(count: int = 5) -> None:
    """Let everything that is ready run, `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def ended(ref: Ref[Any]) -> Any:
    """The `Exit`, within the deadline."""
    async with asyncio.timeout(DEADLINE):
        return await ref.exited


async def stopped(*refs: Ref[Any]) -> None:
    """Stop them and wait for their ends."""
    for ref in refs:
        ref.stop(block=False)
    for ref in refs:
        await ended(ref)


class Flavour:
    """One kind of actor: Pykka's own, or ours. Its methods are called on a thread that is not the loop's."""

    def __init__(self, base: type[pykka.Actor], loop: asyncio.AbstractEventLoop) -> None:
        self.base = base
        self._loop = loop

    @property
    def ours(self) -> bool:
        return issubclass(self.base, Actor)

    def of(self, behaviour: type) -> type[Any]:
        """The behaviour as an actor class of this kind, with the behaviour's name."""
        return type(behaviour.__name__, (behaviour, self.base), {})

    def start(self, behaviour: type, *args: Any, **kwargs: Any) -> pykka.ActorRef[Any]:
        """Start an actor; ours, on the loop."""
        kind = behaviour if issubclass(behaviour, pykka.Actor) else self.of(behaviour)
        if not self.ours:
            return kind.start(*args, **kwargs)
        done: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()

        def start() -> None:
            try:
                done.set(kind.start(*args, **kwargs))
            except BaseException:  # noqa: BLE001  # raised where it is read
                done.set_exception()

        self._loop.call_soon_threadsafe(start)
        ref: pykka.ActorRef[Any] = done.get(timeout=DEADLINE)
        return ref

    def future(self) -> pykka.Future[Any]:
        return LoopFuture() if self.ours else pykka.ThreadingFuture()

    def gate(self) -> "Gate":
        return Gate(self.future())


class Gate:
    """A handler that returns `gate.wait()` is at work until `open()`. From any thread, to and fro."""

    def __init__(self, future: pykka.Future[Any]) -> None:
        self._future = future
        self.reached: pykka.Future[None] = pykka.ThreadingFuture()

    def wait(self) -> Any:
        self.reached.set()
        return self._future.wait() if isinstance(self._future, LoopFuture) else self._future.get(timeout=DEADLINE)

    def open(self) -> None:
        self._future.set()


def on_a_thread(test: Callable[..., None]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Run a synchronous test beside the loop, as callers of Pykka's blocking interface are."""

    @functools.wraps(test)
    async def run(**kwargs: Any) -> None:
        await asyncio.to_thread(test, **kwargs)

    # pytest reads the fixtures' names from here.
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]  # functions take attributes
    return run
