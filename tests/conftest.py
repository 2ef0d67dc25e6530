"""What every test has: asyncio as the backend, a check that nothing is left behind, and a real Mosquitto."""

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from tests.support import Mosquitto, left_holders

# Seconds that ending threads and processes have to be gone.
SETTLE = 10.0
# The random number source stays open once a library has read it.
HARMLESS_FILES = frozenset({"/dev/urandom", "/dev/random"})


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Belongings:
    """Threads, child processes and open descriptors of this process at one moment."""

    threads: frozenset[threading.Thread]
    children: frozenset[psutil.Process]
    files: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> "Belongings":
        return cls(
            threads=frozenset(threading.enumerate()),
            children=frozenset(psutil.Process().children()),
            files=frozenset(_open_files()),
        )

    def new_since(self, before: "Belongings") -> list[str]:
        """What is here now and was not `before`, one sentence each."""
        found = [f"thread {thread.name}" for thread in self.threads - before.threads if thread.is_alive()]
        found += [f"process {_describe(child)}" for child in self.children - before.children]
        found += [f"descriptor {fd} of {target}" for fd, target in sorted(self.files - before.files)]
        return found


def _open_files() -> Iterator[tuple[int, str]]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue  # it was the descriptor of the listing itself
        if target not in HARMLESS_FILES:
            yield int(link.name), target


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid} (gone meanwhile)"


def _leaks(before: Belongings) -> list[str]:
    """What stays although rubbish was collected and ending things had time to end."""
    deadline = time.monotonic() + SETTLE
    while found := Belongings.now().new_since(before):
        if time.monotonic() > deadline:
            return found
        gc.collect()
        time.sleep(0.01)
    return []


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves a thread, a child process, an open descriptor or a holder of workers behind.

    It is the first function fixture to be set up and the last to be torn down, after the event loop's end.
    """
    before = Belongings.now()
    yield
    folder = getattr(request.node, "funcargs", {}).get("tmp_path")
    left = left_holders(folder, settle=SETTLE) if folder is not None else []
    if found := left + _leaks(before):
        for child in Belongings.now().children - before.children:
            child.kill()  # the tests after this one start clean
            child.wait(30)
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def leaves_no_task_behind(leaves_nothing_behind: None, request: pytest.FixtureRequest) -> None:
    """The same for asyncio tasks, where the test is a coroutine."""
    if _is_coroutine_test(request.node):
        request.getfixturevalue("_watched_tasks")


def _is_coroutine_test(node: Any) -> bool:
    test = getattr(node, "obj", None)
    return inspect.iscoroutinefunction(getattr(getattr(test, "hypothesis", None), "inner_test", test))


@pytest.fixture
async def _watched_tasks(leaves_nothing_behind: None) -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    if left := {task for task in asyncio.all_tasks() - before if not _is_plumbing(task)}:
        # Cancelled tasks need a few turns of the loop to end.
        _, left = await asyncio.wait(left, timeout=SETTLE)
    if left:
        pytest.fail("left behind: " + "; ".join(sorted(repr(task) for task in left)), pytrace=False)


def _is_plumbing(task: asyncio.Task[Any]) -> bool:
    """Whether it is one of the tasks in which anyio's plugin runs tests and fixtures."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


class MosquittoFactory(Protocol):
    def __call__(self, **options: Any) -> Mosquitto: ...


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[MosquittoFactory]:
    """Start brokers with `mosquitto(**options)` (see `tests.support.Mosquitto`); they end with the test."""
    started: list[Mosquitto] = []

    def start(**options: Any) -> Mosquitto:
        broker = Mosquitto(tmp_path / f"mosquitto-{len(started)}", **options)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.stop()
