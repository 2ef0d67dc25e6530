"""Child processes: their output, their end, their groups, and what a killed predecessor left."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from actors.lines import LINE_LIMIT
from actors.process import (
    Command,
    Ended,
    Process,
    SpawnFailed,
    end_leftovers,
    new_instance,
    record_instance,
)
from tests.support import wait_until


class Watched:
    """A process with what it said and how it ended."""

    def __init__(self, *argv: str, cwd: Path = Path("/"), **environment: str) -> None:
        self.lines: list[bytes] = []
        self.end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        command = Command(argv, cwd, {"PATH": os.environ["PATH"], **environment})
        self.process = Process(command, on_line=self.lines.append, on_end=self.end.set_result)

    async def ended(self) -> Ended:
        async with asyncio.timeout(20):
            return await self.end

    async def said(self, line: bytes) -> None:
        async with asyncio.timeout(20):
            while line not in self.lines:
                await asyncio.sleep(0.005)


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-u", "-c", text)


async def test_output_comes_line_by_line_and_before_the_end() -> None:
    watched = Watched(
        *script("import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('no newline')")
    )
    assert await watched.ended() == Ended(watched.process.pid, 0)
    assert watched.lines == [b"one", b"two", b"no newline"]


async def test_an_endless_line_is_cut_and_binary_passes() -> None:
    size = 3 * LINE_LIMIT + 5
    watched = Watched(*script(f"import os; os.write(1, b'x' * {size} + b'\\n\\xff\\x00\\r\\n')"))
    await watched.ended()
    assert b"".join(watched.lines[:-1]) == b"x" * size
    assert max(len(line) for line in watched.lines) <= LINE_LIMIT
    assert watched.lines[-1] == b"\xff\x00"


@pytest.mark.parametrize(("text", "words"), [("raise SystemExit(3)", "exited with 3"), ("pass", "exited with 0")])
async def test_an_exit_tells_its_status(text: str, words: str) -> None:
    assert str(await Watched(*script(text)).ended()) == words


async def test_a_signal_is_named() -> None:
    watched = Watched(*script("print('up'); import time; time.sleep(600)"))
    await watched.said(b"up")
    os.kill(watched.process.pid, signal.SIGSEGV)
    assert str(await watched.ended()) == "was killed by SIGSEGV"


async def test_terminate_asks_first_and_kills_after_the_grace() -> None:
    polite = Watched(*script("import time\ntry:\n  print('up'); time.sleep(600)\nexcept BaseException: pass"))
    await polite.said(b"up")
    polite.process.terminate(60.0)
    assert (await polite.ended()).code == -signal.SIGTERM
    deaf = Watched(*script("import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"))
    await deaf.said(b"up")
    deaf.process.terminate(0.05)
    assert (await deaf.ended()).code == -signal.SIGKILL


async def test_its_children_go_with_it() -> None:
    watched = Watched("/bin/sh", "-c", "sleep 600 & echo $!; wait")
    async with asyncio.timeout(20):
        while not watched.lines:
            await asyncio.sleep(0.005)
    grandchild = int(watched.lines[0])
    os.kill(watched.process.pid, signal.SIGKILL)
    await watched.ended()
    await asyncio.to_thread(
        wait_until, lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie"
    )


async def test_a_grandchild_that_holds_the_pipe_does_not_hide_the_end() -> None:
    # In a session of its own, so that the group's end does not reach it; ended here by its number.
    watched = Watched("/bin/sh", "-c", "setsid sleep 600 & echo $!")
    assert (await watched.ended()).clean
    holder = int(watched.lines[0])
    assert psutil.pid_exists(holder)
    os.kill(holder, signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "cwd", "words"),
    [
        (("no-such-program-here",), "/", "there is no program no-such-program-here"),
        (("/etc/passwd",), "/", "is not executable; run: chmod +x /etc/passwd"),
        (("/bin/true",), "/nowhere", "working folder /nowhere does not exist"),
    ],
)
async def test_what_cannot_be_started_says_why(argv: tuple[str, ...], cwd: str, words: str) -> None:
    with pytest.raises(SpawnFailed, match=words.replace("+", r"\+")):
        Watched(*argv, cwd=Path(cwd))


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from actors.process import Command, Process\n"
        "async def main():\n"
        "    command = Command(('sleep', '600'), Path('/'), {'PATH': os.environ['PATH']})\n"
        "    print(Process(command, on_line=print, on_end=print).pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, parent], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            wait_until(lambda: psutil.Process(child).name() == "sleep", what="the exec")
        finally:
            process.kill()
    wait_until(
        lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE,
        what="the child's end",
    )


def test_leftovers_are_found_by_their_mark_and_nobody_else(tmp_path: Path) -> None:
    ours, other = new_instance(), new_instance()
    record_instance(tmp_path / "instances", "worker", ours)
    left = subprocess.Popen(
        [sys.executable, "-c", "import os, time\nos.setsid()\ntime.sleep(600)"], env={"TARS_INSTANCE": ours}
    )
    bystander = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": other})
    try:
        assert end_leftovers(tmp_path / "instances") == [left.pid]
        assert left.wait(10) == -signal.SIGKILL
        assert bystander.poll() is None
        assert end_leftovers(tmp_path / "instances") == []
    finally:
        for process in (left, bystander):
            process.kill()
            process.wait(10)


def test_no_records_mean_no_leftovers(tmp_path: Path) -> None:
    assert end_leftovers(tmp_path / "nowhere") == []
