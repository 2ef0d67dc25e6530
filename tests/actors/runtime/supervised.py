"""Children whose behaviour a test writes down, and a family of them under a supervisor."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from actors.runtime import Actor, Backoff, ChildSpec, Handle, Intensity, LoopFuture, Ref, Restart, Strategy, Supervisor
from tests.actors.runtime.support import DEADLINE, turns

# Pykka types hooks as plain functions.
# mypy: disable-error-code="override"


@dataclass(frozen=True, slots=True)
class Told(Backoff):
    """A backoff that is what the test says: at once unless told, an hour for "not while this test lasts"."""

    seconds: float = 0.0
    asked: list[int] = field(default_factory=list)

    def delay(self, restarts: int) -> float:
        self.asked.append(restarts)
        return self.seconds


HOUR = Told(seconds=3600)


class Child(Actor):
    """Does at its start and stop what its family has planned for its name."""

    cleanup_timeout: ClassVar[float | None] = 0.05

    def __init__(self, family: "Family", name: str) -> None:
        super().__init__()
        self.family = family
        self.name = name

    async def on_start(self) -> None:
        self.family.log.append(f"+{self.name}")
        self.family.number[self.name] += 1
        plan = self.family.starts[self.name]
        if plan:
            await plan.pop(0)()

    async def on_stop(self) -> None:
        self.family.log.append(f"-{self.name}")
        plan = self.family.stops[self.name]
        if plan:
            await plan.pop(0)()

    async def on_failure(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.family.log.append(f"!{self.name}" if not isinstance(error, asyncio.CancelledError) else f"x{self.name}")

    async def crash(self, error: BaseException | None = None) -> None:
        raise error or ValueError(f"{self.name} crashed")

    async def work(self, gate: LoopFuture[None]) -> int:
        await gate.wait()
        return self.incarnation()

    def incarnation(self) -> int:
        return self.family.number[self.name]


class Family:
    """A supervisor and what its children did: `+a` started, `-a` stopped, `!a` failed, `xa` was cancelled."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.number: defaultdict[str, int] = defaultdict(int)
        self.starts: defaultdict[str, list[Callable[[], Any]]] = defaultdict(list)
        self.stops: defaultdict[str, list[Callable[[], Any]]] = defaultdict(list)
        self.handles: dict[str, Handle[Child]] = {}
        self.refs: dict[str, Ref[Child]] = {}
        self.ref: Ref[Supervisor]
        self.kind: type[Supervisor] = Supervisor

    def spec(self, name: str, restart: Restart = Restart.PERMANENT, **options: Any) -> ChildSpec:
        handle = self.handles.setdefault(name, Handle(name, timeout=DEADLINE))

        def start() -> Ref[Child]:
            ref = self.refs[name] = Child.start(self, name)
            return ref

        return ChildSpec(handle, start, restart, **options)

    def supervise(
        self,
        *specs: ChildSpec | str,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        backoff: Backoff | None = None,
        **options: Any,
    ) -> Ref[Supervisor]:
        made = [self.spec(each) if isinstance(each, str) else each for each in specs]
        self.ref = self.kind.start(
            made,
            strategy=strategy,
            intensity=intensity or Intensity(1000, 1000.0),
            backoff=backoff or Told(),
            **options,
        )
        return self.ref

    async def started(self, *specs: ChildSpec | str, **options: Any) -> "Handle[Supervisor]":
        """Supervise, wait until all are up, forget the log so far."""
        ref = self.supervise(*specs, **options)
        async with asyncio.timeout(DEADLINE):
            await ref.started
        self.log.clear()
        handle: Handle[Supervisor] = Handle("supervisor", timeout=DEADLINE)
        handle.attach(ref)
        return handle

    async def crash(self, *names: str) -> None:
        """End them at once, each by an exception, and wait until they are gone."""
        refs = [self.refs[name] for name in names]
        for name in names:
            self.handles[name].tell(Child.crash)
        async with asyncio.timeout(DEADLINE):
            for ref in refs:
                await ref.exited

    async def logged(self, *wanted: str) -> None:
        """Wait for this very log."""
        async with asyncio.timeout(DEADLINE):
            while len(self.log) < len(wanted):
                await turns(1)
        await turns(20)
        assert self.log == list(wanted)


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise OSError("no such device")


def gated(gate: LoopFuture[None]) -> Callable[[], Any]:
    return gate.wait
