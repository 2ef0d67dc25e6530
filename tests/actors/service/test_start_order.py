"""Who starts when, and restarts of several: the rules one by one, and any order of events against what must always hold."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.service._events import Granted, Held
from actors.service._roll import KeepDown, LetUp, RestartThese, Roll
from actors.service._start_order import Needs, StartOrder, waves, with_dependants
from schemas.manifest import Condition
from schemas.states import Lifecycle

HOME: Needs = {
    "migrate": {},
    "broker": {},
    "router": {"broker": Condition.STARTED, "migrate": Condition.EXITED_OK},
    "stt": {"router": Condition.READY},
    "tts": {"router": Condition.READY},
    "wake": {"stt": Condition.READY},
}


def test_dependencies_and_what_is_waited_for() -> None:
    order = StartOrder(HOME, places=9)
    assert order.queue("router", 1) == [
        ("router", Held(1, "waits for broker to be started (it is stopped), migrate to finish (it is stopped)"))
    ]
    assert order.queue("broker", 1) == [("broker", Granted(1))]
    # `starting` is not `started` until there is a process.
    assert order.note("broker", Lifecycle.STARTING, spawned=False) == [
        ("router", Held(1, "waits for broker to be started (it is starting), migrate to finish (it is stopped)"))
    ]
    assert order.note("broker", Lifecycle.STARTING, spawned=True) == [
        ("router", Held(1, "waits for migrate to finish (it is stopped)"))
    ]
    assert order.note("migrate", Lifecycle.FAILED, spawned=False) == [
        ("router", Held(1, "waits for migrate to finish (it is failed)"))
    ]
    assert order.note("migrate", Lifecycle.FAILED, spawned=False) == []
    assert order.note("migrate", Lifecycle.EXITED, spawned=False) == [("router", Granted(1))]


@pytest.mark.parametrize(
    ("condition", "state", "met"),
    [
        (Condition.STARTED, Lifecycle.EXTERNAL, True),
        (Condition.STARTED, Lifecycle.EXITED, True),
        (Condition.STARTED, Lifecycle.STOPPING, False),
        (Condition.READY, Lifecycle.UNHEALTHY, False),
        (Condition.READY, Lifecycle.EXITED, False),
        (Condition.READY, Lifecycle.EXTERNAL, False),
        (Condition.EXITED_OK, Lifecycle.READY, False),
        (Condition.EXITED_OK, Lifecycle.EXITED, True),
    ],
)
def test_which_state_meets_which_condition(condition: Condition, state: Lifecycle, met: bool) -> None:
    order = StartOrder({"a": {}, "b": {"a": condition}}, places=1)
    order.note("a", state, spawned=True)
    assert isinstance(order.queue("b", 1)[0][1], Granted) == met


def test_places() -> None:
    order = StartOrder({name: {} for name in "abc"}, places=1)
    assert order.queue("a", 1) == [("a", Granted(1))]
    assert order.queue("b", 1) == [("b", Held(1, "waits for its turn to start; there is one at a time"))]
    order.queue("c", 1)
    assert order.release("a") == [("b", Granted(1))]
    assert order.withdraw("b", 1) == [("c", Granted(1))]
    order.queue("a", 2)
    assert order.configure({name: {} for name in "abc"}, 2) == [("a", Granted(2))]
    assert order.forget("c") == []


def test_a_ticket_that_was_withdrawn_does_not_take_the_next_one_with_it() -> None:
    order = StartOrder({"a": {}, "b": {}}, places=1)
    order.queue("a", 1)
    order.queue("b", 1)
    order.queue("b", 2)
    assert order.withdraw("b", 1) == []
    assert order.release("a") == [("b", Granted(2))]


def test_waves() -> None:
    assert waves(HOME) == [["migrate", "broker"], ["router"], ["stt", "tts"], ["wake"]]
    assert waves(HOME, ["wake", "router"]) == [["router"], ["wake"]]  # by way of stt
    assert with_dependants(HOME, ["stt"]) == ["stt", "wake"]
    assert with_dependants(HOME, ["broker"]) == ["broker", "router", "stt", "tts", "wake"]
    ready = Condition.READY
    with pytest.raises(ValueError, match="a after c after b after a"):
        waves({"x": {"a": ready}, "a": {"c": ready}, "b": {"a": ready}, "c": {"b": ready}})


def test_a_restart_with_dependants() -> None:
    roll = Roll(HOME, {"router": "r1", "stt": "s1", "tts": None, "wake": "w1"}, rolling=False)
    everybody = ("router", "stt", "tts", "wake")
    assert roll.begin() == [KeepDown(everybody), RestartThese(("wake",))]
    assert roll.note("wake", Lifecycle.STOPPING, "w1", "") == []
    assert roll.note("wake", Lifecycle.WAITING, None, "") == [RestartThese(("stt", "tts"))]
    assert roll.note("stt", Lifecycle.WAITING, None, "") == []
    assert roll.note("tts", Lifecycle.WAITING, None, "") == [RestartThese(("router",))]
    assert roll.note("router", Lifecycle.STARTING, "r2", "", coming_up=True) == [LetUp(everybody)]
    for name in everybody:
        assert not roll.done
        roll.note(name, Lifecycle.READY, "new", "")
    assert roll.done
    assert roll.trouble == {}


def test_a_rolling_restart_stops_at_the_first_that_does_not_come_up() -> None:
    roll = Roll(HOME, {"router": "r1", "stt": "s1", "tts": "t1"}, rolling=True)
    assert roll.begin() == [RestartThese(("router",))]
    assert roll.note("stt", Lifecycle.UNHEALTHY, "s1", "not asked yet") == []
    assert roll.note("router", Lifecycle.STARTING, "r2", "", coming_up=True) == []
    # It runs without a word: nobody waits for it any more.
    assert roll.note("router", Lifecycle.STARTING, "r2", "silent") == [RestartThese(("stt",))]
    roll.note("stt", Lifecycle.STARTING, "s2", "", coming_up=True)
    assert roll.note("stt", Lifecycle.BACKING_OFF, None, "exited with 1") == []
    assert roll.done
    assert roll.trouble == {"stt": "it is backing-off: exited with 1"}
    assert roll.untouched == ["tts"]


def test_a_restart_that_is_given_up_lets_everybody_up() -> None:
    roll = Roll(HOME, {"stt": "s1", "wake": "w1"}, rolling=False)
    roll.begin()
    assert roll.give_up("it did not end in time") == [LetUp(("stt", "wake"))]
    assert roll.done
    assert roll.trouble == {"wake": "it did not end in time"}
    assert Roll(HOME, {}, rolling=True).begin() == []


class Orders(RuleBasedStateMachine):
    """Any requests and states in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.order = StartOrder(HOME, places=2)
        self.states: dict[str, Lifecycle] = {}
        self.waiting: dict[str, int] = {}
        self.starting: set[str] = set()
        self.down: set[str] = set()
        self.tickets = 0

    def take(self, told: list[tuple[str, Granted | Held]]) -> None:
        for name, what in told:
            assert self.waiting[name] == what.ticket
            if isinstance(what, Granted):
                assert self.free(name), name
                del self.waiting[name]
                self.starting.add(name)
        assert len(self.starting) <= 2
        # Whoever could start has been told to.
        assert len(self.starting) == 2 or not any(self.free(name) for name in self.waiting)

    def free(self, name: str) -> bool:
        meets = {
            Condition.STARTED: {Lifecycle.READY, Lifecycle.EXITED, Lifecycle.UNHEALTHY, Lifecycle.STARTING},
            Condition.READY: {Lifecycle.READY},
            Condition.EXITED_OK: {Lifecycle.EXITED},
        }
        return name not in self.down and all(
            self.states.get(other) in meets[condition] for other, condition in HOME[name].items()
        )

    @rule(name=st.sampled_from(list(HOME)))
    def queue(self, name: str) -> None:
        self.tickets += 1
        self.waiting.pop(name, None)
        self.starting.discard(name)
        self.waiting[name] = self.tickets
        self.take(self.order.queue(name, self.tickets))

    @rule(name=st.sampled_from(list(HOME)))
    def withdraw(self, name: str) -> None:
        ticket = self.waiting.pop(name, 0)
        self.starting.discard(name)
        self.take(self.order.withdraw(name, ticket))

    @rule(name=st.sampled_from(list(HOME)))
    def release(self, name: str) -> None:
        self.starting.discard(name)
        self.take(self.order.release(name))

    @rule(
        name=st.sampled_from(list(HOME)),
        state=st.sampled_from([Lifecycle.STARTING, Lifecycle.READY, Lifecycle.EXITED, Lifecycle.FAILED]),
    )
    def note(self, name: str, state: Lifecycle) -> None:
        self.states[name] = state
        self.take(self.order.note(name, state, spawned=True))

    @rule(names=st.sets(st.sampled_from(list(HOME))), down=st.booleans())
    def keep(self, names: set[str], down: bool) -> None:
        self.down = self.down | names if down else self.down - names
        self.take(self.order.keep_down(names, "a restart") if down else self.order.let_up(names))

    @invariant()
    def nobody_both_waits_and_starts(self) -> None:
        assert not self.waiting.keys() & self.starting


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
