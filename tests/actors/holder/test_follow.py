"""Standing orders: the next process is there without a question, once, and never beside the last one."""

import asyncio
import os
import signal
import time

import pytest

from actors.holder import Held, Holder, Spawn, SpawnFailed
from tests.actors.holder.support import DEADLINE, Place, alive, ended, finish, read_line
from tests.support import eventually


async def next_of(held: Held) -> Held:
    async with asyncio.timeout(DEADLINE):
        end = await asyncio.shield(held.ended)
        assert end.successor
        return await held.successor()


async def ready_to_follow(place: Place) -> None:
    """The holder has a spare: without one it leaves the start to us."""
    await eventually(lambda: len(place.holders()) == 2, what="the spare")


def sleeper(place: Place, **more: object) -> Spawn:
    return place.shell("worker", "echo up $TARS_INSTANCE; exec sleep 600", **more)


async def test_the_next_one_is_there_by_itself_once(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    order = sleeper(place, note="second")
    await ready_to_follow(place)
    holder.follow(held, order)
    os.kill(held.pid, signal.SIGKILL)
    following = await next_of(held)
    assert held.ended.result().code == -signal.SIGKILL
    assert held.ended.result().successor == following.instance == order.instance
    assert (following.note, following.adopted, following.marked, following.before) == ("second", False, True, None)
    assert await read_line(following.stdout) == f"up {order.instance}"
    held.forget()
    assert list(place.processes()) == [following.pid]
    assert list(holder.workers) == [following.instance]
    # The order was for one start.
    os.kill(following.pid, signal.SIGKILL)
    assert await ended(following) == -signal.SIGKILL
    assert following.ended.result().successor == ""
    assert place.processes() == {}
    await finish(holder)


async def test_one_after_the_other_each_on_record_beside_the_last(place: Place) -> None:
    holder = await place.attach()
    record = place.folder / "instances" / "worker"
    held = await holder.spawn(sleeper(place))
    for _ in range(50):
        await ready_to_follow(place)
        holder.follow(held, order := sleeper(place))
        assert {held.instance, order.instance} == {record.read_text()[:32], record.read_text()[32:]}
        os.kill(held.pid, signal.SIGKILL)
        last, held = held, await next_of(held)
        last.forget()
        assert list(place.processes()) == [held.pid]
    await finish(holder)


async def test_a_later_order_takes_the_place_of_an_earlier(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    orders = [sleeper(place) for _ in range(3)]
    for order in orders:
        await ready_to_follow(place)
        holder.follow(held, order)
    # Each may have been started already, for all that is known here.
    recorded = (place.folder / "instances" / "worker").read_text()
    assert all(each in recorded for each in (held.instance, *(order.instance for order in orders)))
    os.kill(held.pid, signal.SIGKILL)
    assert (await next_of(held)).instance == orders[-1].instance
    held.forget()
    await finish(holder)


@pytest.mark.parametrize("code", [0, 3])
async def test_not_after_an_end_that_it_is_not_for(place: Place, code: int) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.shell("worker", f"read x < {place.folder}/go; exit {code}"))
    await ready_to_follow(place)
    holder.follow(held, sleeper(place), unless=(0, 3))
    (place.folder / "go").write_text("go\n")
    assert await ended(held) == code
    assert held.ended.result().successor == ""
    assert place.processes() == {}
    held.forget()
    await finish(holder)


async def test_not_while_something_is_left_of_the_tree(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(place.shell("worker", "(setsid sleep 600 &); echo up; exec sleep 600"))
    await read_line(held.stdout)
    await ready_to_follow(place)
    holder.follow(held, sleeper(place))
    os.kill(held.pid, signal.SIGKILL)
    assert await ended(held) == -signal.SIGKILL
    assert held.ended.result().successor == ""
    assert place.processes() == {}
    held.forget()
    await finish(holder)


async def test_daemons_of_another_worker_do_not_keep_it_from_it(place: Place) -> None:
    holder = await place.attach()
    other = await holder.spawn(place.shell("other", "(setsid sleep 600 &); (sleep 600 &); echo up; exec sleep 600"))
    await read_line(other.stdout)
    held = await holder.spawn(sleeper(place))
    await ready_to_follow(place)
    holder.follow(held, sleeper(place))
    os.kill(held.pid, signal.SIGKILL)
    following = await next_of(held)
    assert sorted(place.processes().values()) == ["other"] * 3 + ["worker"]
    assert following.running
    held.forget()
    await finish(holder)


@pytest.mark.parametrize("how", ["withdraw", "signal", "kill", "stop"])
async def test_what_was_taken_back_before_never_happens(place: Place, how: str) -> None:
    holder = await place.attach()
    for _ in range(10):
        held = await holder.spawn(sleeper(place))
        await ready_to_follow(place)
        holder.follow(held, sleeper(place))
        match how:
            case "withdraw":
                held.withdraw()
                os.kill(held.pid, signal.SIGKILL)
            case "signal":
                held.send_signal(signal.SIGTERM)
            case "kill":
                held.kill()
            case "stop":
                await held.stop(5)
        await ended(held)
        assert held.ended.result().successor == ""
        assert place.processes() == {}
        held.forget()
    await finish(holder)


async def test_a_stop_that_comes_too_late_ends_the_next_one_too(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    await ready_to_follow(place)
    holder.follow(held, sleeper(place))
    os.kill(held.pid, signal.SIGKILL)
    # The holder has followed it; nobody here has heard of that.
    await_following(place, held)
    async with asyncio.timeout(DEADLINE):
        end = await held.stop(5)
    assert (end.code, end.successor) == (-signal.SIGKILL, "")
    assert place.processes() == {}
    held.forget()
    assert holder.workers == {}
    assert await ended(await holder.spawn(place.spawn("worker", "true"))) == 0
    await finish(holder)


def await_following(place: Place, held: Held) -> None:
    """Wait for the successor without letting the loop run."""
    deadline = time.monotonic() + DEADLINE
    while not [pid for pid in place.processes() if pid != held.pid]:
        assert time.monotonic() < deadline


async def test_without_a_supervisor_nobody_follows(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    await ready_to_follow(place)
    holder.follow(held, sleeper(place))
    pid = held.pid
    await holder.detach()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not alive(pid), what="its end")
    holder = await place.attach()
    (held,) = holder.workers.values()
    assert await ended(held) == -signal.SIGKILL
    assert held.ended.result().successor == ""
    assert place.processes() == {}
    await finish(holder)


async def followed_unheard(place: Place) -> tuple[Holder, Held]:
    """A supervisor that dies between what the holder did and hearing of it; and the next one."""
    holder = await place.attach()
    script = f"echo first; read x < {place.folder}/go; echo last; kill -9 $$"
    held = await holder.spawn(place.shell("worker", script))
    await ready_to_follow(place)
    holder.follow(held, sleeper(place))
    (place.folder / "go").write_text("go\n")
    await_following(place, held)
    holder.close()
    return await place.attach(), held


async def test_one_supervisor_dies_before_it_hears_of_it_and_the_next_finds_one(place: Place) -> None:
    holder, old = await followed_unheard(place)
    (held,) = holder.workers.values()
    assert held.instance != old.instance
    assert held.adopted
    assert held.running
    assert held.before is not None
    assert held.before.code == -signal.SIGKILL
    assert held.before.at > old.started
    said = b"".join(piece.data for piece in held.kept.pieces)
    assert said.startswith(b"first\nlast\n")
    assert list(place.processes()) == [held.pid]
    await finish(holder)


async def test_one_that_cannot_be_started_says_why(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    await ready_to_follow(place)
    holder.follow(held, place.spawn("worker", "/no/such/program"))
    os.kill(held.pid, signal.SIGKILL)
    with pytest.raises(SpawnFailed, match="there is no program /no/such/program"):
        await next_of(held)
    held.forget()
    assert holder.workers == {}
    assert await ended(await holder.spawn(place.spawn("worker", "true"))) == 0
    await finish(holder)


async def test_a_successor_that_is_gone_is_not_waited_for_by_the_next_supervisor(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    await ready_to_follow(place)
    holder.follow(held, sleeper(place))
    os.kill(held.pid, signal.SIGKILL)
    following = await next_of(held)
    following.kill()
    await ended(following)
    following.forget()
    await holder.detach()
    holder = await place.attach()
    (held,) = holder.workers.values()
    assert await ended(held) == -signal.SIGKILL
    assert held.ended.result().successor == ""
    await finish(holder)


async def test_what_cannot_be_ordered_changes_nothing(place: Place) -> None:
    holder = await place.attach()
    held = await holder.spawn(sleeper(place))
    with pytest.raises(SpawnFailed, match="there is no user"):
        holder.follow(held, sleeper(place, user="nobody-of-that-name"))
    os.kill(held.pid, signal.SIGKILL)
    await ended(held)
    assert held.ended.result().successor == ""
    await finish(holder)
