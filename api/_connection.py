"""One client's connection: uvicorn's protocol with bounds on size and time, which that has none of.

Whoever sends its head or its content too slowly, does not take its answer, or sends a head without end, is refused; what
is no HTTP gets a problem detail as every other mistake does.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from api._answering import Answering
from api.door import Door
from api.problems import Problem
from api.state import Limits

# Requests that may wait in one connection behind the one under way.
_MAX_PIPELINED = 16
# Bytes that may still come of a content which nobody wants, after its request was answered.
_MAX_DRAINED = 16 * 1024 * 1024
# A handler that waits for content answers 408 itself; the connection's own deadline stands behind that.
_LATER = 5.0
# Seconds that a connection without a request so far has to send one, while the server stops.
_TO_ASK = 0.25


class Connection(Answering):
    """`lost` is called when it has ended; `stopping` says whether the server stops. The server calls `enforce` now and then."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        *,
        door: Door,
        limits: Limits,
        lost: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        super().__init__(config, server_state, app_state, loop, door)
        self._limits = limits
        self._lost = lost
        self._stopping = stopping
        self._deadline: float | None = None
        self._in_head = False
        self._in_body = False
        self._deaf = False
        self._refused = False
        self._asked = False
        self._last = False
        self._head = 0
        self._fed = 0
        self._drained = 0
        self._taken = 0
        self._taken_at = 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        super().connection_made(transport)
        self._deadline = self.loop.time() + self._limits.head_seconds
        _send_at_once(transport)
        if self._stopping():
            self.shutdown()
        if len(self.connections) > 2 * self._limits.connections:
            transport.abort()
        elif len(self.connections) > self._limits.connections:
            self.app = self.door.overloaded

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._drain(len(data))
            return
        super().data_received(data)

    # What the base class calls.

    def parse(self, data: bytes) -> None:
        try:
            super().parse(data)
        except httptools.HttpParserUpgrade:
            # There is no other protocol to change to: the request has its answer, and what follows is not HTTP.
            self._deaf = True
            self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._too_large() if self._head > self._limits.head else _garbage())
        else:
            # The parser holds an unfinished field back, so that its size is not known yet.
            if self._in_head:
                self._fed += len(data)
                if self._fed > 2 * self._limits.head:
                    self._refuse(self._too_large())

    # What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head = self._fed = 0
        self._deadline = self.loop.time() + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head += len(url)
        if self._head > self._limits.head:
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        # The longest loop of a request: what the base class does for a field is done here.
        self._head += len(name) + len(value) + 4
        if self._head > self._limits.head:
            raise _Stop
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._asked = True
        if self._last:
            self.cycle.keep_alive = False
        self._in_head, self._in_body = False, True
        self._drained = 0
        self._deadline = self.loop.time() + self._limits.body_seconds + _LATER
        if len(self.pipeline) > _MAX_PIPELINED:
            self.abort()
            raise _Stop

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.cycle.response_complete:
            self._drain(len(body))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        # The answer may have come before the content had.
        self._deadline = self.loop.time() + self._limits.keep_alive_seconds if self._idle() else None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._idle() or self.transport.is_closing():
            return
        if self._in_body:
            # Closing now could take the answer away from a client that is still sending, as in `_refuse`.
            self._deadline = self.loop.time() + self._limits.drain_seconds
        elif not self._in_head:
            self._deadline = self.loop.time() + self._limits.keep_alive_seconds

    # What the server calls.

    def shutdown(self) -> None:
        """Close once nothing is under way. Whoever has just connected has a moment to ask."""
        if self._refused:
            self.transport.close()
        elif self._asked or self.transport.is_closing():
            super().shutdown()
        else:
            self._last = True
            if not self._in_head:
                self.loop.call_later(_TO_ASK, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if not self._asked and not self._in_head:
            self.transport.close()

    def enforce(self, now: float) -> None:
        """End what takes too long: sending a request, or taking an answer."""
        if self._deadline is not None and now > self._deadline:
            if self._in_head and not self._refused:
                self._refuse(
                    Problem("timeout", f"The request's head took longer than {self._limits.head_seconds:g} s.")
                )
            elif self._idle() and not self._in_body:
                # What it has not taken yet of the last answer is still sent.
                self._deadline = None
                self.transport.close()
            else:
                self.abort()
            return
        # What waits may grow meanwhile, as a stream's heartbeats do: that is nothing that the client has taken.
        taken = self._cork.taken
        if self._cork.get_write_buffer_size() == 0 or taken != self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at > self._limits.write_seconds:
            self.abort()

    def abort(self) -> None:
        """End it now; what waits to be sent is lost."""
        self._deaf = True
        self.pipeline.clear()
        if self.cycle is not None:
            # What its handler still says goes nowhere, and is no error.
            self.cycle.disconnected = True
        self.transport.abort()

    def _idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _too_large(self) -> Problem:
        return Problem("head-too-large", f"Request line and header fields are over {self._limits.head} bytes.")

    def _refuse(self, problem: Problem) -> None:
        """Answer what never became a request, or stopped being one, and close."""
        self._deaf = True
        self._deadline = None
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if not self._idle():
            if not self._in_body:
                # It comes behind a request that is sound: that one is answered, and then this connection ends.
                cycle.keep_alive = False
                return
            if cycle.response_started or self.pipeline:
                # An answer in the middle of another one would be taken for a part of it.
                self.abort()
                return
            # The content is broken: its handler is told that the client has gone.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(self.door.refusal(problem, self.date()))
        # Closing with something unread resets the connection, which can take the answer away from its reader: only our
        # half is closed, and the rest once the client's is, or it took too long (RFC 9112, section 9.6).
        self.transport.write_eof()
        self._refused = True
        self._drained = 0
        self._deadline = self.loop.time() + self._limits.drain_seconds

    def _drain(self, size: int) -> None:
        """Count what comes and nobody wants."""
        self._drained += size
        if self._drained > _MAX_DRAINED:
            self.abort()


def _send_at_once(transport: asyncio.Transport) -> None:
    """No waiting for an acknowledgement before the next packet (tcp(7), TCP_NODELAY).

    asyncio sees to that only where the listening socket was made with an explicit protocol, which
    `socket.create_server` does not do: an answer of two packets then takes 40 ms.
    """
    client = transport.get_extra_info("socket")
    if client is not None and client.family in {socket.AF_INET, socket.AF_INET6}:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Stop(Exception):
    """Stops the parser in the middle of what came."""


def _garbage() -> Problem:
    return Problem("malformed", "This is not an HTTP/1.1 request.")
