"""What systemd is told, where it wants to be (sd_notify(3)); elsewhere nothing."""

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(environ: Mapping[str, str], *assignments: str) -> None:
    """Send assignments such as `READY=1`. That nobody listens is no reason to fail."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    # A name in the abstract namespace (unix(7)) begins with a zero byte.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.connect(address)
        to.sendall("\n".join(assignments).encode())


def ready(environ: Mapping[str, str], *, pid: int | None = None) -> None:
    """Say that the service is up. `pid`: of the process that is the service from now on, where it is another one."""
    notify(
        environ, *([f"MAINPID={pid}"] if pid is not None else []), "READY=1", f"STATUS=serves, pid {pid or os.getpid()}"
    )
