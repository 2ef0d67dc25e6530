"""The worker's state machine against a model, and the table of its documentation against its own."""

import re

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.service import _worker
from actors.service._worker import FIRST_DELAY, LONGEST_DELAY, NEXT, STABLE_AFTER, Event, Instance, Worker
from schemas.states import RUNNING_STATES, Lifecycle

PROCESS_STATES = {*RUNNING_STATES, Lifecycle.STOPPING}
OURS = {*PROCESS_STATES, Lifecycle.STOPPED, Lifecycle.BACKING_OFF}


def test_the_documented_table_is_the_one_in_force() -> None:
    assert _worker.__doc__ is not None
    head, *rows = [line for line in _worker.__doc__.splitlines() if re.match(r"^[a-z -]+ {2,}", line)]
    events = [Event[name.replace("-", "_").upper()] for name in head.split()]
    assert set(events) == set(Event)
    seen = set()
    for row in rows:
        state, *cells = row.split()
        seen.add(Lifecycle(state))
        for event, cell in zip(events, cells, strict=True):
            assert NEXT[event].get(Lifecycle(state)) == (None if cell == "-" else Lifecycle(cell)), (state, event)
    assert seen == OURS


class Model(RuleBasedStateMachine):
    """Orders of events as they can come: a process that is there can do anything, one that is not can be started."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.told: list[tuple[Lifecycle, str, int]] = []
        self.worker = Worker(on_change=self._note, clock=lambda: self.now)
        self.worker.wanted = True
        # The model: is there a process, was it asked to end, has it ever been ready, failures in a row.
        self.process = False
        self.asked = False
        self.ready_at: float | None = None
        self.spawned_at = 0.0
        self.ill = False
        self.heard = False
        self.failures = 0
        self.starts = 0
        self.restarts = 0

    def _note(self) -> None:
        self.told.append((self.worker.state, self.worker.reason, self.worker.restarts))

    @precondition(lambda self: not self.process and self.worker.wanted)
    @rule()
    def spawn(self) -> None:
        self.starts += 1
        self.worker.spawned(Instance(f"i{self.starts}", self.starts), f"start {self.starts}")
        self.process, self.asked, self.ready_at, self.ill, self.spawned_at = True, False, None, False, self.now
        self.heard = False

    @precondition(lambda self: not self.process and self.worker.wanted)
    @rule()
    def fail_to_spawn(self) -> None:
        delay = self.worker.not_spawned("no such file")
        self.failures += 1
        self._check_delay(delay)
        assert self.worker.state is Lifecycle.BACKING_OFF

    @rule(ok=st.booleans(), reason=st.sampled_from(["a", "b"]))
    def report(self, ok: bool, reason: str) -> None:
        self.worker.healthy(ok, reason)
        self.heard = True
        if self.process and not self.asked:
            if ok and self.ready_at is None:
                self.ready_at = self.now
            self.ill = not ok

    @rule()
    def be_silent(self) -> None:
        before = self.worker.reason
        self.worker.silent("not a word")
        news = self.process and not self.asked and not self.heard
        assert self.worker.reason == ("not a word" if news else before)

    @rule()
    def ask_to_end(self) -> None:
        news = self.worker.asked_to_end("asked")
        assert news == (self.process and not self.asked)
        self.asked = self.asked or self.process

    @rule()
    def give_up(self) -> None:
        self.worker.given_up("given up")

    @precondition(lambda self: self.process)
    @rule()
    def end(self) -> None:
        """By itself, of a kill, or as it was asked: the machine sees the same."""
        if self.now - (self.spawned_at if self.ready_at is None else self.ready_at) >= STABLE_AFTER:
            self.failures = 0
        self.failures += not self.asked
        delay = self.worker.ended("died")
        self.process = False
        if not self.worker.wanted:
            assert delay is None
            assert self.worker.state is Lifecycle.STOPPED
            return
        self.restarts += 1
        assert delay is not None
        if self.asked:
            assert delay == 0
            assert self.worker.state is Lifecycle.STOPPED
        elif self.ready_at is not None and self.failures == 1:
            assert delay == 0
        else:
            self._check_delay(delay)
        assert self.told[-1][2] == self.restarts

    @rule(seconds=st.sampled_from([0.1, 30.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _check_delay(self, delay: float) -> None:
        full = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (self.failures - 1))
        assert 0.8 * full <= delay <= full

    @invariant()
    def state_and_process_agree(self) -> None:
        assert self.worker.running == self.process
        assert (self.worker.state in PROCESS_STATES) == self.process
        assert self.worker.restarts == self.restarts
        if not self.process:
            assert self.worker.instance is None
            return
        assert self.worker.instance == Instance(f"i{self.starts}", self.starts)
        if self.asked:
            expected = Lifecycle.STOPPING
        elif self.ready_at is None:
            expected = Lifecycle.STARTING
        else:
            expected = Lifecycle.UNHEALTHY if self.ill else Lifecycle.READY
        assert self.worker.state is expected

    @invariant()
    def every_change_is_told_once(self) -> None:
        if self.told:
            assert self.told[-1][:2] == (self.worker.state, self.worker.reason)
        assert all(one[:2] != other[:2] for one, other in zip(self.told, self.told[1:], strict=False))

    @invariant()
    def one_that_is_not_wanted_is_not_about_to_start(self) -> None:
        if not self.worker.wanted:
            assert self.worker.state is not Lifecycle.BACKING_OFF


TestWorker = Model.TestCase
TestWorker.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
