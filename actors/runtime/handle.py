"""A name for an actor that outlives its incarnations."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from actors.runtime._actor import Actor, message_for
from actors.runtime._deadlines import Deadlines
from actors.runtime._future import LoopFuture
from actors.runtime._ref import Ref
from actors.runtime.errors import ActorDown, AskTimeout, Expired, Rejected

A = TypeVar("A", bound=Actor)
P = ParamSpec("P")
R = TypeVar("R")

ASK_TIMEOUT = 5.0
"""Seconds that an ask may take, waiting for a restart included, unless `within` says otherwise."""


class _Slot(Generic[A]):
    """The place that a supervisor fills: the living actor's reference, or none."""

    __slots__ = ("ref", "supervised", "waiters")

    def __init__(self) -> None:
        self.ref: Ref[A] | None = None
        self.supervised = False
        self.waiters: set[asyncio.Future[None]] = set()

    def alive(self) -> Ref[A] | None:
        """The reference, unless its actor's mailbox is closed already."""
        ref = self.ref
        return ref if ref is not None and ref.is_alive() else None


class Handle(Generic[A]):
    """How one actor, or a route, reaches another: by name, typed by the method itself::

        committed = await database.ask(DatabaseActor.commit, request)
        health.tell(HealthActor.report, event)

    It survives restarts: an ask waits, up to its deadline, while nobody is behind the name, and one that a supervised actor did
    not come to before its end goes to the next incarnation. It never keeps a dead actor. Used on the loop's thread only.
    """

    __slots__ = ("_deadlines", "_slot", "name", "timeout")

    def __init__(self, name: str, *, timeout: float = ASK_TIMEOUT, _slot: "_Slot[A] | None" = None) -> None:
        self.name = name
        self.timeout = timeout
        self._slot: _Slot[A] = _slot or _Slot()
        self._deadlines: Deadlines[tuple[Ref[A], LoopFuture[Any], str]] = Deadlines(self._expire)

    def __repr__(self) -> str:
        return f"<Handle {self.name} {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether the actor is there at this moment."""
        return self._slot.alive() is not None

    def within(self, seconds: float) -> "Handle[A]":
        """Give the same handle with another deadline for its asks."""
        return Handle(self.name, timeout=seconds, _slot=self._slot)

    @overload
    async def ask(self, method: Callable[Concatenate[A, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def ask(self, method: Callable[Concatenate[A, P], R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def ask(self, method: Callable[Concatenate[A, P], Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call a method of the actor and wait for what it returns or raises.

        A cancelled caller does not cancel the method.

        Raises:
            Rejected: nothing happened: `ActorDown`, `MailboxFull`, `AskCycle`, or `Expired` (it was still waiting).
            OutcomeUnknown: `AskTimeout` or `ActorDied`: the method had begun.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        message = message_for(method, args, kwargs)
        ref = self._slot.ref
        if ref is not None:
            reply: LoopFuture[Any] = ref.ask(message, block=False)
            self._deadlines.add(loop, deadline, reply, (ref, reply, method.__name__))
            try:
                return await reply
            except ActorDown:
                # Once begun, it is the method's own, about somebody else.
                if reply.begun or not self._slot.supervised:
                    raise
            finally:
                self._deadlines.forget(reply)
        while True:
            ref = await self._wait_until_up(deadline)
            reply = ref.ask(message, block=False)
            # Of its own, since others have been asked meanwhile whose deadlines are later.
            timer = loop.call_at(deadline, self._expire, (ref, reply, method.__name__))
            try:
                return await reply
            except ActorDown:
                if reply.begun or not self._slot.supervised:
                    raise
            finally:
                timer.cancel()

    def tell(self, method: Callable[Concatenate[A, P], Any], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Call a method of the actor without waiting; false where it is down or full, and nothing will happen."""
        ref = self._slot.ref
        if ref is None:
            return False
        try:
            ref.tell(message_for(method, args, kwargs))
        except Rejected:
            return False
        return True

    def call(self, method: Callable[Concatenate[A, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a plain method of the actor here and now, past its mailbox.

        An exception to the rule, for an actor that never waits in the middle of a message, so that none is under way now: the
        signer and what the bridge is to retain, both wanted for each change and quicker done than a message is sent.

        Raises:
            ActorDown: nobody is behind the name, or it has not started yet; nothing happened.
        """
        ref = self._slot.alive()
        actor = ref.behind() if ref is not None and ref.started.settled else None
        if actor is None:
            raise ActorDown(f"{self.name} is down")
        return method(actor, *args, **kwargs)

    # -- the supervisor's side

    def attach(self, ref: Ref[A], *, supervised: bool = False) -> None:
        """Say who is behind the name from now on, and whether it is worth waiting for another after its end."""
        self._slot.ref = ref
        self._slot.supervised = supervised
        waiters, self._slot.waiters = self._slot.waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def detach(self) -> None:
        """Say that nobody is behind the name. For supervisors."""
        self._slot.ref = None

    # -- inside

    async def _wait_until_up(self, deadline: float) -> Ref[A]:
        while (ref := self._slot.alive()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._slot.waiters.add(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                raise ActorDown(f"{self.name} is down, and was not back within {self.timeout:g} s") from None
            finally:
                self._slot.waiters.discard(waiter)
        return ref

    def _expire(self, asked: tuple[Ref[A], LoopFuture[Any], str]) -> None:
        ref, reply, method = asked
        if ref.withdraw(reply):
            error: Exception = Expired(f"{self.name} did not come to {method} within {self.timeout:g} s")
        else:
            error = AskTimeout(f"{self.name} was not done with {method} within {self.timeout:g} s")
        reply.expire(error)
