"""A transport that puts an answer's head and body into one packet."""

import asyncio
from typing import Any

_LIMIT = 64 * 1024


class Cork:
    """Sends what is written in one turn of the loop at once; everything else is the `transport`'s."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0
        self._passed_on = 0

    @property
    def taken(self) -> int:
        """Bytes that the client, or the kernel for it, has taken so far."""
        waiting: int = self._transport.get_write_buffer_size()
        return self._passed_on - waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            # Behind what the turn has still to do: sending as soon as the answer is complete took longer in all.
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _LIMIT:
            # The transport has to know, so that it can tell the writer to wait.
            self._flush()

    def write_now(self, data: bytes) -> None:
        """Send `data`, and what was written before it."""
        self._flush()
        self._passed_on += len(data)
        self._transport.write(data)

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._passed_on += self._size
            self._size = 0
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()
