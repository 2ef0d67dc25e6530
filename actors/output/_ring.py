"""The last items of something, and readers that follow it without a queue of their own."""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Ring(Generic[T]):
    """The last `count` items within `size` bytes, numbered from 0. All on the loop's thread.

    A reader remembers the number it wants next: one that is slow costs nothing, and sees by `first` what it has missed.
    """

    def __init__(self, count: int, size: int, size_of: Callable[[T], int]) -> None:
        self._count = count
        self._most = size
        self._size_of = size_of
        self._size = 0
        self._items: dict[int, T] = {}
        self._news: asyncio.Event | None = None
        self.first = 0
        """Number of the oldest item that is here; that of the next one where there is none."""
        self.next = 0
        """Number of the next item to come."""
        self.ended = False

    def configure(self, count: int, size: int) -> None:
        """Keep as many from now on."""
        self._count, self._most = count, size
        self._shrink()

    def __getitem__(self, number: int) -> T:
        return self._items[number]

    def add(self, item: T) -> None:
        self._items[self.next] = item
        self.next += 1
        self._size += self._size_of(item)
        self._shrink()
        self._wake()

    def _shrink(self) -> None:
        # The newest stays, however large it is.
        while len(self._items) > self._count or (self._size > self._most and len(self._items) > 1):
            self._size -= self._size_of(self._items.pop(self.first))
            self.first += 1

    def last(self, count: int | None = None) -> list[T]:
        """Give the last `count` items, or all, the oldest first."""
        skipped = 0 if count is None else max(0, len(self._items) - max(0, count))
        return list(islice(self._items.values(), skipped, None))

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._wake()

    async def wait(self, number: int) -> bool:
        """Wait until item `number` has come; False where it never will. Cancelling it loses nothing."""
        while number >= self.next:
            if self.ended:
                return False
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
        return True

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None
