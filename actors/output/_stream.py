"""One descriptor of a worker: read whatever comes, at once; keep what there is time for, count the rest."""

import asyncio
import contextlib
import fcntl
import math
import os
import struct
import termios
import time
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

from actors.output._lines import Lines
from actors.output._record import StreamName
from actors.output._settings import BURST, EAGER, LARGE_PIPE, LINE_COST, RATE, READ_A_GO, REST, RESUME, TAIL
from actors.output._turns import Turns


class Chunk(NamedTuple):
    """Bytes that were read. In front of them `dropped` bytes are missing."""

    stream: "Stream"
    data: bytes
    counted: int
    """How many of them count as waiting."""
    dropped: int = 0
    mid_line: bool = False
    """What follows the gap begins in the middle of a line."""
    time: str = ""
    """When it was read, where that was not by us."""


class Stream:
    """Reads a descriptor until its end, whatever happens to what was read: the worker never waits for anything else.

    A chunk is handed to `on_chunk` as long as the stream keeps to `BURST` and `RATE`, and fewer than `BURST` bytes wait
    there (`done` says when they do no longer). What is beyond is dropped, but for the last `TAIL` bytes, until there is
    room again. An empty chunk tells the end. A flood that goes on for longer than `EAGER` is read with rests, so a worker
    that prints without end does not get all of the loop's time.
    """

    def __init__(
        self,
        name: StreamName,
        descriptor: int,
        *,
        turns: Turns,
        buffer: bytearray,
        on_chunk: Callable[[Chunk], None],
        resumed: bool,
    ) -> None:
        """Begin to read. With `resumed` the first byte may stand in the middle of a line."""
        self.name = name
        self.lines = Lines(cut_before=resumed)
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._turns = turns
        self._buffer = buffer
        self._on_chunk = on_chunk
        self._waiting = 0
        self._allowance = float(BURST)
        self._allowed_at = time.monotonic()
        self._dropping = False
        self._dropped = 0
        self._tail = b""
        self._flooding_since = self._flooded_at = -math.inf
        self._again: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._grown = False
        os.set_blocking(descriptor, False)
        self._listen()

    @property
    def open(self) -> bool:
        return self._descriptor >= 0

    def done(self, chunk: Chunk) -> None:
        """A chunk does not wait any longer."""
        self._waiting -= chunk.counted

    def push(self, data: bytes, *, time: str, dropped: int = 0) -> None:
        """Hand over what somebody else has read before us, and how much is missing in front of it."""
        # It is there already, so it does not count against what may be read.
        self._on_chunk(Chunk(self, data, 0, dropped, mid_line=dropped > 0, time=time))

    def finish(self, *, drain: bool) -> None:
        """End what is being dropped, and close; with `drain`, take first what is in the pipe now."""
        if not self.open:
            return
        # A process outside the worker's tree may hold the pipe and write on: not more than what is there now.
        left = _readable(self._descriptor) if drain else 0
        while left > 0 and (got := self._take()) > 0:
            left -= got
        self._close()

    def _listen(self) -> None:
        self._rest = None
        # What the reader registers in turn is registered in this context, too.
        Context().run(self._loop.add_reader, self._descriptor, self._read)

    def _read(self) -> None:
        got = 0
        while got < READ_A_GO:
            size = self._take()
            if size < 0:
                self._close()
                return
            got += size
            if size < len(self._buffer):
                break
        now = time.monotonic()
        if now - self._flooding_since > EAGER and now - self._flooded_at < EAGER:
            self._take_a_rest()

    def _take(self) -> int:
        """Read once; how many bytes, 0 where there are none at present, -1 at the end."""
        try:
            size = os.readv(self._descriptor, [self._buffer])
        except BlockingIOError:
            return 0
        except OSError:
            return -1
        if not size:
            return -1
        if not self._dropping:
            if self._waiting + size <= BURST and self._allowed(0):
                self._give(bytes(memoryview(self._buffer)[:size]))
                return size
            self._begin_dropping()
        self._drop(size)
        return size

    def _give(self, data: bytes, *, dropped: int = 0, mid_line: bool = False) -> None:
        # A debt has its bound, too: who prints blank lines is heard again soon.
        self._allowance = max(-float(BURST), self._allowance - len(data) - LINE_COST * data.count(b"\n"))
        self._waiting += len(data)
        self._on_chunk(Chunk(self, data, len(data), dropped, mid_line))

    def _allowed(self, more_than: float) -> bool:
        now = time.monotonic()
        self._allowance = min(float(BURST), self._allowance + (now - self._allowed_at) * RATE)
        self._allowed_at = now
        return self._allowance > more_than

    def _begin_dropping(self) -> None:
        self._dropping = True
        self._turns.floods += 1
        now = time.monotonic()
        if now - self._flooded_at > EAGER:
            self._flooding_since = now
        self._try_later()

    def _drop(self, size: int) -> None:
        self._flooded_at = time.monotonic()
        self._dropped += size
        self._tail = (self._tail + bytes(memoryview(self._buffer)[max(0, size - TAIL) : size]))[-TAIL:]

    def _try_later(self) -> None:
        delay = max(0.01, (RESUME - self._allowance) / RATE)
        self._again = self._loop.call_later(delay, self._try, context=Context())

    def _try(self) -> None:
        if self._waiting <= BURST // 2 and self._allowed(RESUME):
            self._end_dropping()
        else:
            self._try_later()

    def _end_dropping(self) -> None:
        """Go on with the tail of what was dropped, from its first line on."""
        if not self._dropping:
            return
        assert self._again is not None
        self._again.cancel()
        self._dropping = False
        self._turns.floods -= 1
        end = self._tail.find(b"\n") + 1
        kept = self._tail[end:]
        self._give(kept, dropped=self._dropped - len(kept), mid_line=not end)
        self._dropped = 0
        self._tail = b""

    def _take_a_rest(self) -> None:
        if not self._grown:
            # So that the worker need not rest as well. Not granted to everybody (pipe(7), pipe-user-pages-soft).
            self._grown = True
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, LARGE_PIPE)
        self._loop.remove_reader(self._descriptor)
        self._rest = self._loop.call_later(REST, self._listen, context=Context())

    def _close(self) -> None:
        self._end_dropping()
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._give(b"")


def _readable(descriptor: int) -> int:
    """Bytes that wait in a pipe (ioctl_tty(2), FIONREAD)."""
    (size,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(size)
