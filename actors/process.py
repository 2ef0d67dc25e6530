"""Short commands on the event loop, such as probes: spawned without a thread, ended as a group, their end seen through a pidfd.

A child is the leader of a session of its own, and the kernel kills it when this program dies however abruptly
(prctl(2), PR_SET_PDEATHSIG, set by setpriv(1)). Workers are not started so: they belong to the holder and outlive us.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping
from contextvars import Context
from pathlib import Path
from typing import ClassVar

from msgspec import Struct

from actors.exits import how_it_ended
from actors.lines import LINE_LIMIT, Lines

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

READ_SIZE = 64 * 1024

LINES_A_TURN = 50
BYTES_A_TURN = 64 * 1024
TURN_EVERY = 0.006
"""Lines and bytes handed over in a go, and seconds from one go to the next where there is more: about 8000 lines or 10 MiB
a second, of all children together. More would keep the loop, and through the interpreter's lock every thread, from
everybody else's work.
"""
PATIENCE = 100
"""Goes in a row with more to come, until what is beyond a go is left out: a child that floods is not stopped by it, nor is
one whose helper does.
"""
KEPT = 20
"""Lines at the end of what is left out that are handed over all the same: they may be last words."""
TOLD_EVERY = 100_000
"""Lines left out, after which that is said; and at the end of the flood."""

logger = logging.getLogger(__name__)


class SpawnFailed(Exception):
    """The command could not be started; the message says why and names the command."""


class Command(Struct, frozen=True):
    """What to run. `argv[0]` is a path, or a name that is looked up in the PATH of `environment`."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]


class Ended(Struct, frozen=True):
    """How a process ended: `code` is its exit status, or minus the number of the signal that killed it."""

    pid: int
    code: int

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        return how_it_ended(self.code)


async def run_to_end(command: Command) -> tuple[Ended, str]:
    """Run a command. Gives how it ended, and the last line that it wrote and that is not empty.

    Of a line that is too long it is the beginning: what is to be struck out of it would have lost its own further on.
    Cancelled, it kills the command's whole group, and returns when that is gone.

    Raises:
        SpawnFailed: see `Process`.
    """
    last, goes_on = b"", False
    ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def line(text: bytes) -> None:
        nonlocal last, goes_on
        if text.strip() and not goes_on:
            last = text
        goes_on = len(text) == LINE_LIMIT

    process = Process(command, on_line=line, on_end=ended.set_result)
    try:
        await asyncio.wait({ended})
    except asyncio.CancelledError:
        process.kill()
        # SIGKILL is not waited for in vain but where the kernel itself hangs. A second cancellation has to wait as well.
        while not ended.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({ended})
        raise
    return ended.result(), last.decode("utf-8", "replace").strip()


