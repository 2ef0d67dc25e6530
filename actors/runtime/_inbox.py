"""The mailbox: bounded, closable, filled from any thread, emptied on the loop."""

import asyncio
import threading
from collections import deque
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from actors.runtime._future import LoopFuture, running_loop
from actors.runtime.errors import ActorDown, MailboxFull

DEFAULT_CAPACITY = 10_000


class Control:
    """A message of the runtime itself: passes a full mailbox."""

    __slots__ = ()


class Delivery(NamedTuple):
    """An envelope with the context of whoever sent it."""

    envelope: Envelope[Any]
    context: Context


class Inbox:
    """Pykka's inbox on the loop.

    `put` may be called from any thread; everything else belongs to the loop's. Once closed it refuses every message, so that
    no reply can be lost between the last look into the mailbox and the actor's end.
    """

    __slots__ = ("_closed", "_deliveries", "_lock", "_loop", "_waiter", "capacity", "has_withdrawn", "owner")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self.owner = "the actor"
        # Set when an asker took a waiting message back: it makes room when room is needed, not before.
        self.has_withdrawn = False
        self._deliveries: deque[Delivery] = deque()
        # Makes "not closed, not full, append" one step against a close, and against puts from other threads.
        self._lock = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say whose loop empties it. Messages that came before stay."""
        self._loop = loop

    def put(self, envelope: Envelope[Any], /, *, urgent: bool = False) -> None:
        """Add a message, together with the sender's context variables.

        Raises:
            ActorDown: the actor has ended, or is about to.
            MailboxFull: `capacity` messages are waiting. Urgent and control messages pass all the same.
        """
        delivery = Delivery(envelope, copy_context())
        with self._lock:
            if self._closed:
                raise ActorDown(f"{self.owner} has ended and takes no more messages")
            if (
                len(self._deliveries) >= self.capacity
                and not urgent
                and not isinstance(envelope.message, (Control, _ActorStop))
                and not self._make_room()
            ):
                raise MailboxFull(f"{self.capacity} messages are waiting for {self.owner} already")
            self._deliveries.append(delivery)
        if self._waiter is not None:
            if running_loop() is self._loop:
                self._wake()
            elif self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake)

    def get(self) -> Envelope[Any]:
        """Take the oldest message's envelope; Pykka's signature. `IndexError` when empty."""
        return self._deliveries.popleft().envelope

    def empty(self) -> bool:
        return not self._deliveries

    def take(self) -> Delivery:
        """Take the oldest message. `IndexError` when empty."""
        return self._deliveries.popleft()

    def peek(self) -> Delivery | None:
        """Show the oldest message and leave it."""
        return self._deliveries[0] if self._deliveries else None

    async def wait(self) -> None:
        """Return once there is a message."""
        assert self._loop is not None
        while not self._deliveries:
            waiter = self._loop.create_future()
            self._waiter = waiter
            # A thread may have put one between the look and the waiter; it saw no waiter, so look again.
            if self._deliveries:
                self._waiter = None
                return
            try:
                await waiter
            finally:
                self._waiter = None

    def close(self) -> list[Delivery]:
        """Refuse all further messages and give back those that were waiting."""
        with self._lock:
            self._closed = True
            left = list(self._deliveries)
            self._deliveries.clear()
        return left

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _make_room(self) -> bool:
        """Drop what was withdrawn; true if there is room now. With the lock held."""
        # The drain takes without the lock, so only its own thread may exchange the messages under it.
        if not self.has_withdrawn or running_loop() is not self._loop:
            return False
        self.has_withdrawn = False
        kept = deque(each for each in self._deliveries if not _withdrawn(each))
        self._deliveries = kept
        return len(kept) < self.capacity


def _withdrawn(delivery: Delivery) -> bool:
    reply = delivery.envelope.reply_to
    return isinstance(reply, LoopFuture) and reply.withdrawn
