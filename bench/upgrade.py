"""Twenty upgrades while others ask: who was touched, who was refused, how long the longest waited."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from bench._clients import HOST, Request
from bench._harness import Bar, Row, Run, Series
from bench._natives import Natives, command_line, gone
from bench._sides import Skipped, first_200
from bench._supervisors import Native
from tests.support import free_port
from tests.system.program import PROGRAM

UPGRADES: Final = 20
WORKERS: Final = 6
ASKING: Final = 4
WITHIN: Final = 30.0
"""Seconds within which an upgrade must be over."""


class Load:
    """Threads that ask one question after the other, each on a connection of its own."""

    def __init__(self, port: int, request: Request) -> None:
        self._port = port
        self._wire = request.wire(port)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(ASKING)]
        self.waits: list[float] = []
        self.refused = 0
        self.answers = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            try:
                with socket.create_connection((HOST, self._port), timeout=WITHIN) as client:
                    client.sendall(self._wire)
                    answered = client.recv(1 << 16).startswith(b"HTTP/1.1 200")
            except OSError:
                answered = False
            self.waits.append(time.perf_counter() - began)
            self.answers += answered
            self.refused += not answered
            # Enough to have a question under way at any moment, and not so many that they slow the start down.
            time.sleep(0.01)


def upgrade(run: Run) -> Iterator[Row]:
    """`Skipped` where the program does not take SIGUSR2."""
    with contextlib.ExitStack() as stack:
        natives = stack.enter_context(Natives(run.folder))
        names = [f"worker-{number}" for number in range(WORKERS)]
        ours = Native(run.folder / "ours", {name: natives.sleeper(name) for name in names})
        stack.enter_context(ours)
        if not _handles(ours.pid, signal.SIGUSR2):
            raise Skipped("the program does not handle SIGUSR2")
        stack.callback(_end_supervisors, ours.folder)
        before = {name: natives.until(name).pid for name in names}
        cold = _cold_start(
            Native(run.folder / "cold", {f"cold-{name}": natives.sleeper(f"cold-{name}") for name in names})
        )
        serving = ours.pid
        with Load(ours.port, ours.gets(names[0])) as load:
            for _ in range(run.count(UPGRADES)):
                os.kill(serving, signal.SIGUSR2)
                serving = _successor(ours.folder, serving)
        with contextlib.suppress(TimeoutError):
            while True:
                natives.take(within=0.1)
        touched = sum(natives.latest[name].pid != pid or not command_line(pid) for name, pid in before.items())
    what = f"{run.count(UPGRADES)} upgrades"
    yield Row("upgrade", f"{what}: workers touched of {WORKERS}", Series("", [touched]), bar=Bar(0))
    yield Row("upgrade", f"  refused of {load.answers + load.refused}", Series("", [load.refused]), bar=Bar(0))
    longest = Series("ms", [(max(load.waits) - cold) * 1e3])
    yield Row("upgrade", "  longest wait above a cold start", longest, bar=Bar(100))


def _handles(pid: int, sig: signal.Signals) -> bool:
    """Whether a process has a handler for the signal (`SigCgt` of proc_pid_status(5)): else it would end of it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (sig - 1) & 1)
    return False


def _cold_start(it: Native) -> float:
    """Seconds from the start of the process to the first 200, with a store from before."""
    with it:
        question = it.gets(next(iter(it.commands)))
    it.environment["CONFIG_API_PORT"] = str(free_port())
    began = time.perf_counter()
    try:
        process = it.begin()
        first_200(int(it.environment["CONFIG_API_PORT"]), question, process)
        return time.perf_counter() - began
    finally:
        it.__exit__()


def _supervisors(folder: Path) -> list[int]:
    """Supervisors that run in this folder; after an upgrade they are no children of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        # Any of them may end while it is looked at.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return [pid for pid in found if str(PROGRAM) in command_line(pid)]


def _successor(folder: Path, before: int) -> int:
    """Wait until that supervisor has ended: the one that serves now."""
    gone(before, WITHIN)
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        for pid in _supervisors(folder):
            if pid != before:
                return pid
        time.sleep(0.01)
    raise TimeoutError("after an upgrade no supervisor runs")


def _end_supervisors(folder: Path) -> None:
    for pid in _supervisors(folder):
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            os.kill(pid, signal.SIGTERM)
            gone(pid, WITHIN)
