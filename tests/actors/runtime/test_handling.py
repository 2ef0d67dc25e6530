"""How messages are handled: in their sender's context, one at a time, with the loop's turns between."""

import asyncio
import gc
import logging
import weakref
from contextvars import Context, ContextVar
from typing import Any

import anyio
import pytest

from actors.runtime import Actor, Ending, Handle, Ref
from actors.runtime._step import step_in
from tests.actors.runtime.support import DEADLINE, call, ended, stopped, turns

# Pykka types hooks as plain functions.
# mypy: disable-error-code="override"

request_id: ContextVar[str] = ContextVar("request_id", default="none")


class Echo(Actor):
    def __init__(self, behind: "Ref[Echo] | None" = None) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._behind = behind

    async def note(self) -> str:
        await turns(2)
        if self._behind is not None:
            await self._behind.ask(call("note"), block=False)
        self.seen.append(request_id.get())
        return request_id.get()

    async def after_a_timeout(self) -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return request_id.get()
        return "not reached"

    def plain(self) -> str:
        self.seen.append(request_id.get())
        return request_id.get()

    async def change(self, value: str) -> str:
        token = request_id.set(value)
        await turns(2)
        changed = request_id.get()
        request_id.reset(token)
        return changed

    def and_defer(self) -> None:
        self.defer(self.plain)

    def and_spawn(self) -> Any:
        return self.spawn(self.note())

    def read(self) -> list[str]:
        return self.seen

    @property
    def attribute(self) -> str:
        return request_id.get()


# -- context variables


async def test_context_variables_reach_the_last_handler() -> None:
    last = Echo.start()
    first = Echo.start(last)
    proxy = first.proxy()
    handle: Handle[Echo] = Handle("echo")
    handle.attach(first)
    async with asyncio.timeout(DEADLINE):
        request_id.set("ask")
        assert await first.ask(call("note"), block=False) == "ask"
        assert await first.ask(call("after_a_timeout"), block=False) == "ask"
        request_id.set("tell")
        first.tell(call("note"))
        request_id.set("handle")
        assert await handle.ask(Echo.note) == "handle"
        request_id.set("handle tell")
        assert handle.tell(Echo.note)
        request_id.set("proxy")
        assert await proxy.note() == "proxy"
        assert await proxy.attribute == "proxy"
        request_id.set("defer")
        proxy.note.defer()
        request_id.set("deferred inside")
        await first.ask(call("and_defer"), block=False)
        request_id.set("reading")
        expected = ["ask", "tell", "handle", "handle tell", "proxy", "defer"]
        assert await first.ask(call("read"), block=False) == [*expected, "deferred inside"]
        assert await last.ask(call("read"), block=False) == expected
    await stopped(first, last)


async def test_context_variables_come_from_threads() -> None:
    ref = Echo.start()
    request_id.set("thread")
    assert await asyncio.to_thread(ref.ask, call("note"), timeout=DEADLINE) == "thread"
    await stopped(ref)


async def test_a_handlers_own_variables_stay_with_it() -> None:
    ref = Echo.start()
    request_id.set("mine")
    changing = ref.ask(call("change", "changed"), block=False)
    reading = ref.ask(call("plain"), block=False)
    async with asyncio.timeout(DEADLINE):
        assert await changing == "changed"
        assert await reading == "mine"
    assert request_id.get() == "mine"
    await stopped(ref)


async def test_nothing_of_the_starter_or_of_a_message_sticks_to_a_long_life() -> None:
    class Starting(Echo):
        async def on_start(self) -> None:
            self.seen.append(request_id.get())

    request_id.set("the starter's")
    ref = Starting.start()
    async with asyncio.timeout(DEADLINE):
        await ref.ask(call("and_spawn"), block=False)
        assert await ref.ask(call("read"), block=False) == ["none", "none"]
    await stopped(ref)


async def test_an_idle_actor_keeps_nothing_of_its_last_message() -> None:
    class Cargo:
        pass

    class Porter(Actor):
        async def carry(self, cargo: Cargo) -> Cargo:
            return cargo

    ref = Porter.start()
    cargo = Cargo()
    watch = weakref.ref(cargo)
    await ref.ask(call("carry", cargo), block=False)
    del cargo
    await turns()
    gc.collect()
    assert watch() is None
    await stopped(ref)


# -- results


async def test_awaitable_results_are_awaited_and_pykka_futures_handed_over() -> None:
    class Mixed(Actor):
        def task(self) -> Any:
            return asyncio.get_running_loop().create_task(self.value())

        async def value(self) -> str:
            await turns(2)
            return "awaited"

        def ahead(self, of: Ref[Echo]) -> Any:
            return of.ask(call("plain"), block=False)

    ref, echo = Mixed.start(), Echo.start()
    async with asyncio.timeout(DEADLINE):
        assert await ref.ask(call("task"), block=False) == "awaited"
        # Pykka's way for an actor that is not to wait itself.
        assert await (await ref.ask(call("ahead", echo), block=False)) == "none"
    await stopped(ref, echo)


