"""Child processes on the event loop: spawned without a thread, ended as a group, their end seen through a pidfd.

A child is the leader of a session of its own, and the kernel kills it when this program dies however abruptly
(prctl(2), PR_SET_PDEATHSIG, set by setpriv(1)). Whatever survives that, because it was a grandchild or because
the death came between two steps, is found at the next start by the instance in its environment (`end_leftovers`).
"""

import asyncio
import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTANCE_VARIABLE = "TARS_INSTANCE"

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LINE_LIMIT = 16 * 1024
"""Bytes of output taken as one line; a longer one is cut into several."""

READ_SIZE = 64 * 1024


class SpawnFailed(Exception):
    """The command could not be started; the message says why and names the command."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `argv[0]` is a path, or a name that is looked up in the PATH of `environment`."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: `code` is its exit status, or minus the number of the signal that killed it."""

    pid: int
    code: int

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exited with {self.code}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-self.code).name}"
        return f"was killed by signal {-self.code}"


class Process:
    """One child. Everything here runs on the loop's thread; no call blocks.

    `on_line` gets each line of standard output and error, as they come, without the line end. `on_end` is called exactly
    once, after the whole process group is gone and its last output was read. The order of the two is kept.
    """

    def __init__(self, command: Command, *, on_line: Callable[[bytes], None], on_end: Callable[[Ended], None]) -> None:
        """Start the command.

        Raises:
            SpawnFailed: there is no such program or folder, or the system refuses.
        """
        self._on_line = on_line
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._kill_timer: asyncio.TimerHandle | None = None
        self._popen = _spawn(command)
        self.pid = self._popen.pid
        assert self._popen.stdout is not None
        self._output: int | None = self._popen.stdout.fileno()
        os.set_blocking(self._output, False)
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._output, self._read)
        self._loop.add_reader(self._pidfd, self._exited)

    @property
    def running(self) -> bool:
        return self._pidfd >= 0

    def terminate(self, grace: float, sig: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process to end, and kill its whole group after `grace` seconds. `on_end` follows."""
        if not self.running:
            return
        # To the leader alone: it decides in which order its own children go.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, sig)
        if self._kill_timer is None:
            self._kill_timer = self._loop.call_later(grace, self.kill)

    def kill(self) -> None:
        """Kill the whole group at once. `on_end` follows."""
        if self.running:
            # The leader has not been reaped yet, so its number is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _exited(self) -> None:
        # The leader is a zombie and still holds its number: kill what is left of its group before reaping it, so that
        # the signal cannot reach a stranger who was given the number since.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        # A grandchild in a session of its own may hold the pipe open for ever: take what is there and close.
        while self._output is not None and self._read():
            pass
        self._close_output()
        self._on_end(Ended(self.pid, code))

    def _read(self) -> bool:
        """Read once; false where nothing is there now."""
        if self._output is None:
            return False
        try:
            chunk = os.read(self._output, READ_SIZE)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_output()
            return False
        self._buffer += chunk
        *lines, rest = self._buffer.split(b"\n")
        for line in lines:
            self._emit(line)
        while len(rest) > LINE_LIMIT:
            self._on_line(bytes(rest[:LINE_LIMIT]))
            rest = rest[LINE_LIMIT:]
        self._buffer = rest
        return True

    def _emit(self, line: bytearray) -> None:
        line = line.removesuffix(b"\r")
        for start in range(0, len(line) or 1, LINE_LIMIT):
            self._on_line(bytes(line[start : start + LINE_LIMIT]))

    def _close_output(self) -> None:
        if self._output is None:
            return
        self._loop.remove_reader(self._output)
        self._output = None
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        if self._buffer:
            self._emit(self._buffer)
            self._buffer = bytearray()


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


def new_instance() -> str:
    """Give the random name of a start that is about to be made."""
    return secrets.token_hex(16)


def record_instance(folder: Path, name: str, instance: str) -> None:
    """Write down which instance is about to run, before it does: `end_leftovers` goes by these records."""
    folder.mkdir(mode=0o700, exist_ok=True)
    record = folder / name
    partial = folder / f".{name}"
    partial.write_text(instance, encoding="ascii")
    partial.rename(record)


def end_leftovers(folder: Path, timeout: float = 5.0) -> list[int]:
    """Kill every process that carries a recorded instance, and wait until they are gone; give their pids.

    Blocks for a few milliseconds, up to `timeout` seconds: call it before the loop runs.
    """
    try:
        records = list(folder.iterdir())
    except FileNotFoundError:
        return []
    marks = {f"{INSTANCE_VARIABLE}={record.read_text(encoding='ascii')}".encode() for record in records}
    found: dict[int, int] = {}
    for pid in _carriers(marks):
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            # Only now is the number pinned: look again whose it is.
            if marks & _environment(pid):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                found[pid] = pidfd
            else:
                os.close(pidfd)
    deadline = time.monotonic() + timeout
    for pidfd in found.values():
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        os.close(pidfd)
    for record in records:
        record.unlink(missing_ok=True)
    return sorted(found)


def _carriers(marks: set[bytes]) -> Sequence[int]:
    own = os.getpid()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208  # ten times the speed
    return [pid for pid in pids if pid != own and marks & _environment(pid)]


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
