"""An actor's end: told exactly once on every path, with everybody answered and no task left."""

import asyncio
import gc
import logging
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import anyio
import pykka
import pytest

from actors.runtime import Actor, ActorDied, ActorDown, Ending, Exit, LoopFuture, Ref
from tests.actors.runtime.support import DEADLINE, call, ended, stopped, turns

# Pykka types hooks as plain functions.
# mypy: disable-error-code="override"

FOREVER = "forever"


class Mortal(Actor):
    """Each hook does what it is told: "forever" hangs, an exception is raised, None is fine."""

    cleanup_timeout: ClassVar[float | None] = 0.01

    def __init__(self, *, start: Any = None, stop: Any = None, failure: Any = None) -> None:
        super().__init__()
        self.does = {"on_start": start, "on_stop": stop, "on_failure": failure}
        self.calls: list[str] = []
        self.reached: LoopFuture[None] = LoopFuture()

    async def _do(self, hook: str) -> None:
        self.calls.append(hook)
        does = self.does[hook]
        if does is FOREVER:
            await self.sleep()
        if does is not None:
            raise does

    async def on_start(self) -> None:
        await self._do("on_start")

    async def on_stop(self) -> None:
        await self._do("on_stop")

    async def on_failure(self, *_: Any) -> None:
        await self._do("on_failure")

    async def sleep(self) -> None:
        if not self.reached.settled:
            self.reached.set(None)
        await asyncio.Event().wait()

    def fail(self, error: BaseException) -> None:
        raise error

    async def fail_later(self, error: BaseException) -> None:
        await turns(1)
        raise error

    def spawn_failing(self, error: BaseException) -> None:
        self.spawn(self.fail_later(error))

    def spawn_sleeping(self) -> None:
        self.spawn(self.sleep())

    async def await_cancelled(self) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def swallow(self) -> str:
        try:
            await self.sleep()
        except asyncio.CancelledError:
            return "swallowed"
        return "not reached"


def actor_of(ref: Ref[Any]) -> Mortal:
    actor: Mortal | None = ref._actor_weakref()
    assert actor is not None
    return actor


async def _counted(ref: Ref[Any]) -> tuple[Exit, int]:
    """The exit, and how often it was told."""
    told: list[Any] = []
    settle = ref.exited._settle

    def count(value: Any, error: BaseException | None) -> None:
        told.append(value)
        settle(value, error)

    ref.exited._settle = count  # type: ignore[method-assign]  # it counts
    exit_ = await ended(ref)
    await turns(10)
    return exit_, len(told)


Path = Callable[[], Any]


async def _orderly() -> Ref[Mortal]:
    ref = Mortal.start()
    ref.stop(block=False)
    return ref


async def _told(error: BaseException) -> Ref[Mortal]:
    ref = Mortal.start()
    ref.tell(call("fail", error))
    return ref


async def _told_async(error: BaseException) -> Ref[Mortal]:
    ref = Mortal.start()
    ref.tell(call("fail_later", error))
    return ref


async def _asked(error: BaseException) -> Ref[Mortal]:
    ref = Mortal.start()
    ref.ask(call("fail", error), block=False)
    return ref


async def _start_raises(error: BaseException) -> Ref[Mortal]:
    return Mortal.start(start=error)


async def _start_hangs() -> Ref[Mortal]:
    ref = Mortal.start(start=FOREVER)
    await actor_of(ref).reached
    ref.cancel()
    return ref


async def _stop_raises(error: BaseException) -> Ref[Mortal]:
    ref = Mortal.start(stop=error)
    ref.stop(block=False)
    return ref


async def _cancelled_in_on_stop() -> Ref[Mortal]:
    ref = Mortal.start(stop=FOREVER)
    ref.stop(block=False)
    await actor_of(ref).reached
    ref.cancel()
    return ref


async def _failure_raises(error: BaseException) -> Ref[Mortal]:
    ref = Mortal.start(failure=error)
    ref.tell(call("fail", ValueError("told")))
    return ref


