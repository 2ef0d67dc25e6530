"""The connection gate: our own listeners in front of amqtt, one gate whatever the door: TCP, TLS, WebSocket.

Who has not logged in costs a bounded number of connections, bytes and seconds, and reaches nothing: not amqtt, and
no client that is connected already.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import os
import secrets
import ssl
from dataclasses import replace
from functools import partial

from actors.broker import rules
from actors.broker.channel import Outbox
from actors.broker.engine import LISTENER, Engine
from actors.broker.link import Link
from actors.broker.log import Log
from actors.broker.rules import Principal, Role
from actors.broker.settings import STRANGER, Account, Door, Settings
from actors.broker.websocket import WebSocket
from actors.mqtt import packets
from actors.mqtt.packets import Connect, ProtocolError, Refusal, UnsupportedVersion

_BACKLOG = 1024
_STOP_SECONDS = 0.8
_MAX_CLIENT_ID = 256
_NOBODY = bytes(32)


class _Refused(Exception):
    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


class CannotListen(Exception):
    """A door cannot be opened; the message says which and why."""


class Gate:
    """Accepts connections, lets those in that may, and hands them to the engine.

    Every connection is a task in `_tasks` from its first byte to its last. Of each session at most one connection
    is in `_live`; a newcomer ends it and waits until it has left the engine and its last will is out.
    """

    def __init__(self, settings: Settings, engine: Engine, log: Log) -> None:
        self._settings = settings
        self._engine = engine
        self._log = log
        self._outbox = Outbox()
        self._tls: ssl.SSLContext | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[Link, None] = {}
        self._live: dict[str, Link] = {}
        self._stopping = False

    async def start(self) -> list[tuple[str, int]]:
        """Open every door; address and port of each. Raises CannotListen."""
        settings = self._settings
        if any(door.tls for door in settings.doors):
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._load_certificate(self._tls)
        for door in settings.doors:
            try:
                server = await asyncio.get_running_loop().create_server(
                    partial(self._link, door), door.host, door.port, backlog=_BACKLOG
                )
            except OSError as error:
                # asyncio's own text repeats the address, in its notation.
                why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
                raise CannotListen(f"cannot listen on {door.host}:{door.port}: {why}") from None
            self._servers.append(server)
        return [server.sockets[0].getsockname()[:2] for server in self._servers]

    def _link(self, door: Door) -> Link:
        limits = self._settings.limits
        return Link(
            limits,
            self._outbox,
            self._accept,
            tls=self._tls if door.tls else None,
            websocket=WebSocket(limits.max_connect_bytes) if door.websocket else None,
        )

    def _load_certificate(self, tls: ssl.SSLContext) -> None:
        certificate, key = self._settings.certificate, self._settings.private_key
        try:
            tls.load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:
            why = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
            raise CannotListen(f"cannot use the certificate {certificate} with the key {key}: {why or error}") from None

    async def stop(self) -> None:
        """Close the listener and all connections, in bounded time, whatever the clients do."""
        self._stopping = True
        for server in self._servers:
            server.close()
        for link in self._pending:
            link.abort("the broker stops")
        for link in list(self._live.values()):
            link.reason = "the broker stops"
            await link.close()
        # Who reads gets the rest of its messages. Then those who do not are cut off.
        await self._wait_for_tasks()
        for link in list(self._live.values()):
            link.abort("the broker stops")
        await self._wait_for_tasks()
        for task in self._tasks:
            task.cancel()
        await self._wait_for_tasks()

    async def _wait_for_tasks(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)

    def reload(self, settings: Settings) -> None:
        """Take other users, and read the certificate again; clients whose user changed or went are cut off.

        The rest counts at the next start. Raises CannotListen where the certificate cannot be used; then the
        earlier one stays.
        """
        self._settings = replace(self._settings, accounts=settings.accounts, anonymous_read=settings.anonymous_read)
        for link in list(self._live.values()):
            if not self._settings.holds(link.account):
                link.abort("its user was changed or removed")
        if self._tls is not None:
            self._load_certificate(self._tls)

    def _accept(self, link: Link) -> None:
        if self._stopping:
            link.abort("the broker stops")
            return
        if len(self._pending) >= self._settings.limits.max_pending:
            # An honest client logs in within milliseconds: the oldest is the least likely to be one.
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.abort("too many clients that do not log in")
        self._pending[link] = None
        task = asyncio.get_running_loop().create_task(self._serve(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: Link) -> None:
        try:
            try:
                connect = await self._knock(link)
            finally:
                self._pending.pop(link, None)
            if connect is not None:
                await self._run(link, connect)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not end the others
            self._log.fault("connection_failed", error=type(error).__name__, detail=str(error)[:500])
        finally:
            await link.closed()

    async def _knock(self, link: Link) -> Connect | None:
        """Read CONNECT; None where the connection was refused."""
        try:
            async with asyncio.timeout(self._settings.limits.connect_seconds):
                await link.secure()
                return packets.parse_connect(await link.first_packet())
        except UnsupportedVersion as error:
            is_5 = error.level == packets.MQTT_5
            answer = packets.CONNACK_NOT_MQTT_5 if is_5 else packets.connack_refused(Refusal.PROTOCOL_VERSION)
            link.write(answer)
            self._refused(link, str(error))
        except ProtocolError as error:
            self._refused(link, str(error))
        except TimeoutError:
            self._refused(link, "no CONNECT in time")
        except OSError as error:
            self._refused(link, f"no TLS: {getattr(error, 'reason', None) or error}")
        return None

    async def _run(self, link: Link, connect: Connect) -> None:
        try:
            self._admit(link, connect)
            await self._take_over(link)
        except _Refused as error:
            link.write(packets.connack_refused(error.refusal))
            self._refused(link, str(error), user=connect.username)
            return
        who = {"user": link.principal.name, "client": connect.client_id[:100]}
        try:
            self._log.info("connected", **who, peer=link.get_peer_info())
            await self._engine.external_connected(link, link, LISTENER)
        finally:
            await self._leave(link)
            self._log.info("disconnected", **who, reason=link.reason)

    async def _leave(self, link: Link) -> None:
        """The connection has left the engine: its last will, its session, its place."""
        try:
            if link.connect.will is not None and not link.said_goodbye and not self._stopping:
                self._engine.publish(link.principal, link.connect.will)
            await self._engine.end_session(link, forget=not self._settings.holds(link.account))
        finally:
            del self._live[link.session_id]
            link.ended.set()

    def _admit(self, link: Link, connect: Connect) -> None:
        account = self._authenticate(link, connect)
        who = account.principal
        client_id = connect.client_id
        if len(client_id) > _MAX_CLIENT_ID:
            raise _Refused(Refusal.IDENTIFIER, "client id is too long")
        if who.name and client_id not in ("", who.name) and not client_id.startswith(f"{who.name}-"):
            raise _Refused(Refusal.IDENTIFIER, "client id is not the user's")
        if not client_id and not connect.clean_session:
            raise _Refused(Refusal.IDENTIFIER, "persistent session without a client id")
        if connect.will is not None and not rules.may_publish(who, connect.will.topic):
            raise _Refused(Refusal.NOT_AUTHORIZED, f"last will on {connect.will.topic[:200]}")
        # Names hold no slash, so users cannot reach each other's sessions, and no client that gave its own id
        # meets one that gave none.
        session_id = f"{who.name}/id/{client_id}" if client_id else f"{who.name}/auto/{secrets.token_hex(8)}"
        if who.role is not Role.SUPERVISOR:
            self._check_places(who, session_id)
        # Nobody keeps messages for strangers.
        link.admit(account, connect, session_id, clean=connect.clean_session or account is STRANGER)

    def _check_places(self, who: Principal, session_id: str) -> None:
        limits = self._settings.limits
        if session_id not in self._live:
            if len(self._live) >= limits.max_connections:
                raise _Refused(Refusal.UNAVAILABLE, "too many connections")
            if sum(link.principal == who for link in self._live.values()) >= limits.max_user_connections:
                raise _Refused(Refusal.UNAVAILABLE, "too many connections of this user")
        if not self._engine.has_session(session_id):
            if self._engine.session_count() >= limits.max_sessions:
                raise _Refused(Refusal.UNAVAILABLE, "too many sessions")
            if self._engine.session_count(who) >= limits.max_user_sessions:
                raise _Refused(Refusal.UNAVAILABLE, "too many sessions of this user")

    def _authenticate(self, link: Link, connect: Connect) -> Account:
        if connect.username is None:
            if not self._settings.anonymous_read:
                raise _Refused(Refusal.NOT_AUTHORIZED, "no credentials")
            if link.websocket is not None:
                # A page that somebody looks at could open one from his browser.
                raise _Refused(Refusal.NOT_AUTHORIZED, "no credentials, and by WebSocket")
            peer = link.get_peer_info()
            if peer is None or not ipaddress.ip_address(peer[0]).is_loopback:
                raise _Refused(Refusal.NOT_AUTHORIZED, "no credentials, and not from this machine")
            return STRANGER
        account = self._settings.accounts.get(connect.username)
        given = hashlib.sha256(connect.password or b"").digest()
        # The same work whether or not the user exists.
        if not hmac.compare_digest(account.password_hash if account else _NOBODY, given) or account is None:
            raise _Refused(Refusal.CREDENTIALS, "wrong user name or password")
        return account

    async def _take_over(self, link: Link) -> None:
        """End the session's earlier connection and take its place (MQTT 3.1.1, section 3.1.4).

        Several newcomers may wait for the same one; each looks again when it wakes, and no one yields between
        looking and taking.
        """
        while (earlier := self._live.get(link.session_id)) is not None:
            earlier.abort("taken over by a new connection")
            await earlier.ended.wait()
        if not self._settings.holds(link.account):
            raise _Refused(Refusal.NOT_AUTHORIZED, "its user was changed or removed meanwhile")
        self._live[link.session_id] = link

    def _refused(self, link: Link, reason: str, user: str | None = None) -> None:
        self._log.warning("refused", reason=reason, user=user and user[:64], peer=link.get_peer_info())
