"""The running process: its listening socket, its loop, its signals, its exit status."""

import asyncio
import errno
import logging
import os
import signal
import socket

from actors.process import end_leftovers
from supervisor import __version__
from supervisor.boot import Boot, StartRefused
from supervisor.logging import Log, configure_logging
from supervisor.summary import show
from supervisor.wiring import System

logger = logging.getLogger(__name__)

BACKLOG = 512


def run_supervisor(boot: Boot) -> int:
    """Run until SIGTERM or SIGINT (0), or until a part cannot be kept up (1).

    Raises:
        StartRefused: before anything was started, or after it was all stopped again.
    """
    settings = boot.settings
    _refuse_lost_store(boot)
    listener = _listen(settings.api_host, settings.api_port)
    with listener:
        log = configure_logging(settings.log_level, environ=settings.environment)
        log.add(boot.secret_values())
        logger.info("tars-supervisor %s starts, pid %d, data in %s", __version__, os.getpid(), boot.folders.data)
        for warning in boot.warnings:
            logger.warning("%s", warning)
        instances = boot.folders.runtime / "instances"
        killed = end_leftovers(instances)
        if killed:
            logger.warning("%d processes of a supervisor that was killed were still there and are ended", len(killed))
        try:
            return asyncio.run(_run(boot, listener, log))
        finally:
            # What has left its worker's process group, too.
            end_leftovers(instances)


async def _run(boot: Boot, listener: socket.socket, log: Log) -> int:
    asked, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        # The first asks, the second hurries.
        (hurry if asked.is_set() else asked).set()

    # A terminal that is closed ends it in order, too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    system = System(boot, listener, log, hurry)
    life = asyncio.create_task(_live(system))
    end = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({life, end}, return_when=asyncio.FIRST_COMPLETED)
        if not life.done():
            life.cancel()
            await asyncio.wait({life})
            logger.info("stopping")
        return 0 if life.cancelled() else life.result()
    finally:
        end.cancel()
        await system.stop()
        logger.info("stopped")


async def _live(system: System) -> int:
    await system.start()
    await system.settled()
    show(system.summary().text())
    exit_ = await system.failed()
    logger.critical("a part cannot be kept up, so the program ends: %s", exit_)
    return 1


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