async def _failure_hangs() -> Ref[Mortal]:
    ref = Mortal.start(failure=FOREVER)
    ref.tell(call("fail", ValueError("told")))
    return ref


async def _cancelled_in_on_failure() -> Ref[Mortal]:
    ref = await _failure_hangs()
    await actor_of(ref).reached
    ref.cancel()
    return ref


async def _cancelled_before_the_first_step() -> Ref[Mortal]:
    ref = Mortal.start()
    ref.cancel()
    return ref


async def _cancelled_while_idle() -> Ref[Mortal]:
    ref = Mortal.start()
    await ref.started
    await turns()
    ref.cancel()
    return ref


async def _cancelled_at_work() -> Ref[Mortal]:
    ref = Mortal.start()
    ref.tell(call("sleep"))
    await actor_of(ref).reached
    ref.cancel()
    return ref


async def _cancelled_twice() -> Ref[Mortal]:
    ref = await _cancelled_at_work()
    ref.cancel()
    return ref


async def _swallowed() -> Ref[Mortal]:
    ref = Mortal.start()
    ref.tell(call("swallow"))
    await actor_of(ref).reached
    ref.cancel()
    return ref


async def _task_fails(error: BaseException) -> Ref[Mortal]:
    ref = Mortal.start()
    ref.tell(call("spawn_failing", error))
    return ref


async def _inner_cancellation() -> Ref[Mortal]:
    ref = Mortal.start()
    ref.tell(call("await_cancelled"))
    return ref


STOP, FAIL, CANCEL = Ending.STOPPED, Ending.FAILED, Ending.CANCELLED

PATHS: dict[str, tuple[Path, Ending, type[BaseException] | None, list[str]]] = {
    "orderly stop": (_orderly, STOP, None, ["on_start", "on_stop"]),
    "exception in a tell": (lambda: _told(ValueError("wrong")), FAIL, ValueError, ["on_start", "on_failure"]),
    "exception in an async tell": (
        lambda: _told_async(ValueError("wrong")),
        FAIL,
        ValueError,
        ["on_start", "on_failure"],
    ),
    "SystemExit in a tell": (lambda: _told(SystemExit(3)), FAIL, SystemExit, ["on_start", "on_failure"]),
    "SystemExit in an async tell": (lambda: _told_async(SystemExit(3)), FAIL, SystemExit, ["on_start", "on_failure"]),
    "SystemExit in an ask": (lambda: _asked(SystemExit(3)), FAIL, SystemExit, ["on_start", "on_failure"]),
    "KeyboardInterrupt in an ask": (
        lambda: _asked(KeyboardInterrupt()),
        FAIL,
        KeyboardInterrupt,
        ["on_start", "on_failure"],
    ),
    "on_start raises": (lambda: _start_raises(ValueError("wrong")), FAIL, ValueError, ["on_start"]),
    "on_start raises SystemExit": (lambda: _start_raises(SystemExit(3)), FAIL, SystemExit, ["on_start"]),
    "on_start hangs and is cancelled": (_start_hangs, CANCEL, asyncio.CancelledError, ["on_start"]),
    "on_stop raises": (lambda: _stop_raises(ValueError("wrong")), FAIL, ValueError, ["on_start", "on_stop"]),
    "on_stop raises SystemExit": (lambda: _stop_raises(SystemExit(3)), FAIL, SystemExit, ["on_start", "on_stop"]),
    "cancelled in on_stop": (_cancelled_in_on_stop, CANCEL, asyncio.CancelledError, ["on_start", "on_stop"]),
    "on_failure raises": (lambda: _failure_raises(ValueError("wrong")), FAIL, ValueError, ["on_start", "on_failure"]),
    "on_failure raises SystemExit": (
        lambda: _failure_raises(SystemExit(3)),
        FAIL,
        ValueError,
        ["on_start", "on_failure"],
    ),
    "on_failure hangs": (_failure_hangs, FAIL, ValueError, ["on_start", "on_failure"]),
    "cancelled in on_failure": (_cancelled_in_on_failure, FAIL, ValueError, ["on_start", "on_failure"]),
    "cancelled before the first step": (_cancelled_before_the_first_step, CANCEL, None, []),
    "cancelled while idle": (_cancelled_while_idle, CANCEL, asyncio.CancelledError, ["on_start", "on_failure"]),
    "cancelled at work": (_cancelled_at_work, CANCEL, asyncio.CancelledError, ["on_start", "on_failure"]),
    "cancelled twice": (_cancelled_twice, CANCEL, asyncio.CancelledError, ["on_start", "on_failure"]),
    "cancellation swallowed by a handler": (
        _swallowed,
        CANCEL,
        asyncio.CancelledError,
        ["on_start", "on_failure"],
    ),
    "spawned task fails": (lambda: _task_fails(ValueError("wrong")), FAIL, ValueError, ["on_start", "on_failure"]),
    "SystemExit in a spawned task": (
        lambda: _task_fails(SystemExit(3)),
        FAIL,
        RuntimeError,
        ["on_start", "on_failure"],
    ),
    "inner cancellation in a tell": (_inner_cancellation, FAIL, RuntimeError, ["on_start", "on_failure"]),
}


