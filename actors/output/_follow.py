"""A reader that follows a service's output along."""

from collections.abc import Callable
from typing import Self

from actors.output._ring import Ring


class Follower:
    """An async iterator over records as lines of JSON with their ends; ends when the output is closed.

    One who does not keep up with what is kept in memory loses lines, and reads in their place how many those were.
    Holds nothing that would have to be given back. A cancelled `anext` loses nothing. Used by one task.
    """

    def __init__(self, ring: Ring[bytes], number: int, notice: Callable[[int], bytes]) -> None:
        """Begin with that item of the ring; `notice` gives the line that tells of lost ones."""
        self._ring = ring
        self._number = number
        self._notice = notice

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not await self._ring.wait(self._number):
            raise StopAsyncIteration
        if (lost := self._ring.first - self._number) > 0:
            self._number = self._ring.first
            return self._notice(lost)
        line = self._ring[self._number]
        self._number += 1
        return line
