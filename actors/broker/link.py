"""One client's connection: whole packets in, bounded and coalesced bytes out, and a watch over its silence."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast

from amqtt.adapters import ReaderAdapter, WriterAdapter

from actors.broker.packets import Connect, Framer, Kind, ProtocolError
from actors.broker.rules import Principal
from actors.broker.settings import Account, Limits
from actors.broker.websocket import WebSocket

_HIGH_WATER = 256 * 1024
_CLOSE_SECONDS = 1.0
_SLICE = 64
"""Packets after which others get their turn."""

Work = Coroutine[Any, Any, None]


class Outbox:
    """The links that have something to send, and the buffer that all of them read into.

    What one read brought in is worked through, and leaves, in one write for each receiver, without another turn of
    the loop.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(64 * 1024))
        self.reading = False
        """Somebody works through what was read, and will flush."""
        self._links: list[Link] = []

    def add(self, link: "Link") -> None:
        if not self._links and not self.reading:
            asyncio.get_running_loop().call_soon(self.flush)
        self._links.append(link)

    def flush(self) -> None:
        links, self._links = self._links, []
        for link in links:
            link.flush()


class Link(asyncio.BufferedProtocol, ReaderAdapter, WriterAdapter):
    """A connection from its first byte to its last; for amqtt, its reader and writer.

    The gate reads CONNECT (`first_packet`) and fills in who speaks (`admit`) before it hands the link to amqtt. Then
    packets are handled as they are read (`serve`), in the loop's callback. Writing never waits.
    """

    account: Account
    connect: Connect
    session_id: str
    """Key of the client's session: its user and its client id, so that users cannot meet each other's."""
    clean: bool
    said_goodbye = False
    """It sent DISCONNECT: its last will is void."""
    reason = "closed by the client"
    """Why the connection ended."""

    def __init__(
        self,
        limits: Limits,
        outbox: Outbox,
        on_open: Callable[["Link"], None],
        *,
        tls: ssl.SSLContext | None = None,
        websocket: WebSocket | None = None,
    ) -> None:
        self._limits = limits
        self._outbox = outbox
        self._on_open = on_open
        self._tls = tls
        self._websocket = websocket
        self._loop = asyncio.get_running_loop()
        self._framer = Framer(limits.max_connect_bytes)
        self._handle: Callable[[int, bytes], Work | None] | None = None
        self._later: Work | None = None
        self._news = asyncio.Event()
        self._over = False
        self._closing = False
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._silence: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._gone = asyncio.Event()
        self.ended = asyncio.Event()
        """It has left the engine."""

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        if self._tls is not None:
            # What comes now is for the handshake.
            self._transport.pause_reading()
        self._on_open(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's hint is always "any"
        return self._outbox.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._outbox.buffer[:nbytes]
        if self._websocket is None:
            self._feed(data)
        else:
            self._unwrap(self._websocket, bytes(data))
        if self._handle is None:
            self._news.set()
        else:
            self._work()

    def eof_received(self) -> bool:
        self.flush()
        self._end()
        return False

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        if self._silence is not None:
            self._silence.cancel()
        self._end()
        self._may_write.set()
        self._gone.set()

    # Coming in

    def _feed(self, data: bytes | memoryview) -> None:
        self._framer.feed(data)
        self._heard = self._loop.time()

    def _unwrap(self, websocket: WebSocket, data: bytes) -> None:
        try:
            if mqtt := websocket.decode(data):
                self._feed(mqtt)
        except ProtocolError as error:
            self._put(websocket.answers())
            self.abort(str(error))
        else:
            self._put(websocket.answers())

    async def secure(self) -> None:
        """Shake hands, where this door has TLS. Raises OSError, of which ssl.SSLError is a kind."""
        if self._tls is None:
            return
        try:
            transport = await self._loop.start_tls(
                self._transport,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=self._limits.connect_seconds,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except BaseException:
            # Nobody tells us any more when it is closed.
            self.connection_lost(None)
            raise
        if transport is None:
            raise ConnectionResetError("closed during the handshake")
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    async def first_packet(self) -> bytes:
        """The body of CONNECT; anything else is refused at its first byte. Raises ProtocolError."""
        while True:
            if (first := self._framer.first_byte()) is not None and first != Kind.CONNECT << 4:
                raise ProtocolError("the first packet is not CONNECT")
            if (packet := self._framer.next()) is not None:
                # What else comes waits in the socket until it is served.
                self._transport.pause_reading()
                return packet[1]
            if self._is_at_end:
                raise ProtocolError(self.reason if self._closing else "closed before CONNECT")
            await self._news.wait()
            self._news.clear()

    def admit(self, account: Account, connect: Connect, session_id: str, *, clean: bool) -> None:
        """It logged in: larger packets are allowed now, and silence for 1.5 times its keep-alive ends it."""
        self.account = account
        self.connect = connect
        self.session_id = session_id
        self.clean = clean
        self._framer.limit = self._limits.max_packet_bytes
        if self._websocket is not None:
            self._websocket.allow(self._limits.max_packet_bytes)
        if connect.keep_alive:
            self._watch(connect.keep_alive * 1.5)

    @property
    def principal(self) -> Principal:
        return self.account.principal

    @property
    def is_websocket(self) -> bool:
        return self._websocket is not None

    async def serve(self, handle: Callable[[int, bytes], Work | None]) -> None:
        """Give `handle` every packet, its first byte and body, until the connection ends.

        What takes its time `handle` returns as a coroutine, which later packets wait for. A ProtocolError from
        either ends the connection.
        """
        self._handle = handle
        try:
            self._work()
            while not self._over:
                await self._news.wait()
                self._news.clear()
                if self._later is not None:
                    later, self._later = self._later, None
                    await later
                    self._work()
        except ProtocolError as error:
            self.abort(str(error))
        finally:
            self._handle = None
            if self._later is not None:
                self._later.close()

    def _work(self) -> None:
        """Handle the packets that are here; what is left, or takes longer, is for `serve`."""
        assert self._handle is not None
        self._outbox.reading = True
        try:
            for _ in range(_SLICE):
                if (packet := self._framer.next()) is None:
                    if self._is_at_end:
                        self._end()
                    else:
                        self._transport.resume_reading()
                    return
                if (later := self._handle(*packet)) is not None:
                    break
                if self._over:
                    return
            else:
                later = _others()
            self._later = later
            self._transport.pause_reading()
            self._news.set()
        except ProtocolError as error:
            self.abort(str(error))
        finally:
            self._outbox.reading = False
            self._outbox.flush()

    def goodbye(self) -> None:
        """It has sent DISCONNECT."""
        self.said_goodbye = True
        self._end()

    @property
    def _is_at_end(self) -> bool:
        return self._over or (self._websocket is not None and self._websocket.is_closed)

    def _end(self) -> None:
        """No more packets are handled."""
        self._over = True
        self._news.set()

    def _watch(self, allowed: float) -> None:
        """One timer for each connection, set again when it rings and not at each packet."""

        def ring() -> None:
            if (left := self._heard + allowed - self._loop.time()) > 0:
                self._silence = self._loop.call_later(left, ring)
            else:
                self.abort(f"silent for 1.5 times its keep-alive ({allowed:g} s)")

        self._silence = self._loop.call_later(allowed, ring)

    # Going out

    def write(self, data: bytes) -> None:
        """Put `data` into the outbox. A client that does not read what waits for it is cut off."""
        if self._closing or self._over or not self._is_bounded():
            return
        if not self._unsent:
            self._outbox.add(self)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def flush(self) -> None:
        """Hand what is unsent to the transport."""
        if self._unsent and not self._closing:
            data = b"".join(self._unsent)
            self._transport.write(data if self._websocket is None else self._websocket.encode(data))
        self._unsent.clear()
        self._unsent_bytes = 0

    def _put(self, data: bytes) -> None:
        """Past the outbox, for what is not MQTT."""
        if data and not self._closing and self._is_bounded():
            self._transport.write(data)

    def _is_bounded(self) -> bool:
        waiting = self._unsent_bytes + self._socket.get_write_buffer_size()
        if self._transport is not self._socket:
            waiting += self._transport.get_write_buffer_size()
        if waiting > self._limits.max_unsent_bytes:
            self.abort(f"does not read: {waiting} bytes wait for it")
            return False
        return True

    @property
    def has_room(self) -> bool:
        """Whether the client has little to read still."""
        return self._unsent_bytes <= _HIGH_WATER and self._may_write.is_set()

    async def room(self) -> None:
        """Wait until it has. Raises OSError when the connection is lost."""
        self.flush()
        await self._may_write.wait()
        if self._closing or self._gone.is_set():
            raise ConnectionResetError

    # The end

    def abort(self, reason: str) -> None:
        """End the connection at once, whatever is unsent; also one that is closing and cannot."""
        if not self._closing and not self._gone.is_set():
            self.reason = reason
        self._closing = True
        self._transport.abort()
        self._end()

    async def close(self) -> None:
        """Send what is unsent and close; the client has a second to take it. Idempotent."""
        if self._silence is not None:
            self._silence.cancel()
        if self._closing:
            return
        self.flush()
        if self._websocket is not None:
            self._put(self._websocket.goodbye())
        self._closing = True
        self._transport.close()
        self._end()

    async def closed(self) -> None:
        """Close and wait for the end, a second at most."""
        await self.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()

    def get_peer_info(self) -> tuple[str, int] | None:
        peer = self._socket.get_extra_info("peername")
        return (str(peer[0]), int(peer[1])) if peer else None

    # What amqtt's interfaces ask for and our handler never uses.

    async def drain(self) -> None:
        """Writes are bounded in `write`; amqtt's would wait here, with a lock held, for a client that reads slowly."""

    async def read(self, n: int = -1) -> bytes:
        raise NotImplementedError("our handler takes whole packets")

    def feed_eof(self) -> None:
        raise NotImplementedError("our handler takes whole packets")

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None


async def _others() -> None:
    """Let others have their turn."""
    await asyncio.sleep(0)
