"""One connection to the broker: aiomqtt, with its socket handling replaced.

aiomqtt 2.5 connects in a thread that a cancellation cannot reach, keeps the socket, its reader and a task when
the CONNACK does not come, and registers for writing through a callback that may run after the socket was
closed (and its number given to another one). It also waits for each publish by itself. So here the socket is
connected by us, where it can be cancelled, everything happens on the loop's thread, and PUBACKs and messages
are handed over as they are read. What that takes of aiomqtt and paho beyond their documentation is all in this
module; the versions are pinned for it.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import aiomqtt
import anyio
import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from actors.bridge._state import LinkFailed, Trouble
from schemas.broker_address import BrokerAddress

logger = logging.getLogger(__name__)
# Whatever matters of it comes back to us as a failure, in better words.
_paho_logger = logger.getChild("paho")
_paho_logger.setLevel(logging.CRITICAL)

LARGEST_PAYLOAD = 512 * 1024
"""Bytes of a received message; a larger one is dropped. What the wire may bring at all is for the broker to bound."""

_FILTERS_PER_PACKET = 100
_FAREWELL = 0.5
# CONNACK return codes of MQTT 3.1.1 (3.2.2.3) as paho gives them, in the numbers of MQTT 5.
_LOGIN_REFUSED = frozenset({134, 135})
_KEEP_ALIVE_TIMEOUT = 141


class Events(Protocol):
    """What a link tells, on the loop's thread; none of these may raise."""

    def on_puback(self, mid: int) -> None: ...
    def on_message(self, topic: str, payload: bytes) -> None: ...
    def on_closed(self) -> None: ...


