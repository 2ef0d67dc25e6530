"""The running process: its listening socket, its loop, its signals, its exit status."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actors.holder import Holder, HolderFailed
from actors.holder.cgroups import delegated
from actors.holding import Holding
from supervisor import __version__, systemd
from supervisor._startup import started
from supervisor.boot import Boot, StartRefused
from supervisor.logging import Log, configure_logging
from supervisor.succession import MESSAGE, Succession, unpack
from supervisor.summary import show
from supervisor.upgrade import Outcome, Successor, UpgradeFailed, Upgrades

if TYPE_CHECKING:
    from supervisor.wiring import System

logger = logging.getLogger(__name__)

BACKLOG = 512


def run_supervisor(boot: Boot, environ: Mapping[str, str], succession: Succession | None = None) -> int:
    """Run until SIGTERM or SIGINT (0), until a new version has taken over (0), or until a part cannot be kept up (1).

    `environ`: what this process was started with. `succession`: of the supervisor that this one takes over from.

    Raises:
        StartRefused: before anything was started, or after it was all stopped again. Workers of an earlier supervisor
            run on.
    """
    _refuse_lost_store(boot)
    return asyncio.run(Run(boot, environ, succession).run())


class Run:
    """From the locks to the exit status. Of the whole program (`System`) there may be several, one after the other: a new version
    that was handed everything, and does not serve, leaves it all to be taken up again.
    """

    def __init__(self, boot: Boot, environ: Mapping[str, str], succession: Succession | None) -> None:
        self._boot = boot
        self._environ = environ
        self._succession = succession
        self._asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._system: System | None = None
        self._failure: str | None = None
        """Why a new version was handed everything and did not serve; told once this one serves again."""
        self._upgrades = Upgrades(boot.folders, environ, self._tell_upgrade)

    async def run(self) -> int:
        self._handle_signals()
        # Before anything else: nobody reads what workers print since the supervisor before us has gone.
        holding = Holding(self._boot.folders.runtime, cgroups=delegated())
        # While a new holder starts, which takes the other processor.
        wiring = asyncio.get_running_loop().run_in_executor(None, _wiring)
        holder = await _attached(holding)
        adopted = bool(holder.workers) or self._succession is not None
        try:
            with _listener(holder, self._boot) as listener:
                log = _begin_log(self._boot)
                make = await wiring
                while True:
                    holding.report()
                    self._system = make(self._boot, listener, log, self._hurry, holding)
                    end = await self._serve(self._system, adopted=adopted)
                    self._boot = self._system.boot
                    if isinstance(end, int):
                        break
                    await holding.detach()
                    if await self._handed_over(end):
                        return 0
                    holding, adopted = Holding(self._boot.folders.runtime, cgroups=delegated()), True
                    _leave_there(await _attached(holding), {_listener_name(self._boot): listener})
        except _Alone:
            await holding.detach()
            logger.error(  # noqa: TRY400  # the sentence says it
                "the supervisor before this one was lost in the middle of the upgrade; this one ends, too"
            )
            return 1
        except StartRefused:
            if adopted:
                await holding.detach()
            else:
                await holding.stop()
            raise
        except BaseException:
            holding.close()
            raise
        await holding.stop()
        logger.info("stopped")
        if self._succession is not None:
            self._succession.ended()
        return end

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            # The first asks, the second hurries.
            (self._hurry if self._asked.is_set() else self._asked).set()

        def on_hangup() -> None:
            if self._system is not None:
                self._system.reload_soon()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        # A terminal that is closed ends it in order, too. `nohup` has it ignored, and so it stays.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, on_signal if _has_terminal() else on_hangup)
        loop.add_signal_handler(signal.SIGUSR2, self._upgrades.ask)

    async def _serve(self, system: "System", *, adopted: bool) -> "int | Successor":
        """Start it, and stop it when its end has come. Gives the status, or who is to be handed everything: then the workers
        were let go. So they are where the start fails, if they are `adopted`.
        """
        life = asyncio.create_task(self._live(system))
        end = asyncio.create_task(self._to_end(system, adopted=adopted))
        upgrade = asyncio.create_task(self._upgrade(system))
        leave, successor = False, None
        try:
            await asyncio.wait({life, end, upgrade}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                return life.result()
            await _cancelled(life)
            if not end.done():
                leave, successor = True, upgrade.result()
                logger.info("hands over to version %s, pid %d", successor.version, successor.pid)
                return successor
            logger.info("stopping")
        except (StartRefused, _Alone):
            leave = adopted
            raise
        else:
            return 0
        finally:
            await _cancelled(end)
            if successor is None:
                await _cancelled(upgrade)
                if not upgrade.cancelled():
                    await upgrade.result().abandon()
            await (system.let_go() if leave else system.stop())

    async def _to_end(self, system: "System", *, adopted: bool) -> None:
        """Return when we are to end; where there are workers, once they are all in hand, or somebody hurries."""
        await self._asked.wait()
        if adopted:
            waits = [asyncio.create_task(event.wait()) for event in (system.serving, self._hurry)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    await _cancelled(wait)

    async def _live(self, system: "System") -> int:
        await system.start()
        if self._failure is not None:
            await self._upgrades.failed(self._failure)
            self._failure = None
        if self._succession is not None:
            await self._on_our_own(self._succession)
            self._succession = None
        else:
            systemd.ready(self._environ)
        await system.settled()
        show(system.summary().text())
        started()
        exit_ = await system.failed()
        logger.critical("a part cannot be kept up, so the program ends: %s", exit_)
        return 1

    async def _on_our_own(self, succession: Succession) -> None:
        """Say that we serve, and wait to be set free. Raises _Alone where nobody is there who could."""
        with contextlib.closing(succession.serving()) as connection:
            connection.setblocking(False)
            answer = b""
            with contextlib.suppress(OSError):
                answer = await asyncio.get_running_loop().sock_recv(connection, MESSAGE)
            if unpack(answer)["is"] != "end":
                raise _Alone

    async def _upgrade(self, system: "System") -> "Successor":
        await system.serving.wait()
        return await self._upgrades.ready()

    async def _handed_over(self, successor: Successor) -> bool:
        """Hand the locks over, and end for good once the other one serves; false where everything is ours again."""
        try:
            outcome = await successor.take_over(self._boot.folders)
        except UpgradeFailed as error:
            await successor.abandon()
            with contextlib.suppress(OSError):
                self._boot.folders.sign()
            self._failure = str(error)
            logger.error("version %s does not serve: %s; takes everything back", successor.version, error)  # noqa: TRY400  # the sentence says it
            return False
        if outcome is Outcome.ENDED:
            await successor.abandon()
        elif self._asked.is_set():
            # Of whom it was asked has nothing left; whoever has it does it.
            await successor.stopped(self._hurry)
        else:
            await self._upgrades.done(successor)
            successor.set_free(self._environ)
        return True

    def _tell_upgrade(self, trouble: str) -> None:
        if self._system is not None:
            self._system.tell_upgrade(trouble)


class _Alone(Exception):
    """The supervisor that we take over from is gone, before it has set us free."""


async def _attached(holding: Holding) -> Holder:
    try:
        return await holding.open()
    except HolderFailed as error:
        raise StartRefused(str(error)) from None


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait({task})


def _has_terminal() -> bool:
    """Whether a terminal controls us, whose end would be told by SIGHUP (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _wiring() -> "type[System]":
    from supervisor.wiring import System  # noqa: PLC0415 - in a thread, see above

    return System


def _begin_log(boot: Boot) -> Log:
    settings = boot.settings
    log = configure_logging(settings.log_level, environ=settings.environment)
    log.add(boot.secret_values())
    logger.info("tars-supervisor %s starts, pid %d, data in %s", __version__, os.getpid(), boot.folders.data)
    for warning in boot.warnings:
        logger.warning("%s", warning)
    return log


def _listener(holder: Holder, boot: Boot) -> socket.socket:
    """Give the socket that the supervisor before us has left with the holder, with the connections that wait there, if it is
    the right one; else a new one, which is left there in turn.
    """
    settings = boot.settings
    name = _listener_name(boot)
    inherited = holder.sockets.pop(name, None)
    if inherited is not None:
        inherited.setblocking(False)
    listener = inherited or _listen(settings.api_host, settings.api_port)
    _leave_there(holder, {name: listener})
    return listener


def _listener_name(boot: Boot) -> str:
    return f"rest {boot.settings.api_host} {boot.settings.api_port}"


def _leave_there(holder: Holder, sockets: Mapping[str, socket.socket]) -> None:
    """Leave these with the holder, instead of those that are there."""
    for other in holder.sockets.values():
        other.close()
    holder.sockets.clear()
    holder.deposit(sockets)


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything else is begun: a second start must not touch what the first one uses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        what = f"port {port} on {host}"
        if error.errno == errno.EADDRINUSE:
            sentence = f"{what} is taken by another program; stop it, or choose another port with CONFIG_API_PORT"
        elif error.errno == errno.EACCES:
            sentence = f"{what} needs more rights than this user has; choose one above 1023 with CONFIG_API_PORT"
        elif error.errno == errno.EADDRNOTAVAIL:
            sentence = f"{host} is no address of this machine; mend CONFIG_API_HOST"
        else:
            sentence = f"{what} cannot be used ({error.strerror}); mend CONFIG_API_HOST or CONFIG_API_PORT"
        raise StartRefused(sentence) from None
    listener.setblocking(False)
    return listener


def _refuse_lost_store(boot: Boot) -> None:
    settings = boot.settings
    # A power cut can leave a file without content.
    if settings.db_path.exists() and settings.db_path.stat().st_size:
        return
    for trace in (settings.lkg_path, settings.epoch_path):
        if trace.exists():
            raise StartRefused(
                f"the store {settings.db_path} is missing or empty, though {trace} shows that there was one; "
                f"restore it from a backup, or move {trace} away to begin anew with defaults"
            )
