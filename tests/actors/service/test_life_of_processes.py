"""The life, the order of starts and the watch together, with real processes: what they say is enough to run workers by."""

import asyncio
import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from actors.process import Command, Process, SpawnFailed
from actors.process import Ended as ProcessEnded
from actors.service import _events as ev
from actors.service._lifecycle import Life
from actors.service._policy import Policy
from actors.service._start_order import StartOrder
from actors.service._watch import Watch
from schemas.manifest import Service, parse_manifest
from schemas.states import Lifecycle
from tests.support import eventually


class Runner:
    """Does what a life says, and feeds it what happens, one event after the other."""

    def __init__(self, service: Service, order: "Order") -> None:
        self.service, self.order = service, order
        names = (f"{service.name}-{n}" for n in itertools.count())
        self.life = Life(Policy.of(service), now=moment(), draw=lambda: 1.0, new_instance=lambda: next(names))
        self.process: Process | None = None
        self.watch: Watch | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.kept: list[bool] = []
        self.seen: list[Lifecycle] = []
        self.reasons: list[str] = []
        self._events: deque[ev.Event] = deque()

    def feed(self, event: ev.Event) -> None:
        self._events.append(event)
        if len(self._events) > 1:
            return  # from within an action: it is its turn later
        while self._events:
            for action in self.life.feed(self._events[0], moment()):
                self.do(action)
            self._events.popleft()

    def do(self, action: ev.Action) -> None:
        name = self.service.name
        match action:
            case ev.Keep(wanted):
                self.kept.append(wanted)
            case ev.Queue(ticket):
                self.order.tell(self.order.starts.queue(name, ticket))
            case ev.Withdraw(ticket):
                self.order.tell(self.order.starts.withdraw(name, ticket))
            case ev.Release():
                self.order.tell(self.order.starts.release(name))
            case ev.Spawn(instance):
                self.spawn(instance)
            case ev.Terminate(_, signal):
                assert self.process is not None
                self.process.terminate(3600.0, signal)
            case ev.KillTree():
                assert self.process is not None
                self.process.kill()
            case ev.Arm(at):
                if self.timer is not None:
                    self.timer.cancel()
                if at is not None:
                    self.timer = asyncio.get_running_loop().call_at(at, self.feed, ev.Due(at))
            case ev.Tell():
                self.seen.append(self.life.state)
                self.reasons.append(self.life.reason)
                if self.watch is not None and self.life.state is Lifecycle.STOPPING:
                    self.watch.close()
                self.order.tell(self.order.starts.note(name, self.life.state, spawned=self.life.pid is not None))

    def spawn(self, instance: str) -> None:
        def end(ended: ProcessEnded) -> None:
            watch.close()
            self.process = None
            self.feed(ev.Ended(instance, ended.code, str(ended), tree_gone=True))

        watch = self.watch = Watch(self.service, instance, self.feed, self.command)
        try:
            self.process = Process(
                self.command(self.service.command), on_line=lambda line: watch.line(line.decode()), on_end=end
            )
        except SpawnFailed as error:
            watch.close()
            self.feed(ev.SpawnFailed(instance, str(error), retry=False))
            return
        self.feed(ev.Spawned(instance, self.process.pid))
        watch.began(self.process.pid)

    def command(self, argv: tuple[str, ...]) -> Command:
        return Command(argv, self.service.cwd, {"PATH": os.environ["PATH"]})


class Order:
    def __init__(self, text: str) -> None:
        services = parse_manifest(text, "services.toml", Path("/")).services
        self.starts = StartOrder({service.name: service.start_after for service in services}, places=1)
        self.runners = {service.name: Runner(service, self) for service in services}

    def tell(self, told: Any) -> None:
        for name, event in told:
            asyncio.get_running_loop().call_soon(self.runners[name].feed, event)

    async def until(self, name: str, state: Lifecycle, words: str = "") -> Life:
        life = self.runners[name].life
        await eventually(lambda: life.state is state and words in life.reason, what=f"{name} {state} {words}")
        return life


