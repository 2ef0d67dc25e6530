"""Methods that take several waiting messages in one go, such as a group commit."""

import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar, cast

from actors.runtime._future import LoopFuture

logger = logging.getLogger(__name__)

A = TypeVar("A")
Request = TypeVar("Request")
Reply = TypeVar("Reply")

BATCH_ATTRIBUTE = "_batch_size"


class Call(Generic[Request, Reply]):
    """One request of a batch: answer it with `reply` or `fail`; what stays unanswered fails when the method returns.

    `context` holds the sender's context variables (`call.context.run(...)`); the method itself runs in a copy of the first's.
    """

    __slots__ = ("_future", "context", "request")

    def __init__(self, request: Request, future: LoopFuture[Reply] | None, context: Context) -> None:
        self.request = request
        self.context = context
        self._future = future

    @property
    def answered(self) -> bool:
        """Whether nobody waits for an answer: it was given, the asker's deadline has passed, or it was told."""
        return self._future is None or self._future.settled

    def reply(self, value: Reply) -> None:
        """Answer, once. A call that was told and not asked has nobody to answer."""
        if self._future is not None:
            self._future.set(value)

    def fail(self, error: Exception) -> None:
        """Answer with an error, once. Where it was told and not asked, the log is told."""
        if self._future is not None:
            self._future.set_error(error)
        else:
            logger.error("a told call of a batch failed", exc_info=error)


class _Batched(Protocol):
    def __call__(
        self, method: Callable[[A, Sequence[Call[Request, Reply]]], Coroutine[Any, Any, None]], /
    ) -> Callable[[A, Request], Coroutine[Any, Any, Reply]]: ...


def batched(*, max_size: int) -> _Batched:
    """Have an `async def` method called with all requests for it that wait at the mailbox's head, up to `max_size`.

    For its callers it is a method of one request that returns one reply. Order among all messages is kept. An exception goes
    to every asker not answered yet; where one of the calls was told, it ends the actor besides.
    """
    if max_size < 1:
        raise ValueError(f"max_size is {max_size}; a batch has at least one call")

    def mark(method: Any) -> Any:
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"{method.__qualname__} must be `async def` to take batches")
        setattr(method, BATCH_ATTRIBUTE, max_size)
        return method

    return cast("_Batched", mark)
