"""One client's connection: uvicorn's protocol with bounds on size and time, which that has none of.

Whoever sends its head or its content too slowly, does not take its answer, or sends a head without end, is refused; what
is no HTTP gets a problem detail as every other mistake does.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api._cork import Cork
from api.door import Door
from api.problems import Problem
from api.state import Limits

# Requests that may wait in one connection behind the one under way.
_MAX_PIPELINED = 16
# Bytes that may still come of a content which nobody wants, after its request was answered.
_MAX_DRAINED = 16 * 1024 * 1024
# A handler that waits for content answers 408 itself; the connection's own deadline stands behind that.
_LATER = 5.0


class Connection(HttpToolsProtocol):
    """`lost` is called when it has ended. The server calls `enforce` now and then."""

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
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._door = door
        self._limits = limits
        self._lost = lost
        self._deadline: float | None = None
        self._in_head = False
        self._in_body = False
        self._deaf = False
        self._refused = False
        self._head = 0
        self._fed = 0
        self._drained = 0
        self._waiting = 0
        self._waiting_since = 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        super().connection_made(Cork(transport, self.loop))  # type: ignore[arg-type] # it has what uvicorn uses
        self._deadline = self.loop.time() + self._limits.head_seconds
        _send_at_once(transport)
        if len(self.connections) > 2 * self._limits.connections:
            transport.abort()
        elif len(self.connections) > self._limits.connections:
            self.app = self._door.overloaded

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._lost()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._drain(len(data))
            return
        self._unset_keepalive_if_required()
        if self._deadline is None and self._idle():
            # Also for what never becomes a request, such as empty lines without end.
            self._deadline = self.loop.time() + self._limits.head_seconds
        try:
            self.parser.feed_data(data)
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
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
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
        # Where the answer came before the content had, the timer between two requests is not running any more.
        answered = self.cycle.response_complete
        self._deadline = self.loop.time() + self._limits.keep_alive_seconds if answered else None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete:
            # Closing now could take the answer away from a client that is still sending, as in `_refuse`.
            self._deadline = self.loop.time() + self._limits.drain_seconds

    # What the server calls.

    def shutdown(self) -> None:
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def enforce(self, now: float) -> None:
        """End what takes too long: sending a request, or taking an answer."""
        if self._deadline is not None and now > self._deadline:
            if self._in_head and not self._refused:
                self._refuse(
                    Problem("timeout", f"The request's head took longer than {self._limits.head_seconds:g} s.")
                )
            else:
                self.abort()
            return
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0 or waiting != self._waiting:
            self._waiting, self._waiting_since = waiting, now
        elif now - self._waiting_since > self._limits.write_seconds:
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

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > self._limits.head:
            raise _Stop

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
        self.transport.write(self._door.refusal(problem).as_bytes(self.server_state.default_headers))
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
