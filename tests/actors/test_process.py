"""Short commands: their output, their end, their groups."""

import asyncio
import os
import signal
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path

import psutil
import pytest

from actors.lines import LINE_LIMIT
from actors.process import (
    LINES_A_TURN,
    PATIENCE,
    Command,
    Ended,
    Process,
    SpawnFailed,
    run_to_end,
)
from tests.support import eventually, wait_until


class Watched:
    """A process with what it said and how it ended."""

    def __init__(self, *argv: str, cwd: Path = Path("/"), **environment: str) -> None:
        self.lines: list[bytes] = []
        self.end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        command = Command(argv, cwd, {"PATH": os.environ["PATH"], **environment})
        self.process = Process(command, on_line=self.lines.append, on_end=self.end.set_result)

    async def ended(self) -> Ended:
        async with asyncio.timeout(30):
            return await self.end

    async def said(self, line: bytes) -> None:
        async with asyncio.timeout(30):
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


async def test_nothing_of_the_request_that_started_it_sticks_to_it() -> None:
    request: ContextVar[str] = ContextVar("request", default="nobody's")
    seen: list[str] = []
    end = asyncio.Event()

    def on_end(_: Ended) -> None:
        seen.append(request.get())
        end.set()

    request.set("somebody's")
    flood = f"print('x\\n' * {3 * LINES_A_TURN}, end='', flush=True)"
    text = f"import signal, time; signal.signal(15, signal.SIG_IGN); {flood}; time.sleep(600)"
    process = Process(
        Command(script(text), Path("/"), {"PATH": os.environ["PATH"]}),
        on_line=lambda _: seen.append(request.get()),
        on_end=on_end,
    )
    async with asyncio.timeout(30):
        while len(seen) < 3 * LINES_A_TURN:
            await asyncio.sleep(0.005)
        process.terminate(0.01)
        await end.wait()
    assert set(seen) == {"nobody's"}


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


@pytest.mark.parametrize("chunk", ["b'\\n' * 65536", "b'x' * 65536"])
async def test_a_flood_leaves_the_loop_its_turns(chunk: str) -> None:
    """65536 empty lines come with one read, or lines without an end; only some of it is handed over in one turn of the
    loop, and not in every turn, so that other threads get the interpreter, too.
    """
    handed, most, turns, busy = 0, 0, 0, 0

    def on_line(_: bytes) -> None:
        nonlocal handed
        handed += 1

    end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    command = Command(script(f"import os\nwhile True: os.write(1, {chunk})"), Path("/"), dict(os.environ))
    process = Process(command, on_line=on_line, on_end=end.set_result)
    async with asyncio.timeout(30):
        while handed < 40:
            before = handed
            await asyncio.sleep(0)
            most = max(most, handed - before)
            turns += 1
            busy += handed > before
        process.kill()
        before = handed
        await end
    assert most <= LINES_A_TURN
    assert busy * 5 < turns
    # What was in the pipe at its end is handed over, and no more than that.
    assert handed - before <= 4 * 65536 + LINES_A_TURN


async def test_a_burst_is_whole_and_of_a_flood_lines_are_left_out_and_counted() -> None:
    burst, flood = 3000, PATIENCE * LINES_A_TURN * 20
    watched = Watched(
        *script(
            "import sys, time\n"
            f"sys.stdout.write(''.join(f'burst {{n}}\\n' for n in range({burst}))); sys.stdout.flush()\n"
            f"for n in range({flood}): sys.stdout.write('flood\\n')\n"
            "print('last words')\n"
        )
    )
    await watched.ended()
    assert watched.lines[:burst] == [b"burst %d" % n for n in range(burst)]
    shown = watched.lines.count(b"flood")
    assert shown > PATIENCE * LINES_A_TURN - burst
    left_out = [int(line[1:].split()[0]) for line in watched.lines if line.endswith(b"lines were left out)")]
    assert left_out
    assert shown + sum(left_out) == flood
    assert b"last words" in watched.lines[-2:]  # the count comes at the end of the flood, a few lines late


async def test_a_grandchild_that_floods_the_pipe_does_not_hide_the_end(tmp_path: Path) -> None:
    """In a session of its own, so that it goes on writing after the end of the group."""
    flooding = tmp_path / "flooding"
    flood = (
        "import os\nprint(os.getpid(), flush=True)\n"
        f"open({str(flooding)!r}, 'w')\n"
        "while True: os.write(1, b'x' * 65535 + b'\\n')"
    )
    leader = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-I', '-S', '-c', {flood!r}], start_new_session=True)\n"
        f"while not os.path.exists({str(flooding)!r}): time.sleep(0.01)\n"
    )
    watched = Watched(*script(leader))
    assert (await watched.ended()).clean
    holder = int(watched.lines[0])
    # Its pipe is closed, and that ends it.
    await asyncio.to_thread(wait_until, lambda: not psutil.pid_exists(holder), what="SIGPIPE")


async def test_a_line_that_cannot_be_taken_loses_no_other(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[bytes] = []
    end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def on_line(line: bytes) -> None:
        if line == b"two":
            raise ValueError("no")
        taken.append(line)

    Process(Command(("/bin/echo", "one\ntwo\nthree"), Path("/"), {}), on_line=on_line, on_end=end.set_result)
    async with asyncio.timeout(30):
        await end
    assert taken == [b"one", b"three"]
    assert "a line of output was lost" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("print('one'); print('two'); print(); raise SystemExit(3)", "two"),
        ("pass", ""),
        ("print('first ' + 'x' * 3 * 16384 + 'y', end='')", "first " + "x" * (LINE_LIMIT - 6)),
    ],
)
async def test_the_last_line_of_a_command(text: str, words: str) -> None:
    """Of one that is too long its beginning, where nothing stands that began further in front."""
    async with asyncio.timeout(30):
        ended, last = await run_to_end(Command(script(text), Path("/"), dict(os.environ)))
    assert (str(ended), last) == (f"exited with {3 if 'raise' in text else 0}", words)


async def test_a_command_that_is_not_waited_for_is_gone(tmp_path: Path) -> None:
    text = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(600)"
    running = asyncio.create_task(run_to_end(Command(script(text), tmp_path, dict(os.environ))))
    file = tmp_path / "pid"
    await eventually(lambda: file.exists() and file.read_text().endswith("."), what="that it runs")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await running
    assert not psutil.pid_exists(int(file.read_text()[:-1]))


async def test_without_descriptors_nothing_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[int] = []

    def refuse(pid: int) -> int:
        spawned.append(pid)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(SpawnFailed, match="Too many open files"):
        Watched("/bin/sleep", "600")
    assert not psutil.pid_exists(spawned[0])


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
    async with asyncio.timeout(30):
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
