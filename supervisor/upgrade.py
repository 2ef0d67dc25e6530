"""The older one's end of an upgrade: starts the new version, hands everything over, or takes it back.

Decision: docs/decisions/0035-upgrade-hands-over.md. What the two say to each other: `supervisor.succession`.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.files import write_atomically
from supervisor import systemd
from supervisor.folders import Folders
from supervisor.succession import MESSAGE, OPTION, pack, unpack

if TYPE_CHECKING:
    import subprocess

logger = logging.getLogger(__name__)

READY_WITHIN: Final = 60.0
"""Seconds that a new version has to prepare itself, while the old one serves."""

SERVING_WITHIN: Final = 30.0
"""Seconds that it has to take over, while nobody serves and connections wait."""

KEPT_WORDS: Final = 2000
"""Bytes of what a new version has said last that are kept for the reason why it failed."""

REPORT: Final = "upgrade.json"
"""In the runtime folder: how the last upgrade went, for `tars-supervisor upgrade`."""


class UpgradeFailed(Exception):
    """The new version does not serve, and its process is gone. The message says why."""


class Outcome(Enum):
    """What came of a handing over."""

    SERVES = "serves"
    """The new version serves; this one has only to end."""
    ENDED = "ended"
    """It was asked to end meanwhile, and has ended everything in order."""


class Successor:
    """A process of the new version, until it is on its own or gone."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket, words: int) -> None:
        self._process = process
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        self._gone = asyncio.Event()
        self._loop.add_reader(self._pidfd, self._note_end)
        self._words = words
        self._said = b""
        self._loop.add_reader(words, self._listen)
        self.version = ""

    @classmethod
    def start(cls, command: Sequence[str], environ: Mapping[str, str]) -> "Successor":
        """Start one in our folder, with our standard output; what it says on standard error comes to ours by way of us.

        Raises UpgradeFailed.
        """
        import subprocess  # noqa: PLC0415  # no start needs it

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words, saying = os.pipe()
        try:
            process = subprocess.Popen(
                [*command, "run", OPTION, str(theirs.fileno())],
                env=dict(environ),
                stderr=saying,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            ours.close()
            os.close(words)
            raise UpgradeFailed(f"{command[0]} cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(saying)
        ours.setblocking(False)
        os.set_blocking(words, False)
        return cls(process, ours, words)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def prepared(self, folders: Folders) -> None:
        """Wait until it is ready to take over. Raises UpgradeFailed."""
        try:
            async with asyncio.timeout(READY_WITHIN):
                message = await self._message("ready")
        except TimeoutError:
            raise UpgradeFailed(f"it was not ready within {READY_WITHIN:g} s") from None
        self.version = str(message.get("version", ""))[:80]
        for what, ours in (("data", folders.data), ("runtime", folders.runtime)):
            theirs = Path(str(message.get(what, "")))
            # Two supervisors with a folder each would be two: the workers belong to the holder of ours.
            if not _same(theirs, ours):
                raise UpgradeFailed(
                    f"its {what} folder would be {theirs}, and ours is {ours}; stop this one and start it anew for that"
                )

    async def take_over(self, folders: Folders) -> Outcome:
        """Hand the locks over, after everything else was let go, and wait until it serves.

        Raises UpgradeFailed: the locks are ours again.
        """
        try:
            socket.send_fds(self._connection, [pack("go")], [2, *folders.locks])
            async with asyncio.timeout(SERVING_WITHIN):
                message = await self._message("serving", "ended")
        except TimeoutError:
            raise UpgradeFailed(f"it did not serve within {SERVING_WITHIN:g} s") from None
        except OSError as error:
            raise UpgradeFailed(f"it cannot be reached: {error.strerror}") from error
        return Outcome.SERVES if message["is"] == "serving" else Outcome.ENDED

    def set_free(self, environ: Mapping[str, str]) -> None:
        """Have it be the service from now on."""
        # Before it is told: it must not be on its own while systemd would end it for our end.
        systemd.ready(environ, pid=self.pid)
        with contextlib.suppress(OSError):
            self._connection.send(pack("end"))
        # It is nobody's child soon, and nothing to warn of.
        self._process.returncode = 0
        self._close()

    async def stopped(self, hurry: asyncio.Event) -> None:
        """Have it end in order, and wait for that; `hurry` is passed on."""
        self._process.send_signal(signal.SIGTERM)
        waits = [asyncio.create_task(event.wait()) for event in (hurry, self._gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self._gone.is_set():
                self._process.send_signal(signal.SIGTERM)
            await self._gone.wait()
        finally:
            for wait in waits:
                wait.cancel()
        await self.abandon()

    async def abandon(self) -> None:
        """Kill it, unless it has ended; when this returns it holds nothing any more."""
        if not self._gone.is_set():
            self._process.kill()
        await self._gone.wait()
        self._process.wait()
        self._listen()
        self._close()

    async def _message(self, *wanted: str) -> dict[str, Any]:
        """Wait for one of these. Raises UpgradeFailed where it says or does something else."""
        receive = asyncio.ensure_future(self._loop.sock_recv(self._connection, MESSAGE))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            # What its children keep open does not hide its end.
            await asyncio.wait({receive, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not receive.done():
                await asyncio.sleep(0)
            message: dict[str, Any] = {"is": ""}
            if receive.done() and receive.exception() is None and receive.result():
                message = unpack(receive.result())
        finally:
            receive.cancel()
            gone.cancel()
            await asyncio.wait({receive, gone})
        if message["is"] in wanted:
            return message
        if message["is"] == "refused" and isinstance(message.get("lines"), list):
            raise UpgradeFailed("; ".join(map(str, message["lines"])))
        raise UpgradeFailed(await self._obituary())

    async def _obituary(self) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._gone.wait()
        if not self._gone.is_set():
            return "it has let go of the connection to this one"
        code = self._process.wait()
        self._listen()
        how = f"exited with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        last = self._said.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        return f"it {how}{f': {last}' if last else ''}"

    def _note_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._gone.set()

    def _listen(self) -> None:
        """Pass on what it says; the last of it is the reason where it ends."""
        try:
            while data := os.read(self._words, 65536):
                self._said = (self._said + data)[-KEPT_WORDS:]
                with contextlib.suppress(OSError):
                    os.write(2, data)
        except BlockingIOError:
            return
        except OSError:
            pass  # closed
        self._loop.remove_reader(self._words)

    def _close(self) -> None:
        for descriptor in (self._pidfd, self._words):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._connection.close()


class Upgrades:
    """What `SIGUSR2` asks for. One attempt at a time: whoever asks meanwhile is answered by that one."""

    def __init__(self, folders: Folders, environ: Mapping[str, str], tell: Callable[[str], None]) -> None:
        """`environ`: what this process was started with. `tell` gets a sentence for health, empty while all is well."""
        self._folders = folders
        self._environ = environ
        self._tell = tell
        self._wanted = asyncio.Event()
        self._under_way = False
        self._number = ""

    def ask(self) -> None:
        if self._under_way:
            logger.info("an upgrade is under way already")
        else:
            self._wanted.set()

    async def ready(self) -> Successor:
        """Wait until one was asked for and its new version is prepared. One that fails is told, and the next waited for."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._under_way = True
            self._number = os.urandom(8).hex()
            await self._report("under-way")
            successor: Successor | None = None
            try:
                successor = Successor.start(command_line(), self._environ)
                logger.info("an upgrade is asked for: pid %d prepares itself", successor.pid)
                await successor.prepared(self._folders)
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not be the end of who serves
                if successor is not None:
                    await successor.abandon()
                await self.failed(str(error) if isinstance(error, UpgradeFailed) else repr(error))
            except BaseException:
                if successor is not None:
                    await successor.abandon()
                raise
            else:
                return successor

    async def failed(self, reason: str) -> None:
        """Tell that this version goes on."""
        self._under_way = False
        sentence = f"the upgrade failed: {reason}"
        logger.error("%s; this version serves on", sentence)
        self._tell(sentence)
        await self._report("failed", reason=reason)

    async def done(self, successor: Successor) -> None:
        """Tell that the other one serves."""
        await self._report("done", pid=successor.pid, version=successor.version)

    async def _report(self, state: str, **facts: Any) -> None:
        text = json.dumps({"number": self._number, "state": state, **facts})
        try:
            await asyncio.get_running_loop().run_in_executor(
                None, write_atomically, self._folders.runtime / REPORT, text.encode()
            )
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._folders.runtime / REPORT, error.strerror)


def command_line() -> list[str]:
    """Give the command that starts this program, to be found anew on disk."""
    if Path(sys.argv[0]).name == "__main__.py":
        # `python -m supervisor`, with the interpreter's own options.
        own = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
        return [sys.executable, *own]
    return [sys.argv[0]]


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False