class Process:
    """One child. Everything here runs on the loop's thread; no call blocks.

    `on_line` gets each line of standard output and error, as they come, without the line end. `on_end` is called exactly
    once, after the whole process group is gone and its last output was handed over. The order of the two is kept. Of a
    flood that lasts, lines are left out, and counted in a line of our own. Both are called with empty context variables: a
    process outlives the request that started it.
    """

    _flooding: ClassVar[set["Process"]] = set()
    """Those with more lines at hand than one go takes; they share what a loop can bear."""

    def __init__(
        self,
        command: Command,
        *,
        on_line: Callable[[bytes], None],
        on_end: Callable[[Ended], None],
    ) -> None:
        """Start the command.

        Raises:
            SpawnFailed: there is no such program or folder, or the system refuses.
        """
        self._on_line = on_line
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._lines = Lines()
        self._turn: asyncio.Handle | None = None
        self._goes = 0
        self._left_out = 0
        self._ended: Ended | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._popen = _spawn(command)
        self.pid = self._popen.pid
        assert self._popen.stdout is not None
        self._output: int | None = self._popen.stdout.fileno()
        os.set_blocking(self._output, False)
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            # Out of descriptors: one that nobody would see the end of must not run.
            self._popen.kill()
            self._popen.wait()
            self._popen.stdout.close()
            raise SpawnFailed(f"{command.argv[0]} could not be watched: {error.strerror}") from error
        # What they register in turn is registered in this context, too.
        empty = Context()
        empty.run(self._loop.add_reader, self._output, self._read)
        empty.run(self._loop.add_reader, self._pidfd, self._exited)

    @property
    def running(self) -> bool:
        return self._pidfd >= 0

    def terminate(
        self, grace: float, sig: signal.Signals = signal.SIGTERM, *, on_overdue: Callable[[], None] = lambda: None
    ) -> None:
        """Ask the process to end, and kill its whole group after `grace` seconds. `on_end` follows.

        `on_overdue` is called before that killing.
        """
        if not self.running:
            return
        # To the leader alone: it decides in which order its own children go.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, sig)
        if self._kill_timer is None:
            self._kill_timer = self._loop.call_later(grace, self._overdue, on_overdue, context=Context())

    def kill(self) -> None:
        """Kill the whole group at once. `on_end` follows."""
        if self.running:
            # The leader has not been reaped yet, so its number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _overdue(self, on_overdue: Callable[[], None]) -> None:
        on_overdue()
        self.kill()

    def _exited(self) -> None:
        # The leader is a zombie and still holds its number: kill what is left of its group before reaping it, so that
        # the signal cannot reach a stranger who was given the number since.
        self.kill()
        code = self._popen.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._ended = Ended(self.pid, code)
        # A grandchild in a session of its own may hold the pipe open for ever, or fill it for ever: take what is there
        # now, which is all that the group has written, and close.
        self._take(_readable(self._output))
        self._close_output()
        self._lines.end()
        if self._turn is not None:
            self._turn.cancel()
        self._tell_left_out()
        self._hand_over()

    def _read(self) -> None:
        self._take(READ_SIZE)
        self._hand_over(fresh=True)

    def _take(self, size: int) -> None:
        """Read at most `size` bytes of what is there."""
        while size > 0 and self._output is not None:
            try:
                chunk = os.read(self._output, min(size, READ_SIZE))
            except BlockingIOError:
                return
            if not chunk:
                self._close_output()
            self._lines.feed(chunk)
            size -= len(chunk)

    def _hand_over(self, *, fresh: bool = False) -> None:
        """Hand over some lines, and the others later; the pipe is read again when none is left."""
        self._turn = None
        lines, size = 0, 0
        while lines < LINES_A_TURN and size < BYTES_A_TURN and (line := self._lines.take()) is not None:
            lines += 1
            size += len(line)
            self._emit(line)
        if line is not None:
            if self._output is not None:
                self._loop.remove_reader(self._output)
            self._flooding.add(self)
            self._goes += 1
            if self._goes > PATIENCE and self._ended is None:
                self._left_out += self._lines.drop(KEPT)
            if self._left_out >= TOLD_EVERY:
                self._tell_left_out()
            pause = TURN_EVERY * len(self._flooding) if self._ended is None else 0.0
            self._turn = self._loop.call_later(pause, self._hand_over)
            return
        self._flooding.discard(self)
        if fresh:
            # All that has come fitted into a go.
            self._goes = 0
            self._tell_left_out()
        if self._ended is not None:
            self._on_end(self._ended)
        elif self._output is not None:
            self._loop.add_reader(self._output, self._read)

    def _emit(self, line: bytes) -> None:
        try:
            self._on_line(line)
        except Exception:
            logger.exception("a line of output was lost")

    def _tell_left_out(self) -> None:
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._emit(b"(%d lines were left out)" % left_out)

    def _close_output(self) -> None:
        if self._output is None:
            return
        self._loop.remove_reader(self._output)
        self._output = None
        assert self._popen.stdout is not None
        self._popen.stdout.close()


def _readable(descriptor: int | None) -> int:
    """Bytes that wait in a pipe (ioctl_tty(2), FIONREAD)."""
    if descriptor is None:
        return 0
    (size,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(size)


def _spawn(command: Command) -> "subprocess.Popen[bytes]":
    program = command.argv[0]
    found = shutil.which(program, path=command.environment.get("PATH", DEFAULT_PATH))
    if not command.cwd.is_dir():
        raise SpawnFailed(f"its working folder {command.cwd} does not exist")
    if found is None:
        if os.sep in program and Path(program).is_file():
            raise SpawnFailed(f"{program} is not executable; run: chmod +x {program}")
        raise SpawnFailed(f"there is no program {program}; mend `command` in the manifest")
    # The signal follows the death of the thread that spawns, so this must run on the program's main thread.
    guard = shutil.which("setpriv")
    prefix = (guard, "--pdeathsig", "KILL", "--") if guard else ()
    try:
        return subprocess.Popen(
            (*prefix, found, *command.argv[1:]),
            cwd=command.cwd,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise SpawnFailed(f"{program} could not be started: {error.strerror}") from error
