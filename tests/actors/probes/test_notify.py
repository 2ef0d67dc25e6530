"""The notify socket with real senders: the worker's own are heard, strangers are not, and no message does harm."""

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.probes import Notice, NotifySocket, read_notice
from actors.probes._notify import MESSAGES_A_TURN
from tests.support import eventually

MARK = f"TARS_INSTANCE={uuid.uuid4().hex}"

SEND = (
    "import os, socket, sys\n"
    "with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:\n"
    "    sender.sendto(sys.argv[1].encode(), os.environ['NOTIFY_SOCKET'])\n"
)


@pytest.mark.parametrize(
    ("message", "notice"),
    [
        (b"READY=1", Notice(ready=True)),
        (b"READY=1\nSTATUS=models loaded\nMAINPID=4242\n", Notice(ready=True, status="models loaded")),
        (b"READY=0\nSTOPPING=1", Notice(stopping=True)),
        (b"WATCHDOG=1", Notice(watchdog=True)),
        (b"WATCHDOG=trigger", Notice(trigger=True)),
        (b"STATUS=a\x1b[31mb\x00c" + b"x" * 4000, Notice(status="a [31mb c" + "x" * 4000)),
        (b"STATUS=", Notice(status="")),
        (b"STATUS=\xff", Notice(status="\ufffd")),
        (b"", Notice()),
        (b"ready=1\nREADY\n=1\nFDSTORE=1\nBARRIER=1", Notice()),
    ],
)
def test_messages(message: bytes, notice: Notice) -> None:
    assert read_notice(message) == notice


class Heard(list[Notice]):
    pass


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[tuple[NotifySocket, Heard]]:
    notices = Heard()
    notify = NotifySocket(tmp_path / "n", notices.append, mark=MARK)
    notify.listen(None)
    yield notify, notices
    notify.close()
    notify.close()
    assert not notify.path.exists()


def send(notify: NotifySocket, message: str, *, marked: bool = True, code: str = SEND, **options: Any) -> Any:
    environment = {"NOTIFY_SOCKET": str(notify.path), "PATH": os.environ["PATH"]}
    if marked:
        name, _, value = MARK.partition("=")
        environment[name] = value
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code, message], env=environment, **options)


async def test_a_process_of_the_instance_is_heard_while_it_lives(heard: tuple[NotifySocket, Heard]) -> None:
    notify, notices = heard
    assert notify.path.stat().st_mode & 0o777 == 0o600
    process = send(notify, "READY=1", code=f"{SEND}\nsys.stdin.read()", stdin=subprocess.PIPE)
    await eventually(lambda: notices)
    assert notices == [Notice(ready=True)]
    process.communicate(timeout=30)


async def test_one_that_has_sent_and_ended_is_heard(heard: tuple[NotifySocket, Heard]) -> None:
    """As a zombie, and when nothing is left of it: systemd-notify(1) in a script."""
    notify, notices = heard
    process = send(notify, "READY=1")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    await eventually(lambda: notices)
    process.wait(30)
    process = send(notify, "STOPPING=1")
    process.wait(30)
    await eventually(lambda: len(notices) == 2)
    assert notify.refused == 0


async def test_the_leader_and_its_session_are_heard(heard: tuple[NotifySocket, Heard]) -> None:
    """Also where the environment was cleaned."""
    notify, notices = heard
    child = (
        f"{SEND}\n"
        "if os.fork() == 0:\n"
        f"    command = [sys.executable, '-I', '-S', '-c', {SEND!r}, 'STATUS=child']\n"
        "    os.execve(command[0], command, {'NOTIFY_SOCKET': os.environ['NOTIFY_SOCKET']})\n"
        "os.wait()\n"
        "sys.stdin.read()\n"
    )
    process = send(notify, "READY=1", marked=False, code=child, stdin=subprocess.PIPE, start_new_session=True)
    notify.leader = process.pid
    await eventually(lambda: len(notices) == 2)
    assert notices == [Notice(ready=True), Notice(status="child")]
    process.communicate(timeout=30)


