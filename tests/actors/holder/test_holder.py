"""The holder across supervisors: output, ends, sockets, and who is attached."""

import asyncio
import os
import signal
import socket
import sys

import psutil
import pytest

from actors.holder import HolderFailed
from actors.holder.program import KEPT, PROTOCOL, SOCKET, pack
from tests.actors.holder.support import Place, alive, ended, finish, read_line, read_until
from tests.support import eventually

COUNTER = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; done; echo last words >&2; exit 5"


async def test_it_is_a_session_of_its_own_that_no_signal_of_ours_ends(place: Place) -> None:
    holder = await place.attach()
    assert os.getsid(holder.pid) == holder.pid != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        os.kill(holder.pid, number)
    held = await holder.spawn(place.spawn("worker", "true"))
    assert await ended(held) == 0
    await finish(holder)
    await eventually(lambda: not place.holders(), what="the holder's end")
    assert not (place.folder / SOCKET).exists()


async def test_workers_outlive_the_supervisor_with_their_notes(place: Place) -> None:
    first = await place.attach()
    held = await first.spawn(place.spawn("worker", "sleep", "600", note="one"))
    held.annotate("ünï=code\nx")
    pid, instance = held.pid, held.instance
    await first.detach()
    second = await place.attach()
    assert second.pid == first.pid
    (again,) = second.workers.values()
    assert (again.pid, again.instance, again.service, again.note) == (pid, instance, "worker", "ünï=code\nx")
    assert again.adopted
    again.kill()
    assert await ended(again) == -signal.SIGKILL
    await finish(second)


async def test_output_goes_on_in_order_where_the_one_before_stopped(place: Place) -> None:
    first = await place.attach()
    held = await first.spawn(place.shell("worker", f"echo start; read x < {place.folder}/go; {COUNTER}"))
    seen = await read_until(held.stdout, b"start\n")
    await first.detach({(held.instance, 1): seen[2:]})
    (place.folder / "go").write_text("go\n")
    await eventually(lambda: not place.processes(), what="the worker's end")
    second = await place.attach()
    (again,) = second.workers.values()
    assert await ended(again) == 5
    out = b"".join(piece.data for piece in again.kept.pieces if piece.stream == 1)
    err = b"".join(piece.data for piece in again.kept.pieces if piece.stream == 2)
    assert again.kept.dropped == 0
    assert (seen[:2] + out).split() == [b"start", *(b"%d" % number for number in range(1, 401))]
    assert err == b"last words\n"
    assert await read_until(again.stdout, b"") == b""
    await finish(second)


async def test_what_was_kept_is_given_again_until_it_is_taken_and_an_end_until_it_is_forgotten(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.shell("worker", f"read x < {place.folder}/go; {COUNTER}"))
    await holder.detach()
    (place.folder / "go").write_text("go\n")
    await eventually(lambda: not place.processes(), what="the worker's end")
    for _ in range(2):
        holder = await place.attach()
        (held,) = holder.workers.values()
        assert await ended(held) == 5
        assert sum(len(piece.data) for piece in held.kept.pieces) > 1000
        holder.close()  # as if it had died with it
    holder = await place.attach()
    (held,) = holder.workers.values()
    held.taken()
    await holder.detach()
    holder = await place.attach()
    (held,) = holder.workers.values()
    assert held.kept.pieces == ()
    assert await ended(held) == 5
    held.forget()
    await holder.detach()
    holder = await place.attach()
    assert holder.workers == {}
    await finish(holder)


