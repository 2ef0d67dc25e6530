"""How requests begin and are answered: uvicorn's protocol, with the shortest way for what the door knows.

A request begins when the parser has told all that came in one piece. A read is answered there and then, on the stack of
`data_received`; every other request gets a task, by uvicorn's hand. The answers of calls that the door knows are sent as they
are, beside ASGI.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api._cork import Cork
from api.bodies import WHOLE_CONTENT
from api.door import Door, Sent, SentInTime
from api.responses import CLOSING, Finished, header_lines


class Answering(HttpToolsProtocol):
    """Has no bounds of its own."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.door = door
        # The request that begins when what came is parsed; only `data_received` waits for one.
        self._parsing = False
        self._next: tuple[RequestResponseCycle, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        self._cork = Cork(transport, self.loop)
        super().connection_made(self._cork)  # type: ignore[arg-type] # it has what uvicorn uses

    def data_received(self, data: bytes) -> None:
        self._parsing = True
        self.parse(data)
        while self._next is not None:
            (cycle, app), self._next = self._next, None
            self._begin(cycle, app)
        self._parsing = False

    def parse(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_response_complete(self) -> None:
        """As in the base class, but without a timer for each pause between two requests."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def date(self) -> bytes:
        """The lines of the header fields that every answer begins with."""
        return header_lines(self.server_state.default_headers)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._parsing:
            self._next = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer the request at once, or start its task."""
        if app is self.door:
            scope: Any = cycle.scope
            # A client that takes nothing has to be waited for, and one that has gone is still a line of the log.
            gone = cycle.disconnected or self.transport.is_closing()
            if not gone and not self.flow.write_paused and self.door.at_once(scope, self._sent(cycle)):
                return
            if not cycle.more_body:
                scope["extensions"] = {WHOLE_CONTENT: cycle.body}
            app = self.door.change(scope, self._sent_in_time(cycle)) or app
        super()._start_asgi_task(cycle, app)

    def _sent(self, cycle: RequestResponseCycle) -> Sent:
        return lambda answer, lines: self._send(cycle, self._cork.write_now, answer, lines)

    def _sent_in_time(self, cycle: RequestResponseCycle) -> SentInTime:
        async def send(answer: Finished, lines: bytes) -> None:
            if self.flow.write_paused and not cycle.disconnected:
                await self.flow.drain()
            if not cycle.disconnected:
                self._send(cycle, self._cork.write, answer, lines)

        return send

    def _send(
        self, cycle: RequestResponseCycle, write: Callable[[bytes], None], answer: Finished, lines: bytes
    ) -> None:
        """The whole of a request's answer; `lines` of header fields come behind its own."""
        cycle.response_started = True
        if answer.closes:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            lines += CLOSING
        write(answer.as_bytes(self.date(), lines, content=cycle.scope["method"] != "HEAD"))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