async def test_strangers_are_not_heard(heard: tuple[NotifySocket, Heard]) -> None:
    notify, notices = heard
    process = send(notify, "READY=1", marked=False, code=f"{SEND}\nsys.stdin.read()", stdin=subprocess.PIPE)
    await eventually(lambda: notify.refused == 1)
    process.communicate(timeout=30)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.sendto(b"READY=1", str(notify.path))
        await eventually(lambda: notify.refused == 2)
    assert notices == []


@pytest.fixture
def sender(heard: tuple[NotifySocket, Heard]) -> Iterator[socket.socket]:
    """This process, as if it were the worker's first."""
    notify, _ = heard
    notify.leader = os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(notify.path))
        sender.setblocking(False)
        yield sender


async def test_a_message_that_is_too_long_is_not_heard(
    heard: tuple[NotifySocket, Heard], sender: socket.socket
) -> None:
    notify, notices = heard
    sender.send(b"READY=1\nSTATUS=" + b"x" * 5000)
    sender.send(b"WATCHDOG=1")
    await eventually(lambda: notices)
    assert notices == [Notice(watchdog=True)]
    assert notify.refused == 1


async def test_descriptors_that_come_along_are_closed(heard: tuple[NotifySocket, Heard], sender: socket.socket) -> None:
    """sd_notify_barrier(3) waits for that."""
    _, notices = heard
    reading, writing = os.pipe()
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        socket.send_fds(sender, [b"BARRIER=1"], [writing, writing, writing])
        await eventually(lambda: notices)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        os.close(writing)
        try:
            assert os.read(reading, 1) == b""
        finally:
            os.close(reading)


async def test_a_flood_leaves_time_for_others(heard: tuple[NotifySocket, Heard], sender: socket.socket) -> None:
    _, notices = heard
    sent = 0

    def flood() -> None:
        nonlocal sent
        while True:
            try:
                sender.send(b"STATUS=%d" % sent)
            except BlockingIOError:
                return
            sent += 1

    flood()
    while len(notices) < 3 * MESSAGES_A_TURN:
        before = len(notices)
        await asyncio.sleep(0)
        assert len(notices) - before <= MESSAGES_A_TURN
        flood()
    await eventually(lambda: len(notices) == sent)
    assert [notice.status for notice in notices] == [str(n) for n in range(sent)]


async def test_closed_by_whom_it_tells(tmp_path: Path) -> None:
    notices: list[Notice] = []
    notify = NotifySocket(tmp_path / "n", lambda notice: (notices.append(notice), notify.close()), mark=MARK)  # type: ignore[arg-type, func-returns-value]
    notify.listen(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"READY=1", str(notify.path))
        await eventually(lambda: notices)
    assert len(notices) == 1


async def test_what_is_sent_before_anybody_listens_waits(tmp_path: Path) -> None:
    """A worker may be ready before its supervisor knows that it has started."""
    notices: list[Notice] = []
    notify = NotifySocket(tmp_path / "n", notices.append, mark=MARK)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", str(notify.path))
        for _ in range(10):
            await asyncio.sleep(0)
        assert notices == []
        notify.listen(os.getpid())
        await eventually(lambda: notices)
    notify.close()
    assert notices == [Notice(ready=True)]


async def test_what_lay_there_is_replaced_and_a_long_path_refused(tmp_path: Path) -> None:
    first = NotifySocket(tmp_path / "n", lambda _: None, mark=MARK)
    second = NotifySocket(tmp_path / "n", lambda _: None, mark=MARK)
    second.close()
    first.close()
    with pytest.raises(OSError, match="use a shorter runtime folder"):
        NotifySocket(tmp_path / ("x" * 108), lambda _: None, mark=MARK)
    with pytest.raises(FileNotFoundError):
        NotifySocket(tmp_path / "no" / "n", lambda _: None, mark=MARK)