@pytest.mark.parametrize("path", PATHS)
async def test_every_end_is_told_exactly_once(path: str) -> None:
    go, ending, error, calls = PATHS[path]
    bystander = Mortal.start()
    ref: Ref[Mortal] = await go()
    actor = actor_of(ref)
    exit_, times = await _counted(ref)
    assert (exit_.ending, type(exit_.error)) == (ending, error or type(None))
    assert times == 1
    assert actor.calls == calls
    # All closed: not registered, refusing, its own task over.
    assert not ref.is_alive()
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is None
    assert ref.started.settled
    with pytest.raises(ActorDown):
        await ref.ask("anybody there", block=False)
    assert await ref.stop(block=False) is False
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "Mortal" and task is not bystander.life]
    # Nobody else is hurt.
    assert bystander.is_alive()
    await stopped(bystander)


@pytest.mark.parametrize("path", PATHS)
async def test_every_end_answers_everybody(path: str) -> None:
    """Asks and stops sent just before the end get their answers, whichever the path."""
    go, *_ = PATHS[path]
    ref: Ref[Mortal] = await go()
    asks = [ref.ask(call("sleep"), block=False) for _ in range(3)]
    stops = [ref.stop(block=False) for _ in range(2)]
    async with asyncio.timeout(DEADLINE):
        for ask in asks:
            with pytest.raises((ActorDown, ActorDied)):
                await ask
        for stop in stops:
            assert isinstance(await stop, bool)
        await ref.exited


# -- who was being served


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_the_asker_of_what_ended_the_actor_is_told_that_it_died(error: BaseException) -> None:
    ref = Mortal.start()
    with pytest.raises(ActorDied):
        await ref.ask(call("fail", error), block=False)
    await ended(ref)


async def test_the_asker_of_a_cancelled_handler_is_told_that_it_died() -> None:
    ref = Mortal.start()
    begun, waiting = ref.ask(call("sleep"), block=False), ref.ask(call("sleep"), block=False)
    await actor_of(ref).reached
    ref.cancel()
    with pytest.raises(ActorDied, match="at work on this message"):
        await begun
    with pytest.raises(ActorDown, match="before it came to this message"):
        await waiting
    await ended(ref)


async def test_a_swallowed_cancellation_ends_the_actor_and_the_asker_has_the_answer() -> None:
    ref = Mortal.start()
    asked, waiting = ref.ask(call("swallow"), block=False), ref.ask(call("swallow"), block=False)
    await actor_of(ref).reached
    ref.cancel()
    assert await asked == "swallowed"
    with pytest.raises(ActorDown):
        await waiting
    assert (await ended(ref)).ending is Ending.CANCELLED


