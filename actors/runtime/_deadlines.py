"""Deadlines of many asks that all have the same time: one timer, for the oldest of them."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, TypeVar

from actors.runtime._future import LoopFuture

W = TypeVar("W")


class Deadlines(Generic[W]):
    """`expire(what)` is called for each reply that is not settled at its deadline. On one loop's thread.

    Nearly every ask is answered long before: a timer for each, made and cancelled, would cost as much as the ask's message.
    """

    __slots__ = ("_expire", "_loop", "_timer", "_waiting")

    def __init__(self, expire: Callable[[W], None]) -> None:
        self._expire = expire
        # In the order of their deadlines, since all of them have the same time from when they were added.
        self._waiting: deque[tuple[float, LoopFuture[Any], W]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, loop: asyncio.AbstractEventLoop, deadline: float, reply: LoopFuture[Any], what: W) -> None:
        """Watch this reply, too. No earlier deadline may come after a later one."""
        if loop is not self._loop:
            # The loop before has ended, and its timer and replies with it.
            self._loop, self._timer = loop, None
            self._waiting = None
        waiting = self._waiting
        if waiting is None:
            # Not before: there are handles that nobody asks, one for each worker.
            waiting = self._waiting = deque()
        while waiting and waiting[0][1].settled:
            waiting.popleft()
        waiting.append((deadline, reply, what))
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._due, context=Context())

    def forget(self, reply: LoopFuture[Any]) -> None:
        """Watch this reply no more. Nothing of it is kept."""
        waiting = self._waiting
        if waiting and waiting[-1][1] is reply:
            waiting.pop()
        elif waiting and not reply.settled:
            # Its asker was cancelled while others wait: rare, and it must not be withdrawn later.
            self._waiting = deque(each for each in waiting if each[1] is not reply)

    def _due(self) -> None:
        self._timer = None
        assert self._loop is not None
        now = self._loop.time()
        waiting = self._waiting
        while waiting:
            deadline, reply, what = waiting[0]
            if not reply.settled:
                if deadline > now:
                    self._timer = self._loop.call_at(deadline, self._due, context=Context())
                    return
                self._expire(what)
            waiting.popleft()
