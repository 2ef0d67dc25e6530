"""A connection as bytes: TLS and WebSocket below it, bounded and coalesced output, its end."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from actors.broker.settings import Limits
from actors.broker.websocket import WebSocket
from actors.mqtt.packets import ProtocolError

_HIGH_WATER = 256 * 1024
_CLOSE_SECONDS = 1.0


class Outbox:
    """The channels that have something to send, and the buffer that all of them read into.

    What one read brought in is worked through, and leaves, in one write for each receiver, without another turn of
    the loop.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(64 * 1024))
        self.reading = False
        """Somebody works through what was read, and will flush."""
        self._channels: list[Channel] = []

    def add(self, channel: "Channel") -> None:
        if not self._channels and not self.reading:
            asyncio.get_running_loop().call_soon(self.flush)
        self._channels.append(channel)

    def flush(self) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.flush()


class Channel(asyncio.BufferedProtocol):
    """One connection. Everything happens on the loop's thread, and no write ever waits.

    A subclass says what becomes of what comes in (`received`) and of the end of it (`no_more`), which may come
    more than once.
    """

    reason = "closed by the client"
    """Why the connection ended."""

    def __init__(
        self,
        limits: Limits,
        outbox: Outbox,
        on_open: Callable[[Any], None],
        *,
        tls: ssl.SSLContext | None = None,
        websocket: WebSocket | None = None,
    ) -> None:
        self.limits = limits
        self.outbox = outbox
        self.loop = asyncio.get_running_loop()
        self.websocket = websocket
        self.closing = False
        """Nothing more is written."""
        self._on_open = on_open
        self._tls = tls
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._gone = asyncio.Event()

    def received(self, data: bytes | memoryview) -> None:
        """Bytes of MQTT, to be copied; none where something came that holds none."""
        raise NotImplementedError

    def no_more(self) -> None:
        raise NotImplementedError

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        if self._tls is not None:
            # What comes now is for the handshake.
            self.transport.pause_reading()
        self._on_open(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's hint is always "any"
        return self.outbox.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self.outbox.buffer[:nbytes]
        if self.websocket is None:
            self.received(data)
            return
        try:
            mqtt = self.websocket.decode(bytes(data))
        except ProtocolError as error:
            self._put(self.websocket.answers())
            self.abort(str(error))
        else:
            self._put(self.websocket.answers())
            self.received(mqtt)

    def eof_received(self) -> bool:
        self.flush()
        self.closing = True  # by the loop, when what was flushed is out
        self.no_more()
        return False

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        self.closing = True
        self.no_more()
        self._may_write.set()
        self._gone.set()

    async def secure(self) -> None:
        """Shake hands, where this door has TLS. Raises OSError, of which ssl.SSLError is a kind."""
        if self._tls is None:
            return
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=self.limits.connect_seconds,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except BaseException:
            # Nobody tells us any more when it is closed.
            self.connection_lost(None)
            raise
        if transport is None:
            raise ConnectionResetError("closed during the handshake")
        self.transport = transport
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)

    # Going out

    def write(self, data: bytes) -> None:
        """Put `data` into the outbox. A client that does not read what waits for it is cut off."""
        if self.closing or not self._is_bounded():
            return
        if not self._unsent:
            self.outbox.add(self)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def flush(self) -> None:
        """Hand what is unsent to the transport."""
        if self._unsent and not self.closing:
            data = b"".join(self._unsent)
            self.transport.write(data if self.websocket is None else self.websocket.encode(data))
        self._unsent.clear()
        self._unsent_bytes = 0

    def _put(self, data: bytes) -> None:
        """Past the outbox, for what is not MQTT."""
        if data and not self.closing and self._is_bounded():
            self.transport.write(data)

    def _is_bounded(self) -> bool:
        waiting = self._unsent_bytes + self._socket.get_write_buffer_size()
        if self.transport is not self._socket:
            waiting += self.transport.get_write_buffer_size()
        if waiting > self.limits.max_unsent_bytes:
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
        if self.closing:
            raise ConnectionResetError

    # The end

    def abort(self, reason: str) -> None:
        """End the connection at once, whatever is unsent; also one that is closing and cannot."""
        if not self.closing:
            self.reason = reason
        self.closing = True
        self.transport.abort()
        self.no_more()

    async def close(self) -> None:
        """Send what is unsent and close; the client has a second to take it. Idempotent."""
        if self.closing:
            return
        self.flush()
        if self.websocket is not None:
            self._put(self.websocket.goodbye())
        self.closing = True
        self.transport.close()
        self.no_more()

    async def closed(self) -> None:
        """Close and wait for the end, a second at most."""
        await self.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            self.transport.abort()

    def get_peer_info(self) -> tuple[str, int] | None:
        peer = self._socket.get_extra_info("peername")
        return (str(peer[0]), int(peer[1])) if peer else None
