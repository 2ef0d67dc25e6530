"""The supervisor against a model of it, in sequences of ends, additions and removals that nobody thought of."""

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.runtime import Handle, Restart, Strategy, Supervisor
from tests.actors.runtime.supervised import Child, Family
from tests.actors.runtime.support import DEADLINE, stopped, turns

NAMES = [f"child {letter}" for letter in "abcdef"]


@dataclass
class Expected:
    """What the model knows of a child."""

    restart: Restart
    up: bool = True
    restarts: int = 0


class SupervisorMachine(RuleBasedStateMachine):
    """Ends are counted in the model by OTP's rules; the real one settles after each step, since its backoff is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.family = Family()
        self.model: dict[str, Expected] = {}
        self.rest = False
        self.starts: list[str] = []
        self.supervisor: Handle[Supervisor]

    def run(self, work: Any) -> Any:
        async def within_the_deadline() -> Any:
            async with asyncio.timeout(DEADLINE):
                result = await work
                await turns(60)
                return result

        return self.runner.run(within_the_deadline())

    @initialize(
        strategy=st.sampled_from(Strategy),
        kinds=st.lists(st.sampled_from(Restart), max_size=4),
    )
    def begin(self, strategy: Strategy, kinds: list[Restart]) -> None:
        self.rest = strategy is Strategy.REST_FOR_ONE
        specs = [self.family.spec(name, kind) for name, kind in zip(NAMES, kinds, strict=False)]
        self.model = {spec.name: Expected(spec.restart) for spec in specs}
        self.supervisor = self.run(self.family.started(*specs, strategy=strategy))

    @precondition(lambda self: len(self.model) < len(NAMES))
    @rule(kind=st.sampled_from(Restart))
    def add(self, kind: Restart) -> None:
        name = next(name for name in NAMES if name not in self.model)
        self.run(self.supervisor.ask(Supervisor.add, self.family.spec(name, kind)))
        self.model[name] = Expected(kind)
        self.starts = [name]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        self.run(self.supervisor.ask(Supervisor.remove, name))
        del self.model[name]
        self.starts = []

    @precondition(lambda self: any(each.up for each in self.model.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """One or more at once, each its own way, in any order."""
        up = [name for name, each in self.model.items() if each.up]
        names = data.draw(st.lists(st.sampled_from(up), min_size=1, unique=True))
        ways = {name: data.draw(st.sampled_from(["crash", "stop", "cancel"])) for name in names}
        self.run(self._end(ways))
        self.starts = []
        if self.rest:
            self._rest_for_one(ways)
        else:
            self._one_for_one(ways)

    async def _end(self, ways: dict[str, str]) -> None:
        refs = [self.family.refs[name] for name in ways]
        for ref, (name, way) in zip(refs, ways.items(), strict=True):
            if way == "crash":
                self.family.handles[name].tell(Child.crash)
            elif way == "stop":
                ref.stop(block=False)
            else:
                ref.cancel()
        for ref in refs:
            await ref.exited.wait()

    def _one_for_one(self, ways: dict[str, str]) -> None:
        for name in ways:
            self._ended(name)
        for name, way in ways.items():
            if name in self.model and not self.model[name].up and self._comes_back(name, way):
                self._restarted(name)

    def _rest_for_one(self, ways: dict[str, str]) -> None:
        order = list(self.model)
        causes = [name for name in order if name in ways and self._comes_back(name, ways[name])]
        for name in ways:
            self._ended(name)
        if not causes:
            return
        for name in order[order.index(causes[0]) :]:
            if name in self.model and self.model[name].restart is Restart.TEMPORARY:
                del self.model[name]
            elif name in self.model:
                self._restarted(name)

    def _comes_back(self, name: str, way: str) -> bool:
        kind = self.model[name].restart
        return kind is Restart.PERMANENT or (kind is Restart.TRANSIENT and way != "stop")

    def _ended(self, name: str) -> None:
        self.model[name].up = False
        if self.model[name].restart is Restart.TEMPORARY:
            del self.model[name]

    def _restarted(self, name: str) -> None:
        self.model[name].up = True
        self.model[name].restarts += 1
        self.starts.append(name)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "supervisor"):
            return
        restarts = self.run(self.supervisor.ask(Supervisor.restarts))
        assert list(restarts) == list(self.model)
        assert restarts == {name: each.restarts for name, each in self.model.items()}
        up = {name for name, handle in self.family.handles.items() if handle.up}
        assert up == {name for name, each in self.model.items() if each.up}
        started = [entry[1:] for entry in self.family.log if entry.startswith("+")]
        # Under one_for_one, the order of several restarts is that of the ends.
        assert (started == self.starts) if self.rest else (sorted(started) == sorted(self.starts))
        self.family.log.clear()
        self.starts = []
        for name in up:
            assert self.run(self.family.handles[name].ask(Child.incarnation)) == self.family.number[name]

    def teardown(self) -> None:
        if hasattr(self, "supervisor"):
            order = [name for name, each in self.model.items() if each.up]
            self.run(stopped(self.family.ref))
            assert self.family.log == [f"-{name}" for name in reversed(order)]
            assert not any(handle.up for handle in self.family.handles.values())
        self.runner.close()


TestSupervisor = SupervisorMachine.TestCase
TestSupervisor.settings = settings(
    max_examples=60, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
