"""Finding the holder of a runtime folder, or starting one after whatever a killed one left."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from actors import trees
from actors.holder import program
from actors.holder._client import Holder, HolderFailed, HolderGone
from actors.holder.records import Records


async def attach(
    folder: Path,
    *,
    cgroups: Path | None = None,
    within: float = 10.0,
    on_wanted: Callable[[int], None] = lambda _: None,
) -> Holder:
    """Attach to the holder of the runtime folder; where there is none, end what a killed one left and start one.

    While another supervisor is attached this waits until it detaches or dies, and that one's `on_wanted` is called, with
    our pid. `cgroups` is a cgroup v2 folder of ours in which a new holder makes one for each worker
    (`actors.holder.cgroups.delegated`).

    Raises:
        HolderFailed: the folder is not ours alone, the holder does not answer within these seconds, or cannot be started.
    """
    _check(folder)
    records = Records(folder / "instances")
    ended: tuple[int, ...] = ()
    try:
        async with asyncio.timeout(within):
            while True:
                if (connection := _connect(folder)) is None:
                    ended += await _replace(folder, cgroups, records)
                    continue
                holder = Holder(connection, records, on_wanted)
                try:
                    await holder._meet()  # noqa: SLF001  # the two halves of one thing
                except HolderGone:
                    holder.close()  # it was about to end
                except BaseException:
                    holder.close()
                    raise
                else:
                    holder.leftovers = ended
                    return holder
    except TimeoutError:
        raise HolderFailed(
            f"the holder of {folder} did not answer within {within:g} s: another supervisor is attached to it, or it hangs"
        ) from None


async def _replace(folder: Path, cgroups: Path | None, records: Records) -> tuple[int, ...]:
    """Start a holder, unless somebody else does; give the processes that the one before left."""
    async with _alone(folder / "holder.start"):
        if (connection := _connect(folder)) is not None:
            connection.close()
            return ()
        # A holder that is ending still has the folder for a moment.
        async with _alone(folder / program.LOCK):
            ended = await _end_leftovers(records)
        _start(folder, cgroups)
        return ended


def _check(folder: Path) -> None:
    try:
        status = folder.stat()
    except OSError as error:
        raise HolderFailed(f"{folder} cannot be used: {error.strerror}") from error
    own = os.getuid()
    # Workers of root's with users of their own pass through it, and no more (`actors.files.is_private`).
    if status.st_uid != own or status.st_mode & (0o077 if own else 0o066):
        raise HolderFailed(f"{folder} must belong to this user alone; run: chown {own} {folder}; chmod 700 {folder}")


def _connect(folder: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Blocks only where too many wait there already.
        connection.connect(f"/proc/self/fd/{place}/{program.SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(place)
    connection.setblocking(False)
    return connection


@contextlib.asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Hold a lock file (fcntl(2))."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                await asyncio.sleep(0.002)
        yield
    finally:
        os.close(descriptor)


async def _end_leftovers(records: Records) -> tuple[int, ...]:
    """End the workers of a holder that was killed."""
    recorded = records.read()
    left = [trees.Tree(instance) for instances in recorded.values() for instance in instances]
    if not left:
        return ()
    found: set[int] = set()
    survivors = await trees.end(left, killed=found)
    if survivors:
        raise HolderFailed(
            f"processes {survivors}, left by a holder that was killed, cannot be ended; end them, then start again"
        )
    for service, instances in recorded.items():
        records.remove(service, instances)
    return tuple(sorted(found))


def _start(folder: Path, cgroups: Path | None) -> None:
    """Start a holder and wait until it listens: 15 ms, during which the loop stands still."""
    said, saying = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, saying, 1),
        (os.POSIX_SPAWN_DUP2, saying, 2),
    ]
    argv = [sys.executable, "-I", "-S", program.__file__, str(folder), str(cgroups or "")]
    try:
        # Signals are blocked across the exec: none may end it before it has its handlers. It goes into the background by
        # itself; nothing of our environment, which may hold secrets, goes along.
        pid = os.posix_spawn(sys.executable, argv, {}, file_actions=actions, setsigmask=signal.valid_signals())
    except OSError as error:
        os.close(said)
        raise HolderFailed(f"the holder could not be started: {sys.executable}: {error.strerror}") from error
    finally:
        os.close(saying)
    with open(said, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # a descriptor
        answer = file.read(4096)
    os.waitpid(pid, 0)
    if answer != "ready":
        raise HolderFailed(f"the holder of {folder} could not be started: {answer.strip() or 'it said nothing'}")
