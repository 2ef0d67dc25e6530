"""The actor type: a Pykka actor whose mailbox is drained by a task on the shared event loop."""

import asyncio
import contextlib
import functools
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar, cast

import pykka
from pykka._envelope import Envelope
from pykka.messages import ProxyCall, _ActorStop

from actors.runtime._drain import drain
from actors.runtime._exit import Ending, Exit
from actors.runtime._future import LoopFuture, running_loop
from actors.runtime._inbox import DEFAULT_CAPACITY, Inbox
from actors.runtime._ref import Ref, asking
from actors.runtime.errors import ActorDied, ActorDown, Foreseen

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Actor(pykka.Actor):
    """A Pykka actor on the running event loop; every handler and hook may be `async def`.

    One message is handled at a time, to its end, in the context variables of its sender. Anything blocking belongs in an
    executor that the actor owns.

    Ends: a stop message (`on_stop`), an exception from a told message or a spawned task (`on_failure`), or the cancellation of
    its task (`on_failure` with the `CancelledError`). An exception from an asked message belongs to the asker and ends nothing.
    Whichever way it goes: the mailbox is closed and whoever waits there gets an answer, the hook runs, timers and spawned tasks
    are cancelled, `actor_ref.exited` is settled, and then those who asked it to stop get their answer, in this order.
    """

    mailbox_capacity: ClassVar[int] = DEFAULT_CAPACITY
    cleanup_timeout: ClassVar[float | None] = 5.0
    """Seconds for `on_failure`, and for spawned tasks to end: nobody else sees that these hang. (A stop is its sender's.)"""

    # What is private here is mangled: subclasses have names like `_close` or `_exit` of their own.
    actor_inbox: Inbox
    _actor_ref: Ref[Any]

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Ref[Self]:
        """Start it on the running loop; `await ref.started` tells when it is ready, or why it is not."""
        if running_loop() is None:
            raise RuntimeError(f"{cls.__name__}.start() needs a running event loop in this thread")
        return cast("Ref[Self]", super().start(*args, **kwargs))

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()
        self.actor_inbox.capacity = self.mailbox_capacity
        self.actor_inbox.owner = type(self).__name__
        self._actor_ref = Ref(self)
        self.__exit: Exit | None = None
        self.__task_error: BaseException | None = None
        # Replies owed for what is being handled: answered with ActorDied if the actor ends in the middle.
        self.__owed: list[LoopFuture[Any]] = []
        self.__stoppers: list[LoopFuture[Any]] = []
        self.__spawned: set[asyncio.Task[Any]] | None = None
        self.__timers: weakref.WeakSet[asyncio.TimerHandle] | None = None

    @property
    def actor_ref(self) -> Ref[Self]:
        return self._actor_ref

    # -- for subclasses

    def on_start(self) -> Awaitable[None] | None:
        """Set up, before the first message. An exception ends the actor: `started` and `exited` tell it, no other hook runs."""
        return None

    def on_stop(self) -> Awaitable[None] | None:
        """Clean up after an orderly stop; the mailbox is closed already."""
        return None

    def on_failure(
        self,
        exception_type: type[BaseException] | None,  # noqa: ARG002  # Pykka's signature, in all three
        exception_value: BaseException | None,  # noqa: ARG002
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> Awaitable[None] | None:
        """Clean up after a failure or a cancellation, within `cleanup_timeout`; the mailbox is closed already."""
        return None

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine beside the mailbox, as this actor's own: cancelled at its end, and its failure is the actor's.

        At once, whatever the actor is at work on: it may be waiting for that very task. The two share the actor's state on the
        same loop, so between two awaits each is alone. The task outlives the message that spawned it, and so starts with empty
        context variables.
        """
        task = asyncio.get_running_loop().create_task(_contained(work), name=name, context=Context())
        if self.__spawned is None:
            self.__spawned = set()
        self.__spawned.add(task)
        task.add_done_callback(functools.partial(self.__spawned_ended, work))
        return task

    def later(self, seconds: float, method: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> asyncio.TimerHandle:
        """Tell this actor one of its own methods after `seconds`, through its mailbox, be it full. Ends with the actor."""
        due = functools.partial(self.__due, ProxyCall((method.__name__,), args, kwargs))
        timer = asyncio.get_running_loop().call_later(seconds, due, context=Context())
        if self.__timers is None:
            self.__timers = weakref.WeakSet()
        self.__timers.add(timer)
        return timer

    def defer(self, method: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Tell this actor one of its own methods; false where its mailbox is closed.

        Raises:
            MailboxFull: see `mailbox_capacity`.
        """
        try:
            self.actor_ref.tell(ProxyCall((method.__name__,), args, kwargs))
        except ActorDown:
            return False
        return True

    # -- Pykka's hooks for implementors

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    @staticmethod
    def _create_future() -> LoopFuture[Any]:
        return LoopFuture()

    def _start_actor_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self.actor_inbox.bind(loop)
        # An empty context: messages bring their senders' own, and nothing of the starter's may stick to a long life.
        life = loop.create_task(self.__live(), name=type(self).__name__, context=Context())
        self._actor_ref.life = life
        # The callback also runs for a task that is cancelled before its first step, where no `finally` would.
        life.add_done_callback(self.__ended)

    # -- life

    async def __live(self) -> None:
        # For the hooks; a message brings the chain of its sender.
        asking.set((self.actor_urn,))
        try:
            await _hook(self.on_start)
        except BaseException as error:  # noqa: BLE001  # SystemExit here must not end the whole loop
            self.__close(self.__exit_for(error))
        else:
            self.actor_ref.started.set(None)
            try:
                stop = await drain(self, self.actor_inbox, self.__owed)
            except BaseException as error:  # noqa: BLE001  # as above
                why = self.__exit_for(error)
                self.__close(why)
                await self.__fail(why)
            else:
                if stop is not None:
                    self.__stoppers.append(stop)
                self.__close(Exit(Ending.STOPPED))
                await self.__stop()
        await self.__end_spawned()

    async def __stop(self) -> None:
        try:
            await _hook(self.on_stop)
        except BaseException as error:
            self.__exit = self.__exit_for(error)
            if self.__exit.ending is Ending.FAILED:
                logger.exception("%s: on_stop failed", self)

    async def __fail(self, why: Exit) -> None:
        error = why.error
        assert error is not None
        if isinstance(error, Foreseen):
            logger.debug("%s failed: %s", self, error)  # its supervisor tells it
        elif why.ending is Ending.FAILED:
            logger.error("%s failed", self, exc_info=error)
        try:
            async with asyncio.timeout(self.cleanup_timeout):
                await _hook(self.on_failure, type(error), error, error.__traceback__)
        except BaseException:
            logger.exception("%s: on_failure failed", self)

    def __exit_for(self, error: BaseException) -> Exit:
        """Tell a cancellation of this actor from one of its task's failures, and from one of something that it awaited."""
        life = self.actor_ref.life
        if not isinstance(error, asyncio.CancelledError) or life is None or not life.cancelling():
            return Exit(Ending.FAILED, error)
        if self.__task_error is not None:
            return Exit(Ending.FAILED, self.__task_error)
        return Exit(Ending.CANCELLED, error)

    def __close(self, why: Exit) -> None:
        """Take no more messages, and answer those that will not be handled."""
        self.__exit = why
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        for reply in self.__owed:
            if not reply.settled:
                reply.set_error(ActorDied(f"{self} ended while at work on this message"))
        self.__owed.clear()
        for envelope, _context in self.actor_inbox.close():
            reply_to = cast("LoopFuture[Any] | None", envelope.reply_to)
            if reply_to is None or reply_to.settled:
                continue
            if isinstance(envelope.message, _ActorStop):
                self.__stoppers.append(reply_to)
            else:
                reply_to.set_error(ActorDown(f"{self} ended before it came to this message"))

    def __ended(self, life: asyncio.Task[None]) -> None:
        error = None if life.cancelled() else life.exception()
        if self.__exit is None:
            self.__close(Exit(Ending.FAILED if error else Ending.CANCELLED, error))
        assert self.__exit is not None
        for timer in self.__timers or ():
            timer.cancel()
        for spawned in self.__spawned or ():
            spawned.cancel()
        ref = self.actor_ref
        if not ref.started.settled:
            ref.started.set_error(_start_error(self, self.__exit))
        ref.exited.set(self.__exit)
        for stopper in self.__stoppers:
            stopper.set(None)

    def __due(self, message: ProxyCall) -> None:
        with contextlib.suppress(ActorDown):
            self.actor_inbox.put(Envelope(message), urgent=True)

    def __spawned_ended(self, work: Coroutine[Any, Any, Any], task: asyncio.Task[Any]) -> None:
        if self.__spawned is not None:
            self.__spawned.discard(task)
        work.close()  # where the task was cancelled before its first step
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self.__exit is not None or self.__task_error is not None:
            logger.error("%s: a task failed at its end", self, exc_info=error)
        else:
            self.__task_error = error
            self.actor_ref.cancel()

    async def __end_spawned(self) -> None:
        tasks = list(self.__spawned or ())
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=self.cleanup_timeout)
        for task in left:
            logger.error("%s: its task %s goes on although it was cancelled", self, task.get_name())


async def _hook(hook: Callable[..., Awaitable[None] | None], *args: Any) -> None:
    result = hook(*args)
    if inspect.isawaitable(result):
        await result


async def _contained(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        # asyncio lets these two through the loop, and everybody would end.
        raise RuntimeError(f"a task may not end the process: {error!r}") from error


def _start_error(actor: Actor, why: Exit) -> Exception:
    """What `started` raises: never what the one who waits would take for its own cancellation or exit."""
    if isinstance(why.error, Exception):
        return why.error
    error = ActorDown(f"{actor} did not start ({why})")
    error.__cause__ = why.error
    return error


def message_for(method: Callable[Concatenate[Any, P], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProxyCall:
    """Give Pykka's message for calling this method of an actor."""
    return ProxyCall((method.__name__,), args, kwargs)
