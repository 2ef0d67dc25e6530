"""One client's connection: whole packets in, and a watch over its silence."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter

from actors.broker.channel import Channel, Outbox
from actors.broker.rules import Principal
from actors.broker.settings import Account, Limits
from actors.broker.websocket import WebSocket
from actors.mqtt.packets import Connect, Framer, Kind, ProtocolError

_SLICE = 64
"""Packets after which others get their turn."""

Work = Coroutine[Any, Any, None]


class Link(Channel, ReaderAdapter, WriterAdapter):
    """A connection from its first byte to its last; for amqtt, its reader and writer.

    The gate reads CONNECT (`first_packet`) and fills in who speaks (`admit`) before it hands the link to amqtt. Then
    packets are handled as they are read (`serve`), in the loop's callback: a task that is woken for each costs
    another turn of the loop, which was half of the time of a hop.
    """

    account: Account
    connect: Connect
    session_id: str
    """Key of the client's session: its user and its client id, so that users cannot meet each other's."""
    clean: bool
    said_goodbye = False
    """It sent DISCONNECT: its last will is void."""

    def __init__(
        self,
        limits: Limits,
        outbox: Outbox,
        on_open: Callable[["Link"], None],
        *,
        tls: ssl.SSLContext | None = None,
        websocket: WebSocket | None = None,
    ) -> None:
        super().__init__(limits, outbox, on_open, tls=tls, websocket=websocket)
        self._framer = Framer(limits.max_connect_bytes)
        self._handle: Callable[[int, bytes], Work | None] | None = None
        self._later: Work | None = None
        self._news = asyncio.Event()
        self._over = False
        self._silence: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self.ended = asyncio.Event()
        """It has left the engine."""

    def received(self, data: bytes | memoryview) -> None:
        if data:
            self._framer.feed(data)
            self._heard = self.loop.time()
        if self._handle is None:
            self._news.set()
        else:
            self._work()

    def no_more(self) -> None:
        """No more packets are handled."""
        self._over = True
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(exc)

    async def first_packet(self) -> bytes:
        """The body of CONNECT; anything else is refused at its first byte. Raises ProtocolError."""
        while True:
            if (first := self._framer.first_byte()) is not None and first != Kind.CONNECT << 4:
                raise ProtocolError("the first packet is not CONNECT")
            if (packet := self._framer.next()) is not None:
                # What else comes waits in the socket until it is served.
                self.transport.pause_reading()
                return packet[1]
            if self._is_at_end:
                raise ProtocolError(self.reason if self.closing else "closed before CONNECT")
            await self._news.wait()
            self._news.clear()

    def admit(self, account: Account, connect: Connect, session_id: str, *, clean: bool) -> None:
        """It logged in: larger packets are allowed now, and silence for 1.5 times its keep-alive ends it."""
        self.account = account
        self.connect = connect
        self.session_id = session_id
        self.clean = clean
        self._framer.limit = self.limits.max_packet_bytes
        if self.websocket is not None:
            self.websocket.allow(self.limits.max_packet_bytes)
        if connect.keep_alive:
            self._watch(connect.keep_alive * 1.5)

    @property
    def principal(self) -> Principal:
        return self.account.principal

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
        self.outbox.reading = True
        try:
            for _ in range(_SLICE):
                if (packet := self._framer.next()) is None:
                    if self._is_at_end:
                        self.no_more()
                    else:
                        self.transport.resume_reading()
                    return
                if (later := self._handle(*packet)) is not None:
                    break
                if self._over:
                    return
            else:
                later = _others()
            self._later = later
            self.transport.pause_reading()
            self._news.set()
        except ProtocolError as error:
            self.abort(str(error))
        finally:
            self.outbox.reading = False
            self.outbox.flush()

    def goodbye(self) -> None:
        """It has sent DISCONNECT."""
        self.said_goodbye = True
        self.no_more()

    @property
    def _is_at_end(self) -> bool:
        return self._over or (self.websocket is not None and self.websocket.is_closed)

    def _watch(self, allowed: float) -> None:
        """One timer for each connection, set again when it rings and not at each packet."""

        def ring() -> None:
            if (left := self._heard + allowed - self.loop.time()) > 0:
                self._silence = self.loop.call_later(left, ring)
            else:
                self.abort(f"silent for 1.5 times its keep-alive ({allowed:g} s)")

        self._silence = self.loop.call_later(allowed, ring)

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