def moment() -> ev.Moment:
    return ev.Moment(time.monotonic(), datetime.now(UTC))


@contextlib.asynccontextmanager
async def running(text: str) -> AsyncIterator[Order]:
    order = Order(text)
    for runner in order.runners.values():
        runner.feed(ev.Begin("started with the supervisor"))
    try:
        yield order
    finally:
        for runner in order.runners.values():
            runner.feed(ev.Close("the supervisor stops"))
            runner.feed(ev.Hurry())
        for name in order.runners:
            await order.until(name, Lifecycle.STOPPED)


UP = 'command = ["sh", "-c", "echo up; exec sleep 600"]\nreadiness = { kind = "log-line", pattern = "^up$" }\n'


async def test_in_order_and_back_after_a_crash() -> None:
    text = f'[services.b]\n{UP}start_after = ["a"]\n[services.a]\n{UP}'
    async with running(text) as order:
        a, b = order.runners["a"], order.runners["b"]
        await order.until("b", Lifecycle.READY)
        assert any(reason.startswith("waits for a to be ready") for reason in b.reasons)
        assert a.seen == [Lifecycle.WAITING, Lifecycle.STARTING, Lifecycle.STARTING, Lifecycle.READY]
        assert a.life.pid is not None
        os.kill(a.life.pid, 9)
        await eventually(lambda: a.life.restarts == 1)
        await order.until("a", Lifecycle.READY)
        assert (a.life.ends[0].code, a.life.ends[0].reason) == (-9, "was killed by SIGKILL")
        assert (b.life.state, b.life.restarts) == (Lifecycle.READY, 0)


async def test_stopped_by_its_owner_and_deaf() -> None:
    deaf = "trap '' TERM; echo up; while :; do sleep 0.01; done"
    text = f'[services.a]\ncommand = ["sh", "-c", "{deaf}"]\ngrace = 0.05\n{UP.splitlines()[1]}\n'
    async with running(text) as order:
        runner = order.runners["a"]
        await order.until("a", Lifecycle.READY)
        runner.feed(ev.Stop("stopped by anna"))
        await order.until("a", Lifecycle.STOPPED, "stopped by anna")
        assert (runner.kept, runner.life.ends[-1].code) == ([False], -9)
        runner.feed(ev.Start("started by anna"))
        await order.until("a", Lifecycle.READY)


@pytest.mark.parametrize(
    ("table", "state", "words"),
    [
        ('command = ["/no/such"]', Lifecycle.FAILED, "there is no program /no/such"),
        ('command = ["true"]\nrestart = "on-failure"', Lifecycle.EXITED, "exited with 0"),
        ('command = ["false"]\nrestart = "never"', Lifecycle.FAILED, "exited with 1"),
        ('command = ["false"]\nbackoff = { first = "1 h", max = "1 h" }', Lifecycle.BACKING_OFF, "exited with 1"),
        (
            'command = ["false"]\nbackoff = { first = 0.01, max = 0.01 }\nintensity = { restarts = 2 }',
            Lifecycle.FAILED,
            "exited with 1; that was more than 2 times in 600 s",
        ),
        (
            'command = ["sleep", "600"]\nreadiness = { kind = "tcp", port = 1, start_period = 0.05 }\nrestart = "never"',
            Lifecycle.FAILED,
            "it was not ready within 0.05 s",
        ),
        (
            """
            command = ["sleep", "600"]
            readiness = { kind = "none" }
            restart = "never"
            liveness = { kind = "exec", command = ["false"], start_period = 0, failure_threshold = 1 }
            """,
            Lifecycle.FAILED,
            "its liveness probe failed: false exited with 1",
        ),
    ],
)
async def test_how_it_ends(table: str, state: Lifecycle, words: str) -> None:
    async with running(f"[services.a]\n{table}\n") as order:
        await order.until("a", state, words)