async def test_a_cancellation_from_inside_is_the_askers_and_no_cancellation() -> None:
    ref = Mortal.start()
    with pytest.raises(RuntimeError, match="cancelled from inside") as failure:
        await ref.ask(call("await_cancelled"), block=False)
    assert isinstance(failure.value.__cause__, asyncio.CancelledError)
    assert ref.is_alive()
    await stopped(ref)


async def test_started_never_raises_what_looks_like_ones_own_end() -> None:
    for start in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()):
        ref = Mortal.start(start=start)
        with pytest.raises(ActorDown) as failure:
            await ref.started
        assert failure.value.__cause__ is start
        assert (await ended(ref)).ending is Ending.FAILED
    ref = Mortal.start(start=FOREVER)
    await actor_of(ref).reached
    ref.cancel()
    with pytest.raises(ActorDown, match="did not start"):
        await ref.started
    await ended(ref)


async def test_a_stop_is_answered_when_all_is_over() -> None:
    class Slow(Mortal):
        async def on_stop(self) -> None:
            await turns()
            await super().on_stop()

    ref = Slow.start()
    await ref.ask(call("spawn_sleeping"), block=False)
    actor = actor_of(ref)
    first, second = ref.stop(block=False), ref.stop(block=False)
    async with asyncio.timeout(DEADLINE):
        assert await second is True
        assert actor.calls == ["on_start", "on_stop"]
        assert ref.exited.settled
        assert await first is True


async def test_a_stop_is_answered_though_the_end_is_cancelled_at_every_step() -> None:
    """The cancellation may hit on_stop, or the wait for spawned tasks, which take their time."""

    class Clinging(Mortal):
        async def sleep(self) -> None:
            try:
                await super().sleep()
            finally:
                await turns(3)

    for steps in range(12):
        ref = Clinging.start()
        await ref.ask(call("spawn_sleeping"), block=False)
        await turns(2)
        stop = ref.stop(block=False)
        await turns(steps)
        ref.cancel()
        async with asyncio.timeout(DEADLINE):
            assert await stop is True
            await ref.exited
        await turns(6)


# -- spawned tasks


async def test_spawned_tasks_end_with_the_actor() -> None:
    ends: tuple[Callable[[Ref[Any]], Any], ...] = (
        lambda ref: ref.stop(block=False),
        lambda ref: ref.cancel(),
        lambda ref: ref.tell(call("fail", ValueError("wrong"))),
    )
    for end in ends:
        ref = Mortal.start()
        for _ in range(3):
            await ref.ask(call("spawn_sleeping"), block=False)
        before = asyncio.all_tasks()
        end(ref)
        await ended(ref)
        assert len(before - asyncio.all_tasks()) == 4


async def test_a_failed_task_ends_an_actor_that_waits_for_it() -> None:
    class Waiting(Mortal):
        async def wait_for_a_task(self) -> None:
            self.spawn(self.fail_later(ValueError("first")))
            self.spawn(self.fail_later(ValueError("second")))
            await self.sleep()

        async def on_failure(self, *why: Any) -> None:
            # Nothing of the cancellation is left for the hook's own scopes and groups.
            with anyio.move_on_after(0) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            with pytest.raises(ExceptionGroup):  # noqa: PT012  # a group needs its body
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.fail_later(ValueError("in the hook")))
                    await asyncio.Event().wait()
            await super().on_failure(*why)

    ref = Waiting.start()
    with pytest.raises(ActorDied):
        await ref.ask(call("wait_for_a_task"), block=False)
    actor = actor_of(ref)
    assert str(await ended(ref)) == "failed: ValueError: first"
    assert actor.calls == ["on_start", "on_failure"]


