"""Calling a worker's callback: sync or async, bounded in time, its answer understood."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

_CANCEL_GRACE_S = 1.0

_log = logging.getLogger(__name__)


class RestartRequired(Exception):
    """A callback's answer: taken over, but these keys count only after a restart. May be returned or raised."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(sorted(set(keys)))
        super().__init__(f"restart required for {', '.join(self.keys)}")


class CallbackFailed(Exception):
    """A callback raised, took too long or was cancelled; what was in force before still is."""


ValueT = TypeVar("ValueT")
Callback: TypeAlias = Callable[[ValueT], Awaitable[RestartRequired | None] | RestartRequired | None]


async def call(callback: Callable[[Any], Any], value: object, timeout_s: float) -> tuple[str, ...]:
    """Call back and give the keys that wait for a restart.

    An async callback runs in a task of its own: its being cancelled, or a timeout inside it, must not be taken for
    the caller's. A sync one runs on the event loop and cannot be interrupted; it is held to the same bound after
    the fact.

    Raises:
        CallbackFailed: the message has the error's type and text.
    """
    began = time.monotonic()
    try:
        answer = callback(value)
        if inspect.isawaitable(answer):
            answer = await _bounded(answer, timeout_s)
    except RestartRequired as required:
        answer = required
    except CallbackFailed:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a worker's code raises is reported, never ours to die of
        _log.debug("callback failed", exc_info=True)
        raise CallbackFailed(f"{type(error).__name__}: {error}") from None
    if time.monotonic() - began > timeout_s:
        raise CallbackFailed(f"the callback took longer than {timeout_s:g} s")
    return answer.keys if isinstance(answer, RestartRequired) else ()


async def _bounded(answer: Awaitable[Any], timeout_s: float) -> Any:
    async def run() -> Any:
        return await answer

    task = asyncio.create_task(run())
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_GRACE_S)
        raise
    if not done:
        task.cancel()
        # One that ignores its cancellation is left to itself: the next update must not wait for it.
        await asyncio.wait({task}, timeout=_CANCEL_GRACE_S)
        raise CallbackFailed(f"the callback took longer than {timeout_s:g} s")
    if task.cancelled():
        raise CallbackFailed("the callback was cancelled")
    return task.result()
