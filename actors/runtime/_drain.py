"""How a mailbox is drained: one message at a time, in its sender's context, in slices of time."""

import asyncio
import inspect
import logging
import time
from contextvars import Context
from types import CoroutineType
from typing import Any, cast

import pykka
from pykka.messages import ProxyCall, _ActorStop

from actors.runtime._batch import BATCH_ATTRIBUTE, Call
from actors.runtime._future import LoopFuture
from actors.runtime._inbox import Delivery, Inbox
from actors.runtime._ref import asking
from actors.runtime._step import step_in

logger = logging.getLogger(__name__)

TIME_SLICE = 0.002
"""Seconds of draining after which the loop gets its turn."""


async def drain(actor: pykka.Actor, inbox: Inbox, owed: list[LoopFuture[Any]]) -> LoopFuture[Any] | None:
    """Handle messages until one says stop; give the reply that the stop's sender waits for.

    `owed` holds the replies of what is being handled. If the drain is left in the middle of it, they are still there, for the
    caller to answer.

    Raises whatever ends the actor: the error of a told message, or the `CancelledError` of its own task.
    """
    task = asyncio.current_task()
    assert task is not None
    clock = time.monotonic
    slice_end = clock() + TIME_SLICE
    while True:
        if task.cancelling():
            raise asyncio.CancelledError  # a handler has swallowed it
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
        if type(message) is ProxyCall:
            size = getattr(getattr(type(actor), message.attr_path[0], None), BATCH_ATTRIBUTE, 0)
            if size and _is_request(message):
                await _handle_batch(actor, _take_batch(inbox, delivery, size), owed)
                del delivery, envelope, context, message, reply
                continue
        elif isinstance(message, _ActorStop):
            return reply
        if reply is not None:
            if not reply.begin():
                continue
            owed.append(reply)
        try:
            result = context.run(_receive, actor, message, reply is not None)
            if type(result) is CoroutineType:
                result = await step_in(context, result)
            elif inspect.isawaitable(result) and not isinstance(result, pykka.Future):
                result = await result
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            owed.clear()
            _settle(reply, _cancelled_inside(error))
        except Exception as error:
            if reply is None:
                raise
            owed.clear()
            logger.debug("%s answers with %r", actor, error)
            reply.set_error(error)
        else:
            owed.clear()
            if reply is not None:
                reply.set(result)
            del result
        # An idle actor keeps nothing of its last message alive.
        del delivery, envelope, context, message, reply


def _receive(actor: pykka.Actor, message: Any, asked: bool) -> Any:
    # A told message keeps nobody waiting, so a chain of asks starts anew with it.
    asking.set((*asking.get(), actor.actor_urn) if asked else (actor.actor_urn,))
    if type(message) is ProxyCall and len(message.attr_path) == 1:
        return getattr(actor, message.attr_path[0])(*message.args, **message.kwargs)
    return actor._handle_receive(message)  # noqa: SLF001  # Pykka's, for implementors


def _settle(reply: LoopFuture[Any] | None, error: Exception) -> None:
    """Give the error to the asker, or let it end the actor where nobody asked."""
    if reply is None:
        raise error
    reply.set_error(error)


def _cancelled_inside(error: asyncio.CancelledError) -> RuntimeError:
    """Something that the handler awaited was cancelled, not this actor; nobody else may take it for their own cancellation."""
    failure = RuntimeError("the work was cancelled from inside")
    failure.__cause__ = error
    return failure


def _is_request(message: ProxyCall) -> bool:
    """Whether it calls a method with one argument. Anything else is called as it stands: a `TypeError` for its sender."""
    return len(message.attr_path) == 1 and len(message.args) + len(message.kwargs) == 1


def _take_batch(inbox: Inbox, first: Delivery, size: int) -> list[Delivery]:
    """Take what stands behind `first` and calls the same method."""
    path = first.envelope.message.attr_path
    batch = [first]
    while len(batch) < size:
        head = inbox.peek()
        message = head.envelope.message if head is not None else None
        if type(message) is not ProxyCall or message.attr_path != path or not _is_request(message):
            break
        batch.append(inbox.take())
    return batch


async def _handle_batch(actor: pykka.Actor, batch: list[Delivery], owed: list[LoopFuture[Any]]) -> None:
    name: str = batch[0].envelope.message.attr_path[0]
    calls: list[Call[Any, Any]] = []
    waiting: dict[str, None] = {}
    for envelope, context in batch:
        reply = cast("LoopFuture[Any] | None", envelope.reply_to)
        if reply is not None and not reply.begin():
            continue
        if reply is not None:
            owed.append(reply)
            chain: tuple[str, ...] = context.get(asking, ())
            waiting.update(dict.fromkeys(chain))
        message: ProxyCall = envelope.message
        (request,) = (*message.args, *message.kwargs.values())
        calls.append(Call(request, reply, context))
    if not calls:
        return
    # A copy: the method may run something in the first call's own context, which cannot be entered twice.
    context = calls[0].context.copy()
    context.run(asking.set, (*waiting, actor.actor_urn))
    failure = await _run_batch(context, getattr(actor, name), calls)
    told = len(owed) < len(calls)
    for reply in owed:
        if not reply.settled:
            reply.set_error(failure or RuntimeError(f"{name} left a call unanswered"))
    owed.clear()
    if failure is not None and told:
        raise failure


async def _run_batch(context: Context, method: Any, calls: list[Call[Any, Any]]) -> Exception | None:
    """Call the method and give back what it raised, except what ends the actor."""
    task = asyncio.current_task()
    assert task is not None
    try:
        await step_in(context, method(calls))
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        return _cancelled_inside(error)
    except Exception as error:  # noqa: BLE001  # the askers get it
        return error
    return None