# -- one at a time, and the loop's turn


async def test_one_message_is_handled_at_a_time() -> None:
    class Careful(Actor):
        inside = 0

        async def work(self) -> int:
            self.inside += 1
            await turns(3)
            now, self.inside = self.inside, self.inside - 1
            return now

    ref = Careful.start()
    async with asyncio.timeout(DEADLINE):
        replies = [ref.ask(call("work"), block=False) for _ in range(20)]
        assert [await each for each in replies] == [1] * 20
    await stopped(ref)


async def test_a_flood_of_tells_to_itself_lets_the_loop_run() -> None:
    class Flooded(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def again(self) -> None:
            self.count += 1
            self.defer(self.again)

    ref = Flooded.start()
    ref.tell(call("again"))
    actor = ref._actor_weakref()
    assert actor is not None
    counts = []
    async with asyncio.timeout(DEADLINE):
        for _ in range(5):
            await asyncio.sleep(0)
            counts.append(actor.count)
        # The mailbox is never empty, and yet this test runs between, each time with many messages done.
        assert counts == sorted(set(counts))
        assert counts[-1] - counts[0] > 50
        assert await ref.stop(block=False) is True


# -- time-outs and cancel scopes inside


class Impatient(Actor):
    async def asyncio_timeout(self) -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "not reached"

    async def anyio_scope(self) -> str:
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        return "timed out" if scope.cancelled_caught else "not reached"

    async def anyio_group(self) -> str:
        done: list[str] = []

        async def child(name: str) -> None:
            await anyio.sleep(0)
            done.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(child, "one")
            group.start_soon(child, "two")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await turns(2)
            group.cancel_scope.cancel()
        return " ".join(sorted(done))

    async def asyncio_group(self) -> str:
        with pytest.raises(ExceptionGroup):  # noqa: PT012  # a group needs its body
            async with asyncio.TaskGroup() as group:
                group.create_task(self.fail())
                await asyncio.Event().wait()
        return "cancelled by its own group"

    async def fail(self) -> None:
        raise ValueError("child")

    async def leaking_timeout(self) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_timeouts_scopes_and_groups_work_in_handlers_and_leave_the_actor_alone() -> None:
    ref = Impatient.start()
    async with asyncio.timeout(DEADLINE):
        for _ in range(3):
            assert await ref.ask(call("asyncio_timeout"), block=False) == "timed out"
            assert await ref.ask(call("anyio_scope"), block=False) == "timed out"
            assert await ref.ask(call("anyio_group"), block=False) == "one two"
            assert await ref.ask(call("asyncio_group"), block=False) == "cancelled by its own group"
            with pytest.raises(TimeoutError):
                await ref.ask(call("leaking_timeout"), block=False)
    assert ref.is_alive()
    await stopped(ref)


async def test_a_cancellation_passes_through_scopes_to_the_end() -> None:
    class Deep(Actor):
        async def wait(self) -> None:
            async with asyncio.timeout(DEADLINE), anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                with anyio.CancelScope():
                    await anyio.sleep_forever()

    ref = Deep.start()
    ref.tell(call("wait"))
    await turns()
    ref.cancel()
    assert (await ended(ref)).ending is Ending.CANCELLED


async def test_a_closed_step_closes_its_work_in_the_works_context() -> None:
    """A loop that ends with the task pending closes the coroutine from outside."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(request_id.get())

    context = Context()
    context.run(request_id.set, "the sender's")
    step = step_in(context, work())
    step.send(None)
    step.close()
    assert seen == ["the sender's"]


# -- timers


async def test_a_timer_tells_through_the_mailbox_and_ends_with_the_actor() -> None:
    class Ticking(Actor):
        def __init__(self) -> None:
            super().__init__()
            self.ticks: list[str] = []

        def set_up(self) -> Any:
            self.later(3600, self.tick, "in an hour")
            cancelled = self.later(0, self.tick, "cancelled")
            cancelled.cancel()
            return self.later(0, self.tick, name="now")

        def tick(self, name: str) -> None:
            self.ticks.append(name)

        async def on_stop(self) -> None:
            self.later(0, self.tick, "too late")
            await asyncio.sleep(0.001)

    ref = Ticking.start()
    actor = ref._actor_weakref()
    assert actor is not None
    async with asyncio.timeout(DEADLINE):
        await ref.ask(call("set_up"), block=False)
        while not actor.ticks:
            await turns(1)
        await ref.stop(block=False)
    assert actor.ticks == ["now"]
    # The hour's timer keeps nobody.
    watch = weakref.ref(actor)
    del actor
    await turns()
    gc.collect()
    assert watch() is None


async def test_an_error_for_an_asker_is_not_noise(caplog: pytest.LogCaptureFixture) -> None:
    ref = Impatient.start()
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="child"):
        await ref.ask(call("fail"), block=False)
    await stopped(ref)
    assert caplog.records == []
