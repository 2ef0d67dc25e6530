"""The notify socket of one worker: what sd_notify(3) sends, as systemd's services know it.

One datagram socket in the file system for each worker (the abstract name space has no permissions), whose path is its
`NOTIFY_SOCKET`. The kernel says who sends (unix(7), SO_PASSCRED): it has to be somebody of the worker's own.
"""

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from contextvars import Context
from pathlib import Path

from msgspec import Struct

MAX_PATH = 107
"""Bytes of a socket's path (unix(7), sun_path)."""
MAX_MESSAGE = 4096
MESSAGES_A_TURN = 16
PAUSE = 0.02
"""Messages read in a go, and seconds until the next where there are more: a flood wakes the loop no oftener."""

_CREDENTIALS = struct.Struct("3i")


class Notice(Struct, frozen=True):
    """One message. What systemd knows besides (`MAINPID`, `FDSTORE`, ...) is let pass."""

    ready: bool = False
    stopping: bool = False
    watchdog: bool = False
    """It lives."""
    trigger: bool = False
    """`WATCHDOG=trigger`: it asks to be ended as if its watchdog had heard nothing."""
    status: str | None = None


def read_notice(message: bytes) -> Notice:
    """Read a message: lines of `NAME=value`; what is no such line is let pass."""
    found: dict[str, str] = {}
    for line in message.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            found[name] = value
    status = found.get("STATUS")
    return Notice(
        ready=found.get("READY") == "1",
        stopping=found.get("STOPPING") == "1",
        watchdog=found.get("WATCHDOG") == "1",
        trigger=found.get("WATCHDOG") == "trigger",
        status=None if status is None else "".join(c if c.isprintable() else " " for c in status).strip(),
    )


class NotifySocket:
    """Open from before a worker's start until its end. `on_notice` is called on the loop, once somebody `listen`s.

    What is sent before waits in the socket: a worker may say that it is ready before its supervisor knows that it has started.
    """

    def __init__(self, path: Path, on_notice: Callable[[Notice], None], *, mark: str, user: int | None = None) -> None:
        """Bind the socket; what lay at `path` before is removed.

        Args:
            path: of the socket; its folder is ours alone.
            on_notice: told each message of the worker's.
            mark: a variable with its value that all processes of this instance have, such as `TARS_INSTANCE=...`.
            user: the worker's, where it is not ours: the socket is made theirs.

        Raises:
            OSError: it cannot be made; the path may be too long.
        """
        if len(os.fsencode(path)) > MAX_PATH:
            raise OSError(
                0, f"the path of a notify socket may have {MAX_PATH} bytes; use a shorter runtime folder", str(path)
            )
        self.path = path
        self.leader: int | None = None
        """The worker's first process: of it nothing has to be looked up."""
        self._on_notice: Callable[[Notice], None] | None = on_notice
        self._mark = mark.encode()
        self._users = {os.geteuid(), 0, os.geteuid() if user is None else user}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.refused = 0
        """Messages of strangers."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            path.unlink(missing_ok=True)
            self._socket.bind(os.fspath(path))
            path.chmod(0o600)
            if user is not None and user != os.geteuid():
                os.chown(path, user, -1)
        except OSError:
            self._socket.close()
            raise

    def listen(self, leader: int | None) -> None:
        """Tell what has been sent, and what will be."""
        self.leader = leader
        Context().run(self._loop.add_reader, self._socket, self._read)

    def close(self) -> None:
        """End; nothing is told any more. May be called again."""
        self._on_notice = None
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _read(self) -> None:
        for _ in range(MESSAGES_A_TURN):
            if self._on_notice is None:
                return
            try:
                message, ancillary, flags, _ = self._socket.recvmsg(
                    MAX_MESSAGE, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            sender = _sender(ancillary)
            if flags & socket.MSG_TRUNC or sender is None or not self._is_ours(*sender):
                self.refused += 1
            else:
                self._on_notice(read_notice(message))
        if self._on_notice is not None:
            self._loop.remove_reader(self._socket)
            self._timer = self._loop.call_later(PAUSE, self._again, context=Context())

    def _again(self) -> None:
        self._loop.add_reader(self._socket, self._read)

    def _is_ours(self, pid: int, uid: int) -> bool:
        if uid not in self._users:
            return False
        # 0: of another name space for processes.
        if pid in {0, self.leader}:
            return True
        try:
            if self.leader is not None and os.getsid(pid) == self.leader:
                return True
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if not environment:
                # One that has ended and not been waited for has no environment either, nor a program.
                Path(f"/proc/{pid}/exe").readlink()
        except (ProcessLookupError, FileNotFoundError):
            # It has said its word and ended, like systemd-notify(1) in a script; its user was a right one.
            return True
        except OSError:
            return False
        return self._mark in environment.split(b"\0")


def _sender(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int] | None:
    """Give pid and user; close what descriptors came along (a barrier's, which is all that its sender waits for)."""
    sender = None
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(data) >= _CREDENTIALS.size:
            pid, uid, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            sender = pid, uid
        elif kind == socket.SCM_RIGHTS:
            descriptors = array.array("i")
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            for descriptor in descriptors:
                os.close(descriptor)
    return sender
