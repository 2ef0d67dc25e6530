"""Pykka's reference, which also refuses what would hang the loop or deadlock."""

import asyncio
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from actors.runtime._exit import Exit
from actors.runtime._future import LoopFuture, running_loop
from actors.runtime._inbox import Inbox
from actors.runtime.errors import ActorDown, AskCycle, BlockingOnLoop, Rejected

if TYPE_CHECKING:
    from actors.runtime._actor import Actor

A = TypeVar("A", bound="Actor")

asking: ContextVar[tuple[str, ...]] = ContextVar("asking", default=())
"""URNs of the actors whose reply is being waited for, outermost first, as seen from the handler that runs."""


class Ref(pykka.ActorRef[A], Generic[A]):
    """What others hold of an actor. Pykka's interface, plus `started`, `exited`.

    `started` settles when `on_start` is through, or with the reason why it is not; `exited` settles exactly once, with the
    `Exit` that tells why the actor ended. A future of an actor that ended by an error keeps the error's traceback, and by its
    frames the actor: long-lived parts hold a `Handle`.
    """

    actor_inbox: Inbox
    life: "asyncio.Task[None] | None" = None
    """The task that is the actor's life, for `cancel`."""

    def __init__(self, actor: A) -> None:
        super().__init__(actor)
        # Weak: whoever holds a reference does not keep the actor.
        self.behind: weakref.ref[A] = weakref.ref(actor)
        self.started: LoopFuture[None] = LoopFuture()
        self.exited: LoopFuture[Exit] = LoopFuture()

    def tell(self, message: Any) -> None:
        """Send without waiting for a reply.

        Raises:
            ActorDown: the actor has ended.
            MailboxFull: see `Inbox.put`.
        """
        self.actor_inbox.put(Envelope(message))

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send and give the future of the reply, or with `block` (never on the loop's thread) the reply itself.

        Where the actor is down or its mailbox full, the future's exception is `ActorDown` or `MailboxFull`.

        Raises:
            AskCycle: the actor is itself waiting for the one that asks. At once, because a reply that nobody awaits would
                hide it, as in Pykka's "proxy to itself"; `tell`, or `defer` of a proxy's method, is the way.
            BlockingOnLoop: `block` on the loop's thread.

        In both cases nothing has been sent.
        """
        if block and running_loop() is not None:
            raise BlockingOnLoop(f"a blocking ask to {self} would stop the loop; use block=False and await")
        if self.actor_urn in asking.get() and not isinstance(message, _ActorStop):
            raise AskCycle(f"{self} is waiting for this very handler; asks go down, tells go up")
        future: LoopFuture[Any] = LoopFuture()
        try:
            self.actor_inbox.put(Envelope(message, reply_to=future))
        except Rejected as refusal:
            future.set_error(refusal)
        return future.get(timeout=timeout) if block else future

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask the actor to stop after what is already in its mailbox: true if it did so now, false if it had ended."""
        if block and running_loop() is not None:
            raise BlockingOnLoop(f"a blocking stop of {self} would stop the loop; use block=False and await")
        asked: LoopFuture[None] = self.ask(_ActorStop(), block=False)

        def stopped(timeout: float | None) -> bool:
            try:
                asked.get(timeout=timeout)
            except ActorDown:
                return False
            return True

        result: LoopFuture[bool] = LoopFuture()
        result._parents = (asked,)  # noqa: SLF001  # awaiting the result awaits the reply
        result.set_get_hook(stopped)
        return result.get(timeout=timeout) if block else result

    def withdraw(self, reply: LoopFuture[Any]) -> bool:
        """Take an ask back that is still waiting; false if its handling has begun. Only on the loop's thread."""
        if not reply.withdraw():
            return False
        self.actor_inbox.has_withdrawn = True
        return True

    def cancel(self) -> None:
        """End the actor at once, without `on_stop`: for one that does not answer. Only on the loop's thread."""
        if self.life is not None:
            self.life.cancel()