async def test_a_failed_task_ends_a_start() -> None:
    class Starting(Mortal):
        async def on_start(self) -> None:
            self.spawn(self.fail_later(ValueError("at the start")))
            await self.sleep()

    ref = Starting.start()
    with pytest.raises(ValueError, match="at the start"):
        await ref.started
    assert (await ended(ref)).ending is Ending.FAILED


async def test_a_task_that_was_cancelled_or_returns_is_no_failure() -> None:
    class Spawning(Mortal):
        def both(self) -> None:
            self.spawn(self.sleep()).cancel()
            self.spawn(turns(1))

    ref = Spawning.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "coroutine was never awaited"
        await ref.ask(call("both"), block=False)
        await turns()
        gc.collect()
    assert ref.is_alive()
    await stopped(ref)


async def test_a_task_that_ignores_its_cancellation_holds_no_end_up(caplog: pytest.LogCaptureFixture) -> None:
    gate: LoopFuture[None] = LoopFuture()

    class Stubborn(Mortal):
        def spawn_stubborn(self) -> None:
            self.spawn(self.stay(), name="the stubborn one")

        async def stay(self) -> None:
            while not gate.settled:
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue

    ref = Stubborn.start()
    await ref.ask(call("spawn_stubborn"), block=False)
    await turns()
    assert await ref.stop(block=False) is True
    assert "the stubborn one" in caplog.text
    gate.set()
    await turns()


async def test_a_task_that_fails_at_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(Mortal):
        def spawn_clumsy(self) -> None:
            self.spawn(self.stumble())

        async def stumble(self) -> None:
            try:
                await self.sleep()
            finally:
                raise ValueError("stumbled")

    ref = Clumsy.start()
    await ref.ask(call("spawn_clumsy"), block=False)
    await actor_of(ref).reached
    assert await ref.stop(block=False) is True
    assert (await ended(ref)).ending is Ending.STOPPED
    assert "stumbled" in caplog.text


# -- what stays


async def test_a_failure_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    ref = await _told(ValueError("once"))
    await ended(ref)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.text.count("Traceback") == 1
    caplog.clear()
    for quiet in (_orderly, _cancelled_while_idle, _cancelled_at_work, _start_hangs):
        await ended(await quiet())
    assert caplog.records == []


async def test_an_ended_actor_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ended."""
    # Log records that pytest keeps hold tracebacks.
    monkeypatch.setattr(logging.getLogger("actors.runtime._actor"), "disabled", True)
    watches = {}
    for name, (go, *_) in PATHS.items():
        ref = await go()
        watches[name] = weakref.ref(actor_of(ref))
        await ended(ref)
        del ref
    await turns()
    gc.collect()
    assert [name for name, watch in watches.items() if watch() is not None] == []


async def test_an_orderly_end_frees_the_actor_at_once() -> None:
    ref = Mortal.start()
    await ref.started
    watch = weakref.ref(actor_of(ref))
    gc.disable()
    try:
        await ref.stop(block=False)
        await turns()
        assert watch() is None
    finally:
        gc.enable()
    assert str(await ended(ref)) == "stopped"


async def test_an_exit_reads_well() -> None:
    ref = await _told(ValueError("no route"))
    assert str(await ended(ref)) == "failed: ValueError: no route"
    assert str(Exit(Ending.FAILED, TimeoutError())) == "failed: TimeoutError"


async def test_names_of_subclasses_are_their_own() -> None:
    """Everyday names of a subclass meet nothing of the runtime's."""

    class Everyday(Actor):
        def __init__(self) -> None:
            super().__init__()
            self._exit = self._main = self._spawned = self._timers = self._owed = "mine"

        def _close(self) -> None:
            raise AssertionError

        _live = _ended = _fail = _cancel = _stop = _drain = _close

    ref = Everyday.start()
    await ref.started
    await stopped(ref)
    ref = Everyday.start()
    await ref.started
    ref.cancel()
    assert (await ended(ref)).ending is Ending.CANCELLED