async def test_a_flood_while_nobody_is_there_blocks_nobody_and_keeps_its_end(place: Place) -> None:
    first = await place.attach()
    size = 100 * 1000 * 1000
    script = f"import sys; w = sys.stdout.write; [w('%09d\\n' % n) for n in range({size // 10})]; sys.exit(4)"
    await first.spawn(place.spawn("worker", sys.executable, "-I", "-S", "-c", script))
    await first.detach()
    await eventually(lambda: not place.processes(), timeout=60, what="the writer's end")
    second = await place.attach()
    (held,) = second.workers.values()
    assert await ended(held) == 4
    kept = b"".join(piece.data for piece in held.kept.pieces)
    assert KEPT // 2 < len(kept) <= KEPT
    assert held.kept.dropped + len(kept) == size
    assert kept.endswith(b"%09d\n" % (size // 10 - 1))
    lines = kept.split(b"\n")[1:-1]
    assert lines == [b"%09d" % number for number in range(int(lines[0]), size // 10)]
    await finish(second)


async def test_while_attached_it_leaves_output_alone(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.shell("worker", f"read x < {place.folder}/go; echo now; exec sleep 600"))
    await holder.detach()
    holder = await place.attach()
    (held,) = holder.workers.values()
    (place.folder / "go").write_text("go\n")
    assert await read_line(held.stdout) == "now"
    await finish(holder)


async def test_connections_wait_in_the_backlog_from_one_supervisor_to_the_next(place: Place) -> None:
    first = await place.attach()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    first.deposit({"api": listener})
    listener.close()
    await first.detach()
    callers = [socket.create_connection(address, timeout=30) for _ in range(5)]
    second = await place.attach()
    assert second.sockets["api"].getsockname() == address
    second.sockets["api"].settimeout(30)
    for _ in callers:
        connection, _ = second.sockets["api"].accept()
        connection.sendall(b"x")
        connection.close()
    for caller in callers:
        assert caller.recv(1) == b"x"
        caller.close()
    second.deposit({})
    second.sockets["api"].close()
    await second.detach()
    third = await place.attach()
    assert third.sockets == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=30)
    await finish(third)


async def test_a_new_supervisor_waits_until_the_old_one_lets_go(place: Place) -> None:
    wanted = asyncio.get_running_loop().create_future()
    old = await place.attach(on_wanted=wanted.set_result)
    held = await old.spawn(place.spawn("worker", "sleep", "600"))
    pid = held.pid
    coming = asyncio.create_task(place.attach())
    async with asyncio.timeout(30):
        assert await wanted == os.getpid()
    # The old one is in full possession until it lets go.
    assert await ended(await old.spawn(place.spawn("other", "true"))) == 0
    assert not coming.done()
    await old.detach()
    new = await coming
    assert {held.service: held.pid for held in new.workers.values() if held.running}["worker"] == pid
    await finish(new)


async def test_one_that_waits_takes_over_from_one_that_dies_and_one_that_gave_up_does_not(place: Place) -> None:
    old = await place.attach()
    with pytest.raises(HolderFailed, match="another supervisor is attached"):
        await place.attach(within=0.2)
    coming = asyncio.create_task(place.attach())
    await asyncio.sleep(0)
    old.close()
    new = await coming
    assert new.pid == old.pid
    await finish(new)


async def test_it_survives_the_messages_that_a_dead_supervisor_never_read(place: Place) -> None:
    first = await place.attach()
    held = await first.spawn(place.spawn("worker", "sleep", "600"))
    pid = held.pid
    # Its answers lie unread in our socket when that is closed: the holder gets ECONNRESET.
    for _ in range(50):
        first._send(pack(do="spawn", instance="0" * 32, service="worker", note=""))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not alive(pid), what="the worker's end")
    first.close()
    second = await place.attach()
    assert second.pid == first.pid
    (again,) = second.workers.values()
    assert await ended(again) == -signal.SIGKILL
    await finish(second)


async def test_a_supervisor_that_reads_nothing_does_not_stop_it(place: Place) -> None:
    first = await place.attach()
    asyncio.get_running_loop().remove_reader(first._socket)
    first._socket.setblocking(True)
    # Refusals fill our socket; the holder must not wait for us, and what it cannot send must not pile up for ever.
    for _ in range(2000):
        first._socket.send(pack(do="spawn", instance="0" * 32, service="x" * 100, note="", argc="x" * 50))
    second = asyncio.create_task(place.attach())
    await asyncio.sleep(0)
    first.close()
    await finish(await second)


@pytest.mark.parametrize(
    "message",
    [b"\xff\xfe", b"no field", b"do=unknown", b"do=attach", b"do=attach\0protocol=x", b"do=spawn", b"x" * 100_000],
)
async def test_rubbish_costs_the_connection_alone(place: Place, message: bytes) -> None:
    holder = await place.attach()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        folder = os.open(place.folder, os.O_PATH)
        stranger.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        os.close(folder)
        stranger.settimeout(30)
        stranger.send(message)
        assert stranger.recv(1000) in (b"", b"is=refused\0instance=\0why=attach first")
    assert await ended(await holder.spawn(place.spawn("worker", "true"))) == 0
    await finish(holder)


async def test_another_protocol_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = await place.attach()
    await holder.detach()
    monkeypatch.setattr("actors.holder._client.PROTOCOL", PROTOCOL + 1)
    with pytest.raises(HolderFailed, match="speaks protocol"):
        await place.attach()
    monkeypatch.undo()
    await finish(await place.attach())


async def test_a_holder_that_is_killed_takes_its_workers_along_and_the_next_finds_none(place: Place) -> None:
    holder = await place.attach()
    daemon = "(setsid sh -c 'exec sleep 600' &) ; echo ready; exec sleep 600"
    held = await holder.spawn(place.shell("worker", daemon))
    await read_line(held.stdout)
    os.kill(holder.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await holder.lost
    assert await ended(held) == -signal.SIGKILL
    assert held.ended.result().failure == "its holder was killed"
    assert place.processes() == {}
    with pytest.raises(HolderFailed):
        await holder.spawn(place.spawn("worker", "true"))
    holder.close()
    second = await place.attach()
    assert second.pid != holder.pid
    assert (second.workers, second.leftovers) == ({}, ())
    await finish(second)


async def test_what_a_killed_holder_left_is_ended_by_the_next_attachment(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.shell("worker", "(setsid sleep 600 &) ; echo ready; exec sleep 600"))
    await read_line(held.stdout)
    holder.close()
    os.kill(holder.pid, signal.SIGKILL)
    await eventually(lambda: len(place.processes()) == 1, what="the worker's end")
    (left,) = place.processes()
    second = await place.attach()
    assert second.leftovers == (left,)
    assert place.processes() == {}
    await finish(second)


async def test_without_its_records_what_a_killed_holder_left_stays(place: Place) -> None:
    """The control for all that counts survivors: without the intent on disk there are some."""
    holder = await place.attach()
    held = await holder.spawn(place.shell("worker", "(setsid sleep 600 &) ; echo ready; exec sleep 600"))
    await read_line(held.stdout)
    holder.close()
    os.kill(holder.pid, signal.SIGKILL)
    (place.folder / "instances" / "worker").unlink()
    second = await place.attach()
    await second.spawn(place.shell("worker", "exec sleep 600"))
    assert len(place.processes()) == 2, "an orphan and a worker"
    await finish(second)


async def test_told_to_end_it_waits_for_the_last_worker_and_ends_it_where_nobody_else_will(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.spawn("worker", "sleep", "600"))
    stopping = asyncio.create_task(holder.stop())
    await asyncio.sleep(0)
    assert alive(held.pid)
    # The supervisor dies before its workers have ended.
    stopping.cancel()
    await asyncio.wait([stopping])
    holder.close()
    await eventually(lambda: not (place.processes() or place.holders()), what="the end of all")


async def test_terminated_it_ends_its_workers(place: Place) -> None:
    holder = await place.attach()
    await holder.spawn(place.spawn("worker", "sleep", "600"))
    await holder.detach()
    os.kill(holder.pid, signal.SIGTERM)
    await eventually(lambda: not (place.processes() or place.holders()), what="the end of all")


async def test_foreign_zombies_are_collected(place: Place) -> None:
    holder = await place.attach()
    await holder.spawn(place.shell("worker", "for i in 1 2 3 4 5 6 7 8 9; do (true & ) ; done; exec sleep 600"))
    await eventually(lambda: len(place.processes()) == 1, what="the orphans' end")
    assert await ended(await holder.spawn(place.spawn("other", "true"))) == 0
    states = [child.status() for child in psutil.Process(holder.pid).children()]
    assert states
    assert psutil.STATUS_ZOMBIE not in states
    await finish(holder)