class Link(aiomqtt.Client):
    """A connection from its CONNACK to its end; it is not used again.

    Whoever opened it calls `leave` or `abort` in the end, whatever happened.
    """

    def __init__(self, address: BrokerAddress, *, will: tuple[str, bytes], keep_alive: int, events: Events) -> None:
        super().__init__(
            address.host,
            address.port,
            username=address.user,
            password=address.password,
            # Brokers that tie client ids to users want the user's name in front.
            identifier=f"{address.user or 'tars-supervisor'}-{secrets.token_hex(8)}",
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            keepalive=keep_alive,
            will=aiomqtt.Will(will[0], will[1], qos=1, retain=True),
            # The window is the bridge's; paho must never keep a publish back by itself.
            max_inflight_messages=0,
            logger=_paho_logger,
        )
        self._address = address
        self._events = events
        self._asked: dict[int, Sequence[str]] = {}
        self._writing = False
        self.failure: LinkFailed | None = None
        self._hang_in()

    @property
    def alive(self) -> bool:
        return self.failure is None

    async def open(self, tls: ssl.SSLContext | None) -> None:
        """Connect and log in. Without a deadline of its own.

        Raises:
            LinkFailed: it was refused, or could not be made.
        """
        try:
            sock = await _dial(self._address, tls)
        except ssl.SSLError as error:
            reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
            raise LinkFailed(
                Trouble.TLS, f"no TLS with the broker at {self._address}: {reason or 'the handshake failed'}"
            ) from error
        except ConnectionRefusedError as error:
            raise LinkFailed(Trouble.REFUSED, f"nobody listens at {self._address}: is the broker running?") from error
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise LinkFailed(Trouble.UNREACHABLE, f"the broker at {self._address} cannot be reached: {why}") from error
        # paho's only door for a socket that is connected already; it closes the socket from here on, as we do.
        self._client._create_socket_connection = lambda: sock  # type: ignore[method-assign]  # noqa: SLF001  # above
        try:
            self._client.connect(self._address.host, self._address.port, self._keepalive)
            await self._connected
        except aiomqtt.MqttError as error:
            raise self._refusal(error) from error
        finally:
            if self._client.socket() is None:
                sock.close()

    def publish_now(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        """Hand a message to the connection; give its packet identifier, which `on_puback` will name."""
        return self._client.publish(topic, payload, qos, retain).mid

    def subscribe_now(self, filters: Sequence[str]) -> None:
        """Ask for subscriptions at QoS 1. A refused one is logged."""
        for start in range(0, len(filters), _FILTERS_PER_PACKET):
            some = filters[start : start + _FILTERS_PER_PACKET]
            _, mid = self._client.subscribe([(each, 1) for each in some])
            if mid is not None:
                self._asked[mid] = some

    def keep_alive(self) -> None:
        """To be called about once a second: sends PINGREQ when it is due, and notices that no answer came."""
        self._client.loop_misc()

    def fail(self, trouble: Trouble, reason: str) -> None:
        """Take the connection for dead."""
        if self.failure is None:
            self.failure = LinkFailed(trouble, reason)
            if not self._connected.done():
                self._connected.set_exception(aiomqtt.MqttError(reason))
            self._events.on_closed()

    async def leave(self) -> None:
        """Send DISCONNECT, so that the broker forgets our last will, and close; takes at most half a second."""
        sock = self._client.socket()
        if sock is None or sock.fileno() < 0:
            self.abort()
            return
        # paho closes right after DISCONNECT. If anything is unread then, the kernel resets the connection, and
        # the broker may never see the DISCONNECT. So keep the socket by another descriptor until it has closed.
        with socket.socket(fileno=os.dup(sock.fileno())) as rest:
            try:
                self._client.disconnect()
                self._client.loop_write()
            finally:
                self.abort()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    rest.shutdown(socket.SHUT_WR)
                    while await self._loop.sock_recv(rest, 65536):
                        pass

    def abort(self) -> None:
        """Close at once; the broker publishes our last will."""
        self.fail(Trouble.CLOSED, "closed by us")
        if self._connected.done() and not self._connected.cancelled():
            self._connected.exception()
        sock = self._client.socket()
        if sock is not None:
            self._unwatch(sock)
            sock.close()

    # -- what paho calls, on the loop's thread

    def _hang_in(self) -> None:
        """Take over the callbacks, all of which are public in paho."""
        client, loop = self._client, self._loop
        client.on_message = lambda _client, _data, message: self._received(message)
        client.on_publish = lambda _client, _data, mid, *_: self._events.on_puback(mid)
        client.on_subscribe = lambda _client, _data, mid, codes, _props: self._granted(mid, codes)
        client.on_disconnect = lambda _client, _data, _flags, code, _props: self._closed(code)
        client.on_socket_open = lambda _client, _data, sock: loop.add_reader(sock.fileno(), self._read)
        client.on_socket_close = lambda _client, _data, sock: self._unwatch(sock)
        client.on_socket_register_write = lambda *_: self._write_soon()
        client.on_socket_unregister_write = lambda _client, _data, sock: self._writable_unwatch(sock)

    def _received(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            logger.warning("dropped a message whose topic is not UTF-8")
            return
        size = len(message.payload)
        if size > LARGEST_PAYLOAD:
            logger.warning(
                "dropped a message of %d bytes on %s: at most %d are taken", size, topic[:200], LARGEST_PAYLOAD
            )
            return
        self._events.on_message(topic, bytes(message.payload))

    def _granted(self, mid: int, codes: Sequence[ReasonCode]) -> None:
        for topic_filter, code in zip(self._asked.pop(mid, ()), codes, strict=False):
            if code.is_failure:
                logger.error(
                    "the broker at %s refuses us the subscription of %s: its rules must let our login read that",
                    self._address,
                    topic_filter,
                )

    def _closed(self, code: ReasonCode) -> None:
        # A refused login comes here too, after its CONNACK, and that one tells more; or nobody waits any more.
        if self._connected.done() and (self._connected.cancelled() or self._connected.exception() is not None):
            return
        if code.value == _KEEP_ALIVE_TIMEOUT:
            self.fail(Trouble.SILENT, f"the broker at {self._address} has gone silent")
        else:
            self.fail(Trouble.CLOSED, f"the broker at {self._address} closed the connection")

    def _unwatch(self, sock: "paho.SocketLike") -> None:
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())

    def _writable_unwatch(self, sock: "paho.SocketLike") -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())

    def _write_soon(self) -> None:
        # Most packets fit into the socket at once: in one turn of the loop, together with those queued meanwhile.
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    # -- inside

    def _read(self) -> None:
        try:
            self._client.loop_read()
            # TLS may hold decoded bytes that select() does not see (paho.mqtt.python#131).
            while isinstance(sock := self._client.socket(), ssl.SSLSocket) and sock.pending():
                self._client.loop_read()
        except Exception as error:  # noqa: BLE001  # paho raises all kinds of them for what is not MQTT
            self._broken(error)

    def _write(self) -> None:
        self._writing = False
        sock = self._client.socket()
        if sock is None or sock.fileno() < 0:
            return
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001  # as above
            self._broken(error)
            return
        if self._client.want_write() and sock.fileno() >= 0:
            self._loop.add_writer(sock.fileno(), self._write)

    def _broken(self, error: Exception) -> None:
        logger.warning("the broker at %s sent something that MQTT 3.1.1 does not know", self._address, exc_info=error)
        self.fail(Trouble.PROTOCOL, f"what the broker at {self._address} sends is not MQTT 3.1.1")

    def _refusal(self, error: aiomqtt.MqttError) -> LinkFailed:
        if self.failure is not None:
            return self.failure
        code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
        if isinstance(code, ReasonCode) and code.value in _LOGIN_REFUSED:
            who = "without a user name" if self._address.user is None else f"as {self._address.user!r}"
            return LinkFailed(
                Trouble.LOGIN_REFUSED,
                f"the broker at {self._address} refuses our login {who}: {str(code).lower()}; "
                "check user name and password in MQTT_URL",
            )
        return LinkFailed(
            Trouble.PROTOCOL, f"the broker at {self._address} refuses the connection: {str(code).lower()}"
        )


async def _dial(address: BrokerAddress, tls: ssl.SSLContext | None) -> socket.socket:
    """A connected, non-blocking socket to the first of the host's addresses that answers; OSError if none does."""
    problem: OSError | None = None
    for family, target in await _resolve(address):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Several small packets may be under way; Nagle's algorithm would hold the later ones back.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, target)
            return sock if tls is None else await _handshake(sock, tls, address.host)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    raise problem or OSError("the host has no address")


async def _resolve(address: BrokerAddress) -> list[tuple[int, Any]]:
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        # In the loop's default executor; a cancelled lookup ends there by itself, without effect.
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return [(family, target) for family, _, _, _, target in found]
    return [(socket.AF_INET if version == 4 else socket.AF_INET6, (address.host, address.port))]


async def _handshake(sock: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    secured = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            wait: Callable[[ssl.SSLSocket], Any]
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                wait = anyio.wait_readable
            except ssl.SSLWantWriteError:
                wait = anyio.wait_writable
            else:
                return secured
            await wait(secured)
    except BaseException:
        secured.close()
        raise
