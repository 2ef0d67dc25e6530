"""Methods that take several waiting messages in one go, such as a group commit."""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar, cast

from actors.runtime._future import LoopFuture

A = TypeVar("A")
Request = TypeVar("Request")
Reply = TypeVar("Reply")

BATCH_ATTRIBUTE = "_batch_size"


class Call(Generic[Request, Reply]):
    """One request of a batch: answer it with `reply` or `fail`; what stays unanswered fails when the method returns.

    `context` holds the sender's context variables (`call.context.run(...)`); the method itself runs in those of the first.
    """

    __slots__ = ("_future", "context", "request")

    def __init__(self, request: Request, future: LoopFuture[Reply] | None, context: Context) -> None:
        self.request = request
        self.context = context
        self._future = future

    @property
    def answered(self) -> bool:
        return self._future is None or self._future.settled

    def reply(self, value: Reply) -> None:
        """Answer, once. A call that was told and not asked has nobody to answer."""
        if self._future is not None:
            self._future.set(value)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, once."""
        if self._future is not None:
            self._future.set_error(error)


class _Batched(Protocol):
    def __call__(
        self, method: Callable[[A, Sequence[Call[Request, Reply]]], Awaitable[None]], /
    ) -> Callable[[A, Request], Awaitable[Reply]]: ...


def batched(*, max_size: int) -> _Batched:
    """Have a method called with all requests for it that wait at the mailbox's head, up to `max_size`.

    For its callers it is a method of one request that returns one reply. Order among all messages is kept.
    """

    def mark(method: Any) -> Any:
        setattr(method, BATCH_ATTRIBUTE, max_size)
        return method

    return cast("_Batched", mark)
