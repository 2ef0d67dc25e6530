"""Starting a process: what it gets, and what is said where it cannot be started."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest

from actors.holder import HolderFailed, SpawnFailed, attach, program
from tests.actors.holder.support import Place, alive, ended, finish, read_line, read_until
from tests.support import eventually, needs

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may start a process as somebody else")


async def test_it_has_what_was_ordered_before_its_first_instruction(place: Place) -> None:
    holder = await place.attach()
    script = 'echo "$(pwd) $(umask) $(nice) $(ulimit -n) $(ulimit -Hn) $TARS_SERVICE $EMPTY. $0-$1."; cat <&0; exit 7'
    order = place.spawn(
        "worker",
        *("/bin/sh", "-c", script, "", ""),
        cwd=Path("/usr"),
        environment={"EMPTY": "", "PATH": "/bin:/usr/bin"},
        umask=0o27,
        nice=3,
        rlimits={resource.RLIMIT_NOFILE: (50, 60)},
    )
    held = await holder.spawn(order)
    assert held.marked
    assert await read_line(held.stdout) == "/usr 0027 3 50 60 worker . -."
    assert await ended(held) == 7
    await finish(holder)


async def test_it_leads_a_session_has_no_signal_blocked_or_ignored_and_nothing_open(place: Place) -> None:
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        holder = await place.attach()
        first = await holder.spawn(place.spawn("first", "sleep", "600"))
        held = await holder.spawn(place.spawn("worker", "sleep", "600"))
    finally:
        signal.signal(signal.SIGUSR1, old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    status = Path(f"/proc/{held.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["SigBlk"], 16) == 0
    # 32 and 33 belong to the C library, and may have been ignored by whoever started all this.
    assert int(fields["SigIgn"], 16) & ~(0b11 << 31) == 0
    assert os.getsid(held.pid) == os.getpgid(held.pid) == held.pid != first.pid
    opened = Path(f"/proc/{held.pid}/fd")
    # Until it has been linked it has its libraries open.
    await eventually(lambda: {entry.name for entry in opened.iterdir()} == {"0", "1", "2"}, what="no other descriptors")
    assert str((opened / "0").readlink()) == "/dev/null"
    await finish(holder)


async def test_where_memory_is_short_it_goes_before_the_holder(place: Place) -> None:
    holder = await place.attach()
    try:
        Path(f"/proc/{holder.pid}/oom_score_adj").write_text("-500")
    except PermissionError:
        await finish(holder)
        pytest.skip("only root with CAP_SYS_RESOURCE may spare a process (proc(5))")
    # The first was forked before that.
    for service in ("first", "second"):
        held = await holder.spawn(place.shell(service, "cat /proc/self/oom_score_adj"))
        assert await read_line(held.stdout) == "0"
        assert await ended(held) == 0
    await finish(holder)


@pytest.mark.parametrize(("before", "after"), [("-1000\n", "0\n"), ("-1\n", "0\n"), ("0\n", "0\n"), ("300\n", "300\n")])
def test_being_spared_is_put_right_and_nothing_else(tmp_path: Path, before: str, after: str) -> None:
    """On a file in the place of that of proc(5), since hardly anybody may write less than 0 to the real one."""
    path = tmp_path / "oom_score_adj"
    path.write_text(before)
    program.be_no_more_spared(str(path))
    assert path.read_text().splitlines()[0] == after.strip()
    program.be_no_more_spared(str(tmp_path / "missing"))


@needs_root
async def test_another_user_with_its_groups(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.spawn("worker", "id", user="daemon", groups=("12", "audio")))
    said = await read_line(held.stdout)
    assert said.startswith("uid=1(daemon) gid=1(daemon) groups=1(daemon),12(man),29(audio)")
    own = await holder.spawn(place.spawn("own", "id", "-G", user="daemon"))
    assert (await read_line(own.stdout)).split() == [str(group) for group in os.getgrouplist("daemon", 1)]
    await finish(holder)


@pytest.mark.parametrize(
    ("argv", "more", "words"),
    [
        (("no-such-program-here",), {}, "there is no program no-such-program-here in its PATH"),
        (("/no/such/program",), {}, "there is no program /no/such/program; mend"),
        (("/etc/passwd",), {}, "may not be executed by this user; run: chmod \\+x /etc/passwd"),
        (("{tmp}/script",), {}, "script needs the interpreter /no/such/sh, which does not exist"),
        (("{tmp}/rubbish",), {}, "rubbish is neither a program for this machine nor a script"),
        (("/bin/true",), {"cwd": Path("/nowhere")}, "working folder /nowhere does not exist"),
        (("/bin/true",), {"cwd": Path("/etc/passwd")}, "working folder /etc/passwd is not a folder"),
        (("/bin/true",), {"user": "nobody-of-that-name"}, "there is no user nobody-of-that-name"),
        (("/bin/true",), {"group": "no-such-group"}, "there is no group no-such-group"),
        (("/bin/true",), {"rlimits": {resource.RLIMIT_NOFILE: (9, 8)}}, "soft limit is above the hard"),
        (("/bin/true", "x" * 3_000_000), {}, "its arguments and environment are too large"),
        (("/bin/true", "a\0b"), {}, "holds a NUL character"),
    ],
)
async def test_what_cannot_be_started_says_why_and_leaves_nothing(
    place: Place, tmp_path: Path, argv: tuple[str, ...], more: dict[str, object], words: str
) -> None:
    for name, text in (("script", "#!/no/such/sh\n"), ("rubbish", "\x01rubbish")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    holder = await place.attach()
    with pytest.raises(SpawnFailed, match=words):
        await holder.spawn(place.spawn("worker", *(word.format(tmp=tmp_path) for word in argv), **more))
    assert holder.workers == {}
    # The service is free again.
    assert await ended(await holder.spawn(place.spawn("worker", "true"))) == 0
    await finish(holder)


@needs_root
async def test_a_folder_that_its_user_may_not_enter(place: Place) -> None:
    holder = await place.attach()
    with pytest.raises(SpawnFailed, match=r"may not be entered by nobody"):
        await holder.spawn(place.spawn("worker", "true", user="nobody", cwd=place.folder))
    await finish(holder)


@needs_root
async def test_an_ordinary_user_may_not_start_as_another(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(SpawnFailed, match="only root may start a process as another user"):
        place.spawn("worker", "true", user="daemon").order()


async def test_five_thousand_variables_arrive(place: Place) -> None:
    holder = await place.attach()
    many = {f"VARIABLE_{number}": f"ünï {number}\n" for number in range(5000)}
    held = await holder.spawn(place.spawn("worker", "env", "-0", environment=many))
    said = (await read_until(held.stdout, b"")).decode().split("\0")
    assert dict(pair.split("=", 1) for pair in said if pair.startswith("VARIABLE")) == many
    await finish(holder)


async def test_never_two_of_a_service(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.spawn("worker", "sleep", "600"))
    with pytest.raises(SpawnFailed, match=f"worker has a process, {held.pid}, whose end was not acknowledged"):
        await holder.spawn(place.spawn("worker", "sleep", "600"))
    assert list(place.processes()) == [held.pid]
    await finish(holder)


async def test_a_caller_that_is_cancelled_leaves_no_process(place: Place) -> None:
    holder = await place.attach()
    starting = asyncio.create_task(holder.spawn(place.spawn("worker", "sleep", "600")))
    await asyncio.sleep(0)  # the order is on its way
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(30):
        while True:
            try:
                held = await holder.spawn(place.spawn("worker", "sleep", "600"))
                break
            except SpawnFailed:
                await asyncio.sleep(0.001)
    assert list(place.processes()) == [held.pid]
    await finish(holder)


async def test_a_spare_that_was_killed_is_replaced(place: Place) -> None:
    holder = await place.attach()
    async with asyncio.timeout(30):
        while not (spares := [pid for pid in place.holders() if pid != holder.pid]):
            await asyncio.sleep(0.005)
    os.kill(spares[0], signal.SIGKILL)
    await eventually(lambda: not alive(spares[0]), what="its end")
    assert await ended(await holder.spawn(place.spawn("worker", "sh", "-c", "exit 3"))) == 3
    await finish(holder)


async def test_a_folder_that_others_may_read_is_refused(place: Place) -> None:
    place.folder.chmod(0o750)
    with pytest.raises(HolderFailed, match="must belong to this user alone; run: chown"):
        await place.attach()
    place.folder.chmod(0o700)
    with pytest.raises(HolderFailed, match="cannot be used: No such file"):
        await attach(place.folder / "none")


async def test_output_that_cannot_be_used_leaves_no_descriptor(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.spawn("worker", "true"))
    await ended(held)
    held.forget()
    for descriptor in (held.pidfd, held.stdout, held.stderr):
        with pytest.raises(OSError):
            os.fstat(descriptor)
    await finish(holder)


@needs_root
async def test_an_ordinary_user_can_do_all_but_be_somebody_else(tmp_path: Path) -> None:
    script = Path(__file__).with_name("ordinary.py")
    # The interpreter of the tests may lie where others may not look.
    argv = (
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        needs("/usr/bin/python3.11"),
        "-B",
        str(script),
    )
    process = await asyncio.create_subprocess_exec(
        *argv, cwd="/", env={"PATH": "/usr/bin:/bin"}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    lines = said.decode().splitlines()
    assert lines[0] == "marked True"
    assert "only root may start a process as another user or group" in lines[1]
    assert "only root may start a process as another user or group" in lines[2]
    assert "only root may raise `nice`" in lines[3]
    assert lines[4:] == ["exited with 0", "adopted True", "was killed by SIGTERM"]
