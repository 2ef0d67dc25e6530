"""One client's connection: whole packets in, bounded and coalesced bytes out, and a watch over its silence."""

import asyncio
import ssl

from amqtt.adapters import ReaderAdapter, WriterAdapter

from actors.broker.packets import Connect, Framer, Kind, ProtocolError
from actors.broker.rules import Principal
from actors.broker.settings import Account, Limits

_READ_BYTES = 64 * 1024
_HIGH_WATER = 256 * 1024
_CLOSE_SECONDS = 1.0


class Outbox:
    """The links that have something to send; they do when a link has no more packets, or the loop's turn ends.

    So what one read brought in leaves in one write for each receiver, without waiting for another turn.
    """

    def __init__(self) -> None:
        self._links: list[Link] = []

    def add(self, link: "Link") -> None:
        if not self._links:
            asyncio.get_running_loop().call_soon(self.flush)
        self._links.append(link)

    def flush(self) -> None:
        links, self._links = self._links, []
        for link in links:
            link.flush()


class Link(ReaderAdapter, WriterAdapter):
    """What amqtt gets instead of a stream.

    The gate fills in who speaks (`admit`) before it hands the link to amqtt. The connection's task reads; whoever
    has a message for the client writes; both happen on the loop, and no write ever waits.
    """

    account: Account
    connect: Connect
    session_id: str
    """Key of the client's session: its user and its client id, so that users cannot meet each other's."""
    clean: bool

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits, outbox: Outbox
    ) -> None:
        self._reader = reader
        self._outbox = outbox
        self._writer = writer
        self._limits = limits
        self._framer = Framer(limits.max_connect_bytes)
        self._transport = writer.transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._silence: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self.said_goodbye = False
        """It sent DISCONNECT: its last will is void."""
        self.reason = "closed by the client"
        """Why the connection ended."""
        self.ended = asyncio.Event()

    def admit(self, account: Account, connect: Connect, session_id: str, *, clean: bool) -> None:
        """It logged in: larger packets are allowed now, and silence for 1.5 times its keep-alive ends it."""
        self.account = account
        self.connect = connect
        self.session_id = session_id
        self.clean = clean
        self._framer.limit = self._limits.max_packet_bytes
        if connect.keep_alive:
            self._watch(connect.keep_alive * 1.5)

    @property
    def principal(self) -> Principal:
        return self.account.principal

    async def first_packet(self) -> bytes:
        """The body of CONNECT; anything else is refused at its first byte. Raises ProtocolError."""
        while True:
            if (first := self._framer.first_byte()) is not None and first != Kind.CONNECT << 4:
                raise ProtocolError("the first packet is not CONNECT")
            if (packet := self._framer.next()) is not None:
                return packet[1]
            if not await self._receive():
                raise ProtocolError("closed before CONNECT")

    async def packet(self) -> tuple[int, bytes] | None:
        """The next packet's first byte and body; None at the end of the stream. Raises ProtocolError."""
        while (packet := self._framer.next()) is None:
            if not await self._receive():
                return None
        return packet

    async def _receive(self) -> bool:
        self._outbox.flush()
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError:
            return False
        self._heard = asyncio.get_running_loop().time()
        self._framer.feed(data)
        return bool(data)

    def _watch(self, allowed: float) -> None:
        """One timer for each connection, set again when it rings and not at each packet."""
        loop = asyncio.get_running_loop()

        def ring() -> None:
            if (left := self._heard + allowed - loop.time()) > 0:
                self._silence = loop.call_later(left, ring)
            else:
                self.abort(f"silent for 1.5 times its keep-alive ({allowed:g} s)")

        self._silence = loop.call_later(allowed, ring)

    def write(self, data: bytes) -> None:
        """Put `data` into the outbox. A client that does not read what waits for it is cut off."""
        if self._transport.is_closing():
            return
        waiting = self._unsent_bytes + self._transport.get_write_buffer_size()
        if waiting > self._limits.max_unsent_bytes:
            self.abort(f"does not read: {waiting} bytes wait for it")
            return
        if not self._unsent:
            self._outbox.add(self)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def flush(self) -> None:
        """Hand what is unsent to the transport."""
        if self._unsent and not self._transport.is_closing():
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        self._unsent_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether the client has little to read still."""
        return self._unsent_bytes + self._transport.get_write_buffer_size() <= _HIGH_WATER

    async def room(self) -> None:
        """Wait until it has. Raises OSError when the connection is lost."""
        if not self.has_room:
            self.flush()
            await self._writer.drain()

    def abort(self, reason: str) -> None:
        """End the connection at once, whatever is unsent; also one that is closing and cannot."""
        if not self._transport.is_closing():
            self.reason = reason
        self._transport.abort()

    async def close(self) -> None:
        """Send what is unsent and close; the client has a second to take it. Idempotent."""
        if self._silence is not None:
            self._silence.cancel()
        self.flush()
        self._writer.close()

    async def closed(self) -> None:
        """Close and wait for the end, a second at most."""
        await self.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._transport.abort()

    def get_peer_info(self) -> tuple[str, int] | None:
        peer = self._writer.get_extra_info("peername")
        return (str(peer[0]), int(peer[1])) if peer else None

    # What amqtt's interfaces ask for and our handler never uses.

    async def drain(self) -> None:
        """Writes are bounded in `write`; amqtt's would wait here, with a lock held, for a client that reads slowly."""

    async def read(self, n: int = -1) -> bytes:
        raise NotImplementedError("our handler takes whole packets")

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None
