"""Child processes: their output, their end, their groups, and what a killed predecessor left."""

import asyncio
import os
import signal
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path

import psutil
import pytest

from actors.lines import LINE_LIMIT, Mask
from actors.process import (
    LINES_A_TURN,
    PATIENCE,
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
    async with asyncio.timeout(20):
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
    async with asyncio.timeout(20):
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
    async with asyncio.timeout(20):
        await end
    assert taken == [b"one", b"three"]
    assert "a line of output was lost" in caplog.text


async def test_secrets_are_struck_out_over_reads_and_cuts() -> None:
    secret = "s3cret-" + "y" * 30
    lines: list[bytes] = []
    end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    text = (
        "import os, time\n"
        f"os.write(1, b'-' * {LINE_LIMIT - 10} + b'{secret[:9]}'); time.sleep(0.05); os.write(1, b'{secret[9:]}')\n"
        f"os.write(1, b'\\nend {secret[:5]}'); time.sleep(0.05); os.write(1, b'{secret[5:]}')\n"
    )
    mask = Mask([secret])
    command = Command(script(text), Path("/"), dict(os.environ))
    Process(command, on_line=lines.append, on_end=end.set_result, mask=lambda: mask)
    async with asyncio.timeout(20):
        await end
    assert b"".join(lines) == b"-" * (LINE_LIMIT - 10) + b"********" + b"end ********"


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


def recorded(folder: Path, instance: str) -> Path:
    record_instance(folder, "worker", instance)
    return folder / "worker"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 100_000, b"0" * 31, b"0" * 32 + b"\n"])
def test_rubbish_among_the_records_is_left_alone_and_matches_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rubbish").write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    ours = new_instance()
    record = recorded(tmp_path, ours)
    # An empty record must not mean everybody whose instance is empty.
    bystander = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": ""})
    left = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": ours})
    try:
        assert end_leftovers(tmp_path) == [left.pid]
        assert bystander.poll() is None
        assert not record.exists()
        assert (tmp_path / "rubbish").read_bytes() == content
    finally:
        for process in (left, bystander):
            process.kill()
            process.wait(10)


def test_leftovers_that_multiply_are_all_found(tmp_path: Path) -> None:
    """Each has a child while the others are being looked for."""
    ours = new_instance()
    recorded(tmp_path, ours)
    generations = "import os, time\nfor _ in range(200):\n    if os.fork(): break\n    os.setsid()\ntime.sleep(600)\n"
    first = subprocess.Popen([sys.executable, "-S", "-c", generations], env={"TARS_INSTANCE": ours})
    try:
        assert end_leftovers(tmp_path)
        mark = f"TARS_INSTANCE={ours}".encode()
        assert not [pid for pid in psutil.pids() if mark in environ(pid)]
    finally:
        first.kill()
        first.wait(10)


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def test_a_process_that_may_not_be_read_or_ended_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and its record stays for the next start."""
    ours = new_instance()
    record = recorded(tmp_path, ours)
    read_bytes = Path.read_bytes
    left = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": ours})
    try:
        with monkeypatch.context() as refused:

            def refuse(*_: object) -> None:
                raise PermissionError(1, "Operation not permitted")

            refused.setattr(signal, "pidfd_send_signal", refuse)
            assert end_leftovers(tmp_path, timeout=0.05) == []
        assert left.poll() is None
        assert record.exists()
        with monkeypatch.context() as refused:
            refused.setattr(Path, "read_bytes", lambda path: refuse() if path.name == "environ" else read_bytes(path))
            assert end_leftovers(tmp_path, timeout=0.05) == []
        assert left.poll() is None
        record_instance(tmp_path, "worker", ours)
        assert end_leftovers(tmp_path) == [left.pid]
        assert not record.exists()
    finally:
        left.kill()
        left.wait(10)


def test_a_number_that_means_somebody_else_by_now_is_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at its environment and the hold on its number the process ended, and another got the number."""
    ours = new_instance()
    recorded(tmp_path, ours)
    stranger = subprocess.Popen(["/bin/sleep", "600"], env={"TARS_INSTANCE": "theirs"})
    looks = 0

    def look(path: Path) -> bytes:
        nonlocal looks
        if path == Path(f"/proc/{stranger.pid}/environ"):
            looks += 1
            return f"TARS_INSTANCE={ours}\0".encode() if looks % 2 else b"TARS_INSTANCE=theirs\0"
        with path.open("rb") as file:
            return file.read()

    try:
        with monkeypatch.context() as lying:
            lying.setattr(Path, "read_bytes", look)
            assert end_leftovers(tmp_path) == []
        assert looks == 2
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)


def test_no_records_mean_no_leftovers(tmp_path: Path) -> None:
    assert end_leftovers(tmp_path / "nowhere") == []
