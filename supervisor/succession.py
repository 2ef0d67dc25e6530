"""How one supervisor follows another that runs: what the two say to each other, and the newer one's end of it.

They talk over a socket pair (SOCK_SEQPACKET), one JSON object a message. The older one starts the newer and says nothing. The
newer prepares all that it can and says `ready`, with the folders that it means. The older lets go of everything and answers
`go`, with the descriptors of its locks and its standard error. The newer takes over and says `serving`; only when that is
answered by `end` it is on its own. Either end of the connection before that is the end of the attempt: the newer one lets
go of what it has and ends, the older one takes everything back.

`refused` tells why the newer gives up, `ended` that it was asked to end and has ended all workers in order.
"""

import array
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

MESSAGE: Final = 64 * 1024
DESCRIPTORS: Final = 8
OPTION: Final = "--succeed"
"""The option of `run` that names the newer one's end of the connection; not for people."""


class PredecessorGone(Exception):
    """The supervisor that this one was to follow has ended, or wants it no more."""


def pack(what: str, **fields: Any) -> bytes:
    return json.dumps({"is": what, **fields}).encode()


def unpack(data: bytes) -> dict[str, Any]:
    """Read a message; of what is none, `{"is": ""}`. An empty one is the end of the connection."""
    try:
        found = json.loads(data)
    except ValueError:
        return {"is": ""}
    return found if isinstance(found, dict) and isinstance(found.get("is"), str) else {"is": ""}


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for a message and its descriptors, close-on-exec. Raises PredecessorGone where the connection has ended."""
    size = array.array("i").itemsize
    try:
        data, ancillary, _, _ = connection.recvmsg(
            MESSAGE, socket.CMSG_SPACE(DESCRIPTORS * size), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        data, ancillary = b"", []
    found = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(payload[: len(payload) - len(payload) % size])
    if not data:
        raise PredecessorGone
    return unpack(data), list(found)


class Succession:
    """The newer one's end. Blocks, but for `serving`."""

    def __init__(self, descriptor: int) -> None:
        """Raises OSError: it is no such connection."""
        os.set_inheritable(descriptor, False)
        self._connection = socket.socket(fileno=descriptor)
        self.locks: tuple[int, ...] = ()
        """Descriptors of the older one's locks, once it has let go: whoever has them has the locks."""

    def take_over(self, version: str, data: Path, runtime: Path) -> None:
        """Say that all is prepared, and wait until the older one has let go. Raises PredecessorGone."""
        self._send(pack("ready", version=version, data=str(data), runtime=str(runtime)))
        message, descriptors = receive(self._connection)
        if message["is"] != "go" or not descriptors:
            raise PredecessorGone
        # Until now what was said there went to the older one, which tells why an upgrade failed.
        os.dup2(descriptors[0], 2)
        os.close(descriptors[0])
        self.locks = tuple(descriptors[1:])

    def close_locks(self, kept: Sequence[int]) -> None:
        """Close those that are not used: the settings name other folders now."""
        for descriptor in set(self.locks) - set(kept):
            os.close(descriptor)
        self.locks = ()

    def refuse(self, lines: Sequence[str]) -> None:
        self._send(pack("refused", lines=[line[:1000] for line in lines[:20]]))

    def ended(self) -> None:
        self._send(pack("ended"))

    def serving(self) -> socket.socket:
        """Say that all of it serves; wait on this, without blocking, for the answer: see `receive`."""
        self._send(pack("serving", pid=os.getpid()))
        return self._connection

    def close(self) -> None:
        self._connection.close()

    def _send(self, data: bytes) -> None:
        # Where it is gone, whoever waits for its answer sees that.
        with contextlib.suppress(OSError):
            self._connection.send(data)
