"""The actor type: a Pykka actor whose mailbox is drained by a task on the shared event loop."""

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from types import CoroutineType, TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar, cast

import pykka
from pykka.messages import ProxyCall, _ActorStop

from actors.runtime._batch import BATCH_ATTRIBUTE, Call
from actors.runtime._future import LoopFuture, running_loop
from actors.runtime._inbox import DEFAULT_CAPACITY, Control, Delivery, Inbox
from actors.runtime._ref import Ref, asking
from actors.runtime._step import step_in
from actors.runtime.errors import ActorDied, ActorDown

logger = logging.getLogger(__name__)

TIME_SLICE = 0.002
"""Seconds of draining after which the loop gets its turn."""

P = ParamSpec("P")
T = TypeVar("T")


class Ending(Enum):
    """How an actor came to its end."""

    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Exit:
    """Why an actor ended: told to its supervisor exactly once."""

    ending: Ending
    error: BaseException | None = None

    def __str__(self) -> str:
        if self.error is None:
            return self.ending.value
        return f"{self.ending.value}: {type(self.error).__name__}: {self.error}"


class _TaskFailed(Control):
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Actor(pykka.Actor):
    """A Pykka actor on the running event loop; every handler and hook may be `async def`.

    One message is handled at a time, to its end, in the context variables of its sender. Anything blocking belongs in an
    executor that the actor owns.

    Ends: a stop message (`on_stop`), an exception from a told message, a hook or a spawned task (`on_failure`), or the
    cancellation of its task (`on_failure` with the `CancelledError`). An exception from an asked message belongs to the asker
    and ends nothing. Whichever way it goes: the mailbox is closed, whoever waits gets an answer, spawned tasks are cancelled
    and `actor_ref.exited` is settled, in this order.
    """

    mailbox_capacity: ClassVar[int] = DEFAULT_CAPACITY

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
        self._actor_ref = Ref(self)
        self._main: asyncio.Task[None] | None = None
        self._exit: Exit | None = None
        # Replies owed for what is being handled: answered with ActorDied if the actor ends in the middle.
        self._owed: LoopFuture[Any] | list[LoopFuture[Any]] | None = None
        self._spawned: set[asyncio.Task[Any]] | None = None

    @property
    def actor_ref(self) -> Ref[Self]:
        return self._actor_ref

    # -- for subclasses

    def on_start(self) -> Awaitable[None] | None:
        """Set up, before the first message. An exception ends the actor; `on_failure` is not called."""
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
        """Clean up after a failure or a cancellation; the mailbox is closed already."""
        return None

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine beside the mailbox, as this actor's own: cancelled at its end, and its failure is the actor's.

        It shares the actor's state on the same loop, so between two awaits it is alone.
        """
        task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
        if self._spawned is None:
            self._spawned = set()
        self._spawned.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def later(self, seconds: float, method: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> asyncio.TimerHandle:
        """Tell this actor one of its own methods after `seconds`, through its mailbox. Nothing happens if it has ended."""
        loop = asyncio.get_running_loop()
        return loop.call_later(seconds, functools.partial(self.defer, method, *args, **kwargs), context=Context())

    def defer(self, method: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Tell this actor one of its own methods; false where its mailbox is closed. On the loop's thread."""
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
        self._main = loop.create_task(self._live(), name=type(self).__name__, context=Context())
        # The callback also runs for a task that is cancelled before its first step, where no `finally` would.
        self._main.add_done_callback(self._ended)

    # -- life

    async def _live(self) -> None:
        try:
            await _hook(self.on_start)
        except asyncio.CancelledError as error:
            self._exit = Exit(Ending.CANCELLED, error)
            return
        except BaseException as error:  # noqa: BLE001  # SystemExit here must not end the whole loop
            self._exit = Exit(Ending.FAILED, error)
            return
        self.actor_ref.started.set(None)
        try:
            stop = await self._drain()
        except asyncio.CancelledError as error:
            await self._fail(Ending.CANCELLED, error)
        except BaseException as error:  # noqa: BLE001  # as above
            await self._fail(Ending.FAILED, error)
        else:
            await self._stop_orderly(stop)

    async def _drain(self) -> LoopFuture[Any] | None:
        """Handle messages until one says stop; give the reply that the stop's sender waits for."""
        inbox = self.actor_inbox
        clock = time.monotonic
        slice_end = clock() + TIME_SLICE
        while True:
            if inbox.empty():
                await inbox.wait()
                slice_end = clock() + TIME_SLICE
            elif clock() >= slice_end:
                await asyncio.sleep(0)
                slice_end = clock() + TIME_SLICE
            delivery = inbox.take()
            envelope, context = delivery
            message = envelope.message
            reply = cast("LoopFuture[Any] | None", envelope.reply_to)
            method = None
            if type(message) is ProxyCall and len(message.attr_path) == 1:
                method = getattr(self, message.attr_path[0], None)
                batch_size = getattr(method, BATCH_ATTRIBUTE, 0)
                if batch_size:
                    await self._handle_batch(cast("Any", method), batch_size, delivery)
                    continue
            elif isinstance(message, _ActorStop):
                return reply
            elif isinstance(message, _TaskFailed):
                raise message.error
            if reply is not None and not reply.begin():
                continue
            self._owed = reply
            try:
                result = context.run(self._receive, message, method, reply)
                if type(result) is CoroutineType:
                    result = await step_in(context, result)
                elif inspect.isawaitable(result) and not isinstance(result, pykka.Future):
                    result = await result
            except Exception as error:
                if reply is None:
                    raise
                self._owed = None
                logger.debug("%s answers with %r", self, error)
                reply.set_error(error)
            except asyncio.CancelledError as error:
                assert self._main is not None
                if self._main.cancelling():
                    raise
                # Something that the handler awaited was cancelled, not this actor.
                failure = RuntimeError("the work was cancelled from inside")
                failure.__cause__ = error
                if reply is None:
                    raise failure from error
                self._owed = None
                reply.set_error(failure)
            else:
                self._owed = None
                if reply is not None:
                    reply.set(result)

    def _receive(self, message: Any, method: Callable[..., Any] | None, reply: LoopFuture[Any] | None) -> Any:
        # A told message keeps nobody waiting, so a chain of asks starts anew with it.
        asking.set((*asking.get(), self.actor_urn) if reply is not None else (self.actor_urn,))
        if method is not None:
            return method(*message.args, **message.kwargs)
        return self._handle_receive(message)

    async def _handle_batch(self, method: Callable[[Any], Any], size: int, first: Delivery) -> None:
        name = first.envelope.message.attr_path
        deliveries = [first]
        inbox = self.actor_inbox
        while len(deliveries) < size:
            head = inbox.peek()
            if head is None or type(head.envelope.message) is not ProxyCall:
                break
            if head.envelope.message.attr_path != name:
                break
            deliveries.append(inbox.take())
        calls: list[Call[Any, Any]] = []
        owed: list[LoopFuture[Any]] = []
        for envelope, context in deliveries:
            reply = cast("LoopFuture[Any] | None", envelope.reply_to)
            if reply is not None:
                if not reply.begin():
                    continue
                owed.append(reply)
            message: ProxyCall = envelope.message
            request = message.args[0] if message.args else next(iter(message.kwargs.values()))
            calls.append(Call(request, reply, context))
        if not calls:
            return
        self._owed = owed
        context = calls[0].context
        context.run(asking.set, (self.actor_urn,))
        failure: Exception | None = None
        try:
            await step_in(context, method(calls))
        except Exception as error:  # noqa: BLE001  # it goes to the askers
            failure = error
        except asyncio.CancelledError:
            assert self._main is not None
            if self._main.cancelling():
                raise
            failure = RuntimeError("the work was cancelled from inside")
        self._owed = None
        for reply in owed:
            if not reply.settled:
                reply.set_error(failure or RuntimeError(f"{name[0]} left a call unanswered"))
        if failure is not None and not owed:
            raise failure

    async def _stop_orderly(self, stop: LoopFuture[Any] | None) -> None:
        self._close()
        try:
            await _hook(self.on_stop)
            self._exit = Exit(Ending.STOPPED)
        except asyncio.CancelledError as error:
            self._exit = Exit(Ending.CANCELLED, error)
        except BaseException as error:
            logger.exception("%s: on_stop failed", self)
            self._exit = Exit(Ending.FAILED, error)
        finally:
            await self._end_spawned()
            if stop is not None and not stop.settled:
                stop.set(None)

    async def _fail(self, ending: Ending, error: BaseException) -> None:
        self._exit = Exit(ending, error)
        self._close()
        if ending is Ending.FAILED:
            logger.error("%s failed", self, exc_info=error)
        try:
            await _hook(self.on_failure, type(error), error, error.__traceback__)
        except BaseException:
            logger.exception("%s: on_failure failed", self)
        finally:
            await self._end_spawned()

    def _close(self) -> None:
        """Take no more messages, and answer those that will not be handled."""
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        owed, self._owed = self._owed, None
        for reply in owed if isinstance(owed, list) else [owed] if owed else []:
            if not reply.settled:
                reply.set_error(ActorDied(f"{self} ended while at work on this message"))
        for envelope, _context in self.actor_inbox.close():
            reply_to = cast("LoopFuture[Any] | None", envelope.reply_to)
            if reply_to is None or reply_to.settled:
                continue
            if isinstance(envelope.message, _ActorStop):
                reply_to.set(None)
            else:
                reply_to.set_error(ActorDown(f"{self} ended before it came to this message"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._close()
        for spawned in self._spawned or ():
            spawned.cancel()
        exit_ = self._exit
        if exit_ is None:
            error = None if task.cancelled() else task.exception()
            exit_ = Exit(Ending.FAILED if error else Ending.CANCELLED, error)
        ref = self.actor_ref
        if not ref.started.settled:
            ref.started.set_error(exit_.error or ActorDown(f"{self} was cancelled before it started"))
        if not ref.exited.settled:
            ref.exited.set(exit_)

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        if self._spawned is not None:
            self._spawned.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        try:
            self.actor_ref.tell(_TaskFailed(error))
        except ActorDown:
            logger.error("%s: its task failed after its end", self, exc_info=error)  # noqa: TRY400  # not in a handler

    async def _end_spawned(self) -> None:
        tasks = list(self._spawned or ())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _hook(hook: Callable[..., Awaitable[None] | None], *args: Any) -> None:
    result = hook(*args)
    if inspect.isawaitable(result):
        await result


def message_for(method: Callable[Concatenate[Any, P], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProxyCall:
    """Give Pykka's message for calling this method of an actor."""
    return ProxyCall((method.__name__,), args, kwargs)
