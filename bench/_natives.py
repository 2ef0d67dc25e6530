"""The two C programs of the supervision figures, `sleeper.c` and `floor.c`, and the mailbox that sleepers tell their main()."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from bench._sides import Skipped
from tests.support import end_process
from tests.system.program import ROOT

PATIENCE: Final = 20.0
"""Seconds within which a worker must be back, the slowest supervisor's included."""


@dataclass(frozen=True)
class Main:
    """What a sleeper has told: `at` is in nanoseconds of `time.monotonic_ns`; what `figure` is stands in `sleeper.c`."""

    name: str
    pid: int
    at: int
    figure: int


class Natives:
    """The programs, compiled into a folder, and the mailbox. `Skipped` where they cannot be compiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.floor = _compiled(folder, "floor")
        self._sleeper = _compiled(folder, "sleeper")
        self._address = folder / "mains"
        self._mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._mailbox.bind(str(self._address))
        self.latest: dict[str, Main] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left of the run, whoever was to do it: all of it has the run's folder in its command line."""
        self._mailbox.close()
        for pid in processes_of(self.folder):
            end(pid, grace=0)

    def sleeper(self, name: str, *manner: str | Path) -> list[str]:
        """Give the command of a worker that tells its main() under this name."""
        return [str(self._sleeper), str(self._address), name, *map(str, manner)]

    def take(self, within: float = PATIENCE) -> Main:
        """Wait for what is told next. TimeoutError where nothing is."""
        self._mailbox.settimeout(within)
        name, *numbers = self._mailbox.recv(256).decode().split()
        told = self.latest[name] = Main(name, *map(int, numbers))
        return told

    def until(self, name: str, since: int = 0, within: float = PATIENCE) -> Main:
        """Wait for what `name` tells of a moment not before `since`."""
        deadline = time.monotonic() + within
        while (told := self.latest.get(name)) is None or told.at < since:
            self.take(max(0.001, deadline - time.monotonic()))
        return told

    def back(self, name: str, sig: signal.Signals = signal.SIGKILL, *, age: float = 0.0) -> float:
        """End a worker that has lived for `age` seconds: the seconds from the signal to its successor's main()."""
        before = self.until(name)
        time.sleep(max(0.0, age - (time.monotonic_ns() - before.at) / 1e9))
        began = time.monotonic_ns()
        os.kill(before.pid, sig)
        return (self.until(name, began).at - began) / 1e9

    @contextlib.contextmanager
    def kept_by_floor(
        self, command: list[str], count: int = 1, environment: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """Have the floor keep `count` of this command running."""
        process = subprocess.Popen(
            [self.floor, str(count), *command], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield
        finally:
            end_process(process)


def _compiled(folder: Path, name: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped(f"no C compiler (cc) for {name}.c")
    program = folder / name
    built = subprocess.run(
        [compiler, "-O2", "-static", "-o", program, ROOT / "bench" / f"{name}.c"], capture_output=True, check=False
    )
    if built.returncode:
        raise Skipped(f"{name}.c does not compile: {built.stderr.decode(errors='replace')[:200]}")
    return program


def command_line(pid: int) -> list[str]:
    """Give a process's command line (proc_pid_cmdline(5)); nothing of one that has ended, a zombie included."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return []


def processes_of(folder: Path) -> list[int]:
    """Every process but this one that names this folder in its command line."""
    mark = f"{folder}/"
    return [pid for pid in _pids() if any(mark in f"{word}/" for word in command_line(pid))]


def processes_with(commands: Iterable[Sequence[str]]) -> list[int]:
    """Every process that has one of these command lines."""
    wanted = {tuple(command) for command in commands}
    return [pid for pid in _pids() if tuple(command_line(pid)) in wanted]


def _pids() -> list[int]:
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and entry.name != str(os.getpid())
    ]


def children_of(pid: int) -> list[int]:
    """Its children and theirs (proc_pid_task_children(5))."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return [*found, *(grandchild for child in found for grandchild in children_of(child))]


def gone(pid: int, within: float) -> float:
    """Wait for the end of any process, ours or not: the moment (`time.monotonic`) that it was seen."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(within * 1000):
                raise TimeoutError(f"process {pid} still runs after {within:g} s")
        finally:
            os.close(pidfd)
    return time.monotonic()


def end(pid: int, grace: float) -> None:
    """Give a process so many seconds to end, and kill it."""
    try:
        gone(pid, grace)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
