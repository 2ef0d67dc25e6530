"""A flag that can be waited for."""

import asyncio


class Flag:
    """An `asyncio.Event` that is made when somebody waits: one takes 0.7 KiB, and each worker has some that nobody waits for."""

    __slots__ = ("_event", "_set")

    def __init__(self, *, up: bool = False) -> None:
        self._set = up
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> None:
        """Return once it has been set, be it for a moment."""
        if not self._set:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
