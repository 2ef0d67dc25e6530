"""The HTTP server: uvicorn's protocol on httptools, in our loop, on sockets that others bound.

Of uvicorn only the protocol and its configuration are used, not its `Server`: that one takes the signals over, ends the
process through the loop where it cannot listen, and polls at its end.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from email.utils import formatdate

from uvicorn.config import Config
from uvicorn.server import ServerState

from api._connection import Connection
from api.door import Door
from api.state import Limits

_TICK = 1.0
"""At most these seconds between two looks at the connections' deadlines, and at the clock for `Date`."""


class Server:
    """Serves `app` from `start` to `stop`; it can be started once."""

    def __init__(self, app: Door, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._state = ServerState()
        self._config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self._listening: list[asyncio.Server] = []
        self._ticker: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()
        self._stopping = False

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on `sockets`, which are bound already, and from now on ours to close.

        Raises:
            OSError: one of them cannot be listened on; then none is.
        """
        assert self._ticker is None, "started already"
        loop = asyncio.get_running_loop()
        self._config.load()
        self._set_date()
        try:
            for each in sockets:
                self._listening.append(await loop.create_server(lambda: self._connection(loop), sock=each, backlog=512))
        except BaseException:
            for server in self._listening:
                server.close()
            for each in sockets:
                each.close()
            raise
        self._ticker = loop.create_task(self._tick(), name="http ticker")

    async def stop(self, grace: float) -> None:
        """Accept no more, end streams, let requests that are under way finish for up to `grace` seconds, and close.

        What is not done by then is cancelled, and its client sees the connection end. The same holds where this call
        is cancelled. Afterwards there is no connection and no task left.
        """
        loop = asyncio.get_running_loop()
        self._stopping = True
        for server in self._listening:
            for each in server.sockets:
                loop.remove_reader(each.fileno())
        # asyncio drops what it has accepted and not made a connection of when its server closes: two turns make it one.
        for _ in range(2):
            await asyncio.sleep(0)
        for server in self._listening:
            server.close()
        for connection in self._connections():
            connection.shutdown()
        self._app.end_streams()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._finished()
        finally:
            if self._ticker is not None:
                self._ticker.cancel()
            tasks = [*self._state.tasks, *([self._ticker] if self._ticker is not None else [])]
            for task in tasks:
                task.cancel()
            for connection in self._connections():
                connection.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._until_quiet()

    async def _finished(self) -> None:
        # A connection that has several requests waiting starts the next one at the end of the one before.
        while self._state.tasks:
            await asyncio.wait(set(self._state.tasks))
            await asyncio.sleep(0)
        await self._until_quiet()

    async def _until_quiet(self) -> None:
        while self._state.connections:
            self._quiet.clear()
            await self._quiet.wait()

    def _connections(self) -> list[Connection]:
        return [each for each in self._state.connections if isinstance(each, Connection)]

    def _connection(self, loop: asyncio.AbstractEventLoop) -> Connection:
        return Connection(
            self._config,
            self._state,
            {},
            loop,
            door=self._app,
            limits=self._limits,
            lost=self._quiet.set,
            stopping=lambda: self._stopping,
        )

    def _set_date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        limits = self._limits
        pause = min(_TICK, limits.head_seconds, limits.keep_alive_seconds, limits.drain_seconds, limits.write_seconds)
        while True:
            await asyncio.sleep(pause)
            self._set_date()
            now = loop.time()
            for connection in self._connections():
                connection.enforce(now)
