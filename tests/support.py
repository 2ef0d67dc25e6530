"""Process helpers of the tests: programs, free ports, waiting with a deadline, a real Mosquitto."""

import base64
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

T = TypeVar("T")

# Debian puts daemons where an ordinary user's PATH does not look.
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def needs(program: str) -> str:
    """Path of `program`; the test is skipped where it is missing, and fails under `CI=true`."""
    path = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS)))
    if path is not None:
        return path
    reason = f"{program} is not installed (Debian: apt install mosquitto mosquitto-clients)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that the kernel gives to nobody else for a minute (RFC 9293, TIME-WAIT).

    Who binds it by its number with SO_REUSEADDR, as servers do, may have it at once.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
            # Whose end is closed first has the wait.
            listener.accept()[0].close()
            caller.recv(1)
        return port


def environment_of(pid: int) -> dict[str, str]:
    """What a process was started with. One that is just being executed has none for a moment, and is waited for.

    Raises:
        OSError: it has gone, or is none that was executed.
    """
    process = Path(f"/proc/{pid}")
    text, deadline = (process / "environ").read_bytes(), time.monotonic() + 2
    while not text and time.monotonic() < deadline:
        (process / "exe").readlink()
        time.sleep(0.001)
        executed = (process / "cmdline").read_bytes()
        text = (process / "environ").read_bytes()
        if executed:
            break  # it was given none
    pairs = (each.partition("=") for each in os.fsdecode(text).split("\0") if each)
    return {name: value for name, _, value in pairs}


def holders(folder: Path) -> list[int]:
    """Living holders of workers (`actors/holder`) whose runtime folder is `folder` or below, and their children that wait to
    become workers.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = [os.fsdecode(each) for each in (entry / "cmdline").read_bytes().split(b"\0")]
                if any(each.endswith("holder/program.py") for each in line) and any(
                    Path(each).is_relative_to(folder) for each in line
                ):
                    found.append(int(entry.name))
    return found


def left_holders(folder: Path, *, settle: float = 10.0) -> list[str]:
    """Those that are there although they had `settle` seconds to end, one sentence each; they are killed."""
    deadline = time.monotonic() + settle
    while left := holders(folder):
        if time.monotonic() > deadline:
            end_holders(folder)
            return [f"holder {pid} of {folder}" for pid in left]
        time.sleep(0.01)
    return []


def end_holders(folder: Path) -> None:
    """Kill them."""
    deadline = time.monotonic() + 30
    while left := holders(folder):
        assert time.monotonic() < deadline, left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def wait_until(condition: Callable[[], T], *, timeout: float = 30.0, what: str = "the condition") -> T:
    """Poll in synchronous code until `condition()` is truthy and return it; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout:g} s")
        time.sleep(0.005)
    return value


async def eventually(condition: Callable[[], T], *, timeout: float = 30.0, what: str = "the condition") -> T:
    """Poll in a coroutine until `condition()` is truthy and return it; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout:g} s")
        await anyio.sleep(0.005)
    return value


def end_process(process: subprocess.Popen[bytes], *, grace: float = 5.0) -> int:
    """TERM, `grace` seconds, KILL, reap; the return code."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(30)


def password_line(user: str, password: str) -> str:
    """One line of a Mosquitto password file: PBKDF2-HMAC-SHA512 as mosquitto_passwd(1) of 2.0 writes it."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


class Mosquitto:
    """A real Mosquitto on 127.0.0.1, on one port for its whole life.

    Options: `users` (name to password; anonymous clients are refused then unless `allow_anonymous` says
    otherwise), `acl` (text of an ACL file), `persistence` (retained messages survive a restart; off), `extra`
    (further lines of mosquitto.conf(5)). Methods block for some tens of milliseconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        acl: str | None = None,
        allow_anonymous: bool | None = None,
        persistence: bool = False,
        extra: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        self._program = needs("mosquitto")
        self._folder = folder
        self._users = users
        self._acl = acl
        self._anonymous = users is None if allow_anonymous is None else allow_anonymous
        self._persistence = persistence
        self._extra = tuple(extra)
        self._fixed_port = port is not None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port() if port is None else port

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:<port>`, without credentials."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Everything it has written so far."""
        path = self._folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert not self.running, "already running"
        for _ in range(5):
            self._spawn()
            if self._accepts():
                # From here on clients know the port: a restart must come back on this very one.
                self._fixed_port = True
                return
            self.stop()
            if self._fixed_port:
                break
            # Somebody took the port between our probe and the broker's bind.
            self.port = free_port()
        pytest.fail(f"Mosquitto did not start:\n{self.log()}")

    def stop(self) -> None:
        """End it in order, so that it stores what it persists."""
        if self._process is not None:
            end_process(self._process)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def restart(self) -> None:
        """Stop, and start on the same port."""
        self.stop()
        self.start()

    def _spawn(self) -> None:
        config = self._write_config()
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # ctrl-C of a test run must not end it before the test has.
                start_new_session=True,
            )

    def _accepts(self) -> bool:
        deadline = time.monotonic() + 30
        while self.running and time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1),
            ):
                # Whoever answers must be ours, and it has not died of "address in use".
                return self.running
            time.sleep(0.005)
        return False

    def _write_config(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(self._anonymous).lower()}",
            f"persistence {str(self._persistence).lower()}",
            "log_dest stderr",
            "log_type all",
        ]
        if os.geteuid() == 0:
            # It would become the user `mosquitto`, who cannot read this folder.
            lines.append("user root")
        if self._persistence:
            lines.append(f"persistence_location {self._folder}/")
        if self._users is not None:
            self._write_private("passwords", "".join(f"{password_line(*each)}\n" for each in self._users.items()))
            lines.append(f"password_file {self._folder / 'passwords'}")
        if self._acl is not None:
            self._write_private("acl", self._acl)
            lines.append(f"acl_file {self._folder / 'acl'}")
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join((*lines, *self._extra, "")))
        return config

    def _write_private(self, name: str, text: str) -> None:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o600)
