"""A worker's life against a world of processes in which everything can come late or out of order; and its races by name."""

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime
from signal import SIGABRT, SIGINT, SIGTERM
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.service import _events as ev
from actors.service._lifecycle import KEPT_ENDS, STEPS, Life
from actors.service._policy import LONGEST_TURN, Policy
from schemas.manifest import Backoff, Intensity, Restart
from schemas.states import DOWN_STATES, PROCESS_STATES, RUNNING_STATES, Lifecycle

WALL = datetime(2026, 11, 20, tzinfo=UTC)


def test_every_state_has_a_way_out_and_every_event_a_meaning() -> None:
    ignore = Life._ignore
    for state in DOWN_STATES | PROCESS_STATES:
        ways = {event.__name__ for (event, at), step in STEPS.items() if at is state and step is not ignore}
        assert ways & {"Start", "Granted", "Stop"}, state
    for event in ev.Event.__args__:
        assert any(step is not ignore for (each, _), step in STEPS.items() if each is event), event


class World(RuleBasedStateMachine):
    """Carries out what it is told, at once or later; a process does what it likes; messages come in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.names = (f"i{n}" for n in itertools.count())
        self.kept = True
        self.model_wanted = True
        self.asked: set[str] = set()
        self.trees: dict[str, dict[str, Any]] = {}
        self.mail: list[ev.Event] = []
        self.spawns = 0
        self.policy = Policy(start_period=40.0, intensity=Intensity(restarts=4, window=100.0))
        self.boot()

    def boot(self) -> None:
        """A supervisor begins, with what was kept."""
        self.closing = False
        self.ticket: int | None = None
        self.has_turn = False
        self.terminated: list[str] = []
        self.life = Life(
            self.policy,
            now=self.moment,
            draw=random.Random(1).random,
            new_instance=lambda: next(self.names),
            wanted=self.kept,
        )
        self.restarts = 0

    @property
    def moment(self) -> ev.Moment:
        return ev.Moment(self.now, WALL)

    def feed(self, event: ev.Event) -> None:
        before = self.life.state
        actions = self.life.feed(event, self.moment)
        for action in actions:
            self.carry_out(action)
        tells = [action for action in actions if isinstance(action, ev.Tell)]
        assert tells == [a for a in actions[-1:] if isinstance(a, ev.Tell)]
        assert tells or self.life.state is before
        assert self.life.reason
        assert self.life.since.steady <= self.now
        assert self.restarts <= self.life.restarts <= self.restarts + 1
        self.restarts = self.life.restarts

    def carry_out(self, action: ev.Action) -> None:
        match action:
            case ev.Keep(wanted):
                self.kept = wanted
            case ev.Queue(ticket):
                assert self.ticket is None
                self.ticket = ticket
            case ev.Withdraw(ticket):
                assert self.ticket == ticket
                self.ticket = None
            case ev.Release():
                assert self.has_turn
                self.has_turn = False
            case ev.Spawn(name):
                assert not self.asked
                assert not self.trees, "spawned while one lives"
                assert self.model_wanted
                assert not self.closing
                self.asked.add(name)
                self.spawns += 1
            case ev.Terminate(name):
                assert name not in self.terminated
                self.terminated.append(name)
            case ev.KillTree(name):
                self.kill(name)

    def kill(self, name: str) -> None:
        if name in self.asked:
            self.asked.remove(name)
            self.mail.append(ev.TreeGone(name))
        elif name in self.trees:
            tree = self.trees[name]
            if tree["undead"] > 0:
                tree["undead"] -= 1
            elif tree["leader"]:
                self.end(name, 0)
            else:
                self.others_end(name)

    def end(self, name: str, others: int, code: int = -9) -> None:
        tree = self.trees[name]
        tree["leader"], tree["others"] = False, others
        if not others:
            del self.trees[name]
        self.mail.append(ev.Ended(name, code, f"ended with {code}", tree_gone=not others))

    def others_end(self, name: str) -> None:
        del self.trees[name]
        self.mail.append(ev.TreeGone(name))

    # -- people

    @rule(word=st.sampled_from([ev.Start, ev.Stop, ev.Restart]))
    def owner(self, word: Callable[[str], ev.Event]) -> None:
        self.model_wanted = word is not ev.Stop
        self.feed(word("the owner"))
        assert self.kept == self.model_wanted

    @rule(word=st.sampled_from([ev.Begin, ev.Renew, ev.Retry]))
    def supervisor(self, word: Callable[[str], ev.Event]) -> None:
        self.feed(word("a change"))

    @rule()
    def close(self) -> None:
        self.closing = True
        self.feed(ev.Close("the supervisor stops"))

    @rule()
    def hurry(self) -> None:
        self.feed(ev.Hurry())

    # -- the order of starts

    @precondition(lambda self: self.ticket is not None)
    @rule(late=st.booleans())
    def grant(self, late: bool) -> None:
        granted = ev.Granted(self.ticket or 0)
        if late:
            self.mail.append(granted)
            return
        self.ticket, self.has_turn = None, True
        self.feed(granted)

    @rule(ticket=st.integers(0, 5))
    def hold(self, ticket: int) -> None:
        self.feed(ev.Held(ticket, "it waits for another"))

    # -- the process

    @precondition(lambda self: self.asked)
    @rule(fail=st.sampled_from([None, False, True]), undead=st.integers(0, 2))
    def answer(self, fail: bool | None, undead: int) -> None:
        (name,) = self.asked
        self.asked.clear()
        if fail is None:
            self.trees[name] = {"leader": True, "others": 0, "undead": undead, "since": self.now}
            self.mail.append(ev.Spawned(name, 100 + self.spawns))
        else:
            self.mail.append(ev.SpawnFailed(name, "no such program", retry=fail))

    @precondition(lambda self: self.trees)
    @rule(others=st.integers(0, 1), code=st.sampled_from([0, 1, -11, -15]))
    def die(self, others: int, code: int) -> None:
        (name,) = self.trees
        if self.trees[name]["leader"]:
            self.end(name, others, code)

    @precondition(lambda self: self.trees)
    @rule()
    def stragglers_end(self) -> None:
        (name,) = self.trees
        if not self.trees[name]["leader"]:
            self.others_end(name)

    @precondition(lambda self: self.mail)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Any of what is under way; some come twice."""
        at = data.draw(st.integers(0, len(self.mail) - 1))
        event = self.mail[at]
        if not data.draw(st.booleans()) or isinstance(event, ev.Granted | ev.SpawnFailed):
            del self.mail[at]
        self.take(event)

    def take(self, event: ev.Event) -> None:
        if isinstance(event, ev.Granted) and event.ticket == self.ticket:
            self.ticket, self.has_turn = None, True
        self.feed(event)

    @rule(word=st.sampled_from([ev.Ready, ev.Unhealthy, ev.Condemned]), stale=st.booleans())
    def report(self, word: Callable[..., ev.Event], stale: bool) -> None:
        before = self.life.state
        self.feed(word("nobody" if stale else self.life.instance or "nobody", "a report"))
        if stale:
            assert self.life.state is before

    @rule(seconds=st.sampled_from([0.1, 6.0, 31.0, 61.0]), early=st.booleans())
    def wait(self, seconds: float, early: bool) -> None:
        self.now += seconds
        if self.life.due is not None and self.life.due <= self.now:
            self.feed(ev.Due(self.life.due))
        if early:
            self.feed(ev.Due(self.now - 0.05))

    @rule(reboot=st.booleans())
    def die_and_come_back(self, reboot: bool) -> None:
        """The supervisor is killed. Whoever comes next is told of what is there, or nothing is after a power cut."""
        self.mail.clear()
        if reboot:
            self.asked.clear()
            self.trees.clear()
        self.asked.clear()  # a gated spawn dies with who asked for it
        self.boot()
        for name, tree in list(self.trees.items()):
            ready_at = self.now - 1 if tree["undead"] else None
            self.feed(ev.Adopted(name, 99, tree["since"], ready_at, "adopted"))
            if not tree["leader"]:
                self.mail.append(ev.Ended(name, None, "has ended", tree_gone=False))
        self.feed(ev.Begin("started with the supervisor"))

    @rule()
    def come_to_rest(self) -> None:
        """From anywhere, a world that behaves brings it where it is wanted."""
        for _ in range(300):
            life = self.life
            if self.mail:
                self.take(self.mail.pop(0))
            elif self.asked:
                self._spawn_well()
            elif self.ticket is not None:
                self.take(ev.Granted(self.ticket))
            elif life.state is Lifecycle.STARTING and life.pid is not None:
                self.feed(ev.Ready(life.instance or "", "well"))
            elif life.due is not None:
                self.now = max(self.now, life.due)
                self.feed(ev.Due(life.due))
            else:
                break
        if not self.model_wanted or self.closing:
            assert life.state is Lifecycle.STOPPED
        else:
            # `stopped` where nobody has said that the supervisor has begun.
            rest = {Lifecycle.READY, Lifecycle.UNHEALTHY, Lifecycle.FAILED, Lifecycle.EXITED, Lifecycle.STOPPED}
            assert life.state in rest
            if life.state is Lifecycle.STOPPED:
                assert life.reason == "not started yet"

    def _spawn_well(self) -> None:
        (name,) = self.asked
        self.asked.clear()
        self.trees[name] = {"leader": True, "others": 0, "undead": 0, "since": self.now}
        self.mail.append(ev.Spawned(name, 100 + self.spawns))

    # -- always

    @invariant()
    def at_most_one(self) -> None:
        assert len(self.asked) + len(self.trees) <= 1
        assert {*self.asked, *self.trees} <= {self.life.instance}

    @invariant()
    def state_and_process_agree(self) -> None:
        assert (self.life.state in PROCESS_STATES) == (self.life.instance is not None)
        if self.life.state in DOWN_STATES:
            assert self.life.pid is None
        if self.life.state in RUNNING_STATES:
            assert self.model_wanted
            assert not self.closing

    @invariant()
    def what_the_owner_wants_is_kept(self) -> None:
        assert self.life.wanted == self.kept == self.model_wanted
        if not self.model_wanted:
            assert self.life.state in {Lifecycle.STOPPED, Lifecycle.STOPPING}

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        assert (self.life.state is Lifecycle.WAITING) == (self.ticket is not None)
        if self.life.state in {Lifecycle.STOPPING, Lifecycle.BACKING_OFF}:
            assert self.life.due is not None
        if self.life.state in DOWN_STATES - {Lifecycle.BACKING_OFF}:
            assert self.life.due is None
        if self.life.state is not Lifecycle.STARTING:
            assert not self.has_turn

    @invariant()
    def history_is_bounded(self) -> None:
        assert len(self.life.ends) <= KEPT_ENDS


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)


# -- the races, by name


class Driver:
    """Feeds a life, and keeps what it says."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.names = (f"i{n}" for n in itertools.count())
        self.life = Life(
            Policy(**options), now=self.moment, draw=lambda: 0.0, new_instance=lambda: next(self.names), wanted=True
        )

    @property
    def moment(self) -> ev.Moment:
        return ev.Moment(self.now, WALL)

    def __call__(self, event: ev.Event, after: float = 0.0) -> list[ev.Action]:
        self.now += after
        return self.life.feed(event, self.moment)

    def due(self) -> list[ev.Action]:
        assert self.life.due is not None
        self.now = max(self.now, self.life.due)
        return self(ev.Due(self.life.due))

    def up(self, *, ready: bool = True) -> str:
        """From down or waiting to a process; its name."""
        if self.life.state is not Lifecycle.WAITING:
            self(ev.Start("started"))
        self(ev.Granted(self.life._ticket))
        name = self.life.instance
        assert name is not None
        self(ev.Spawned(name, 100))
        if ready:
            self(ev.Ready(name, "ready"))
        return name

    def crash(self, name: str, code: int = -9, **more: Any) -> list[ev.Action]:
        return self(ev.Ended(name, code, "was killed by SIGKILL", tree_gone=True, **more))

    @property
    def seen(self) -> tuple[Lifecycle, str]:
        return self.life.state, self.life.reason


def kinds(actions: list[ev.Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def test_from_begin_to_close() -> None:
    drive = Driver()
    life = drive.life
    assert drive(ev.Begin("started with the supervisor")) == [ev.Queue(1), ev.Tell(Lifecycle.STOPPED)]
    drive(ev.Held(1, "waits for router to be ready"))
    assert drive.seen == (Lifecycle.WAITING, "waits for router to be ready")
    assert ev.Spawn("i0", "started with the supervisor") in drive(ev.Granted(1))
    assert drive.seen == (Lifecycle.STARTING, "started with the supervisor")
    drive(ev.Spawned("i0", 42))
    assert (life.pid, life.spawned_at, life.ready_at) == (42, 1000.0, None)
    drive(ev.Unhealthy("i0", "loading the model"))
    assert drive.seen == (Lifecycle.STARTING, "loading the model")
    assert drive(ev.Ready("i0", "ready"), after=1.0) == [ev.Release(), ev.Arm(None), ev.Tell(Lifecycle.STARTING)]
    assert life.since.steady == 1001.0
    drive(ev.Unhealthy("i0", "no microphone"))
    assert drive.seen == (Lifecycle.UNHEALTHY, "no microphone")
    assert drive(ev.Unhealthy("i0", "no microphone")) == []
    drive(ev.Ready("i0", "healthy"))
    told = drive(ev.Close("the supervisor stops"))
    assert told[0] == ev.Terminate("i0", SIGTERM, 10.0)
    assert drive(ev.Start("too late")) == []
    drive.crash("i0", -15)
    assert drive.seen == (Lifecycle.STOPPED, "the supervisor stops")
    assert life.wanted
    assert (life.instance, life.pid, life.restarts) == (None, None, 0)


def test_a_crash_is_mended_at_once_and_then_with_delays() -> None:
    drive = Driver()
    life = drive.life
    name = drive.up()
    assert kinds(drive.crash(name, last_lines=("oh",), memory=7)) == ["Queue", "Tell"]
    assert drive.seen == (Lifecycle.WAITING, "started again after it was killed by SIGKILL")
    name = drive.up()
    for number, delay in enumerate((1.0, 2.0, 4.0)):
        assert drive.crash(name)[-2:] == [
            ev.Arm(drive.now + delay),
            ev.Tell(Lifecycle.READY if not number else life.state.STARTING),
        ]
        assert drive.seen == (Lifecycle.BACKING_OFF, "was killed by SIGKILL")
        drive.due()
        name = drive.up(ready=False)
    assert life.restarts == 4
    first = life.ends[0]
    assert (first.code, first.reason, first.last_lines, first.memory) == (-9, "was killed by SIGKILL", ("oh",), 7)
    assert (first.instance, first.ran_s, first.restarted) == ("i0", 0.0, True)
    drive(ev.Ready(name, "ready"))
    drive.now += 60.0
    drive.crash(name)
    assert life.state is Lifecycle.WAITING  # it was stable: at once again


def test_too_many_crashes_and_it_has_failed_until_somebody_asks() -> None:
    drive = Driver(intensity=Intensity(restarts=2, window=60.0))
    name = drive.up(ready=False)
    for _ in range(2):
        drive.crash(name)
        drive.due()
        name = drive.up(ready=False)
    drive.crash(name)
    assert drive.seen == (
        Lifecycle.FAILED,
        "was killed by SIGKILL; that was more than 2 times in 60 s, so it is not tried again by itself",
    )
    assert (drive.life.due, drive.life.restarts, len(drive.life.ends)) == (None, 2, 3)
    drive(ev.Retry("a setting was changed"))
    assert drive.seen == (Lifecycle.WAITING, "a setting was changed")
    drive.crash(drive.up(ready=False))
    assert drive.life.state is Lifecycle.BACKING_OFF  # it was forgiven


def test_what_cannot_be_executed_is_no_crash_loop() -> None:
    drive = Driver()
    drive(ev.Begin("started"))
    drive(ev.Granted(1))
    assert kinds(drive(ev.SpawnFailed("i0", "there is no program x", retry=False))) == ["Release", "Arm", "Tell"]
    assert drive.seen == (Lifecycle.FAILED, "there is no program x")
    drive(ev.Renew("restarted for engine"))
    drive(ev.Granted(2))
    drive(ev.SpawnFailed("i1", "the signer is down", retry=True))
    assert drive.seen == (Lifecycle.BACKING_OFF, "the signer is down")
    drive.due()
    assert drive.seen == (Lifecycle.WAITING, "tried again")


@pytest.mark.parametrize(
    ("restart", "code", "state"),
    [
        (Restart.ALWAYS, 0, Lifecycle.BACKING_OFF),
        (Restart.ON_FAILURE, 0, Lifecycle.EXITED),
        (Restart.ON_FAILURE, 5, Lifecycle.EXITED),
        (Restart.ON_FAILURE, 1, Lifecycle.BACKING_OFF),
        (Restart.ON_FAILURE, -15, Lifecycle.BACKING_OFF),
        (Restart.ON_FAILURE, None, Lifecycle.BACKING_OFF),
        (Restart.NEVER, 0, Lifecycle.EXITED),
        (Restart.NEVER, 1, Lifecycle.FAILED),
    ],
)
def test_the_restart_policy(restart: Restart, code: int | None, state: Lifecycle) -> None:
    drive = Driver(restart=restart, success=frozenset({0, 5}))
    drive(ev.Ended(drive.up(ready=False), code, "exited", tree_gone=True))
    assert drive.seen == (state, "exited")
    drive(ev.Start("the owner"))
    assert drive.life.state is Lifecycle.WAITING


def test_a_stop_during_a_restart() -> None:
    drive = Driver()
    name = drive.up()
    assert ev.Terminate(name, SIGTERM, 10.0) in drive(ev.Restart("the owner restarts it"))
    told = drive(ev.Stop("stopped by anna"))
    assert told == [ev.Keep(wanted=False), ev.Tell(Lifecycle.STOPPING)]  # not asked twice
    drive.crash(name, -15)
    assert drive.seen == (Lifecycle.STOPPED, "stopped by anna")
    assert drive(ev.Renew("a setting")) == drive(ev.Retry("a setting")) == drive(ev.Begin("b")) == []


def test_a_start_and_a_second_restart_during_an_end() -> None:
    drive = Driver()
    name = drive.up()
    drive(ev.Stop("stopped"))
    assert kinds(drive(ev.Start("started"))) == ["Keep", "Tell"]
    assert kinds(drive(ev.Restart("again"))) == ["Tell"]
    drive(ev.Renew("restarted for engine"))
    assert kinds(drive.crash(name, -15))[:2] == ["Arm", "Queue"]
    assert drive.seen == (Lifecycle.WAITING, "restarted for engine")
    assert drive.life.restarts == 1


def test_a_restart_during_a_backoff() -> None:
    drive = Driver()
    drive.crash(drive.up(ready=False))
    assert drive.life.state is Lifecycle.BACKING_OFF
    timer = drive.life.due
    assert timer is not None
    assert drive(ev.Restart("now")) == [ev.Arm(None), ev.Queue(2), ev.Tell(Lifecycle.BACKING_OFF)]
    assert drive(ev.Due(timer), after=60.0) == []


def test_a_crash_during_a_stop_that_leaves_others() -> None:
    drive = Driver()
    name = drive.up()
    drive(ev.Stop("stopped"))
    told = drive(ev.Ended(name, -11, "was killed by SIGSEGV", tree_gone=False))
    assert ev.KillTree(name, "what it left is to go with it") in told
    assert drive.seen == (Lifecycle.STOPPING, "stopped")
    drive(ev.TreeGone(name))
    assert drive.seen == (Lifecycle.STOPPED, "stopped")
    assert drive.life.ends[-1].how == "was killed by SIGSEGV"


def test_a_crash_that_leaves_others_is_not_followed_by_a_start_before_they_are_gone() -> None:
    drive = Driver()
    name = drive.up()
    drive(ev.Ended(name, 1, "exited with 1", tree_gone=False))
    assert drive.seen == (Lifecycle.STOPPING, "exited with 1; what it left is ended")
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        assert drive.life.due == drive.now + pause
        assert kinds(drive.due()) == ["KillTree", "Arm"]
    drive(ev.TreeGone(name))
    assert drive.seen == (Lifecycle.WAITING, "started again after it exited with 1")


def test_an_end_that_arrives_before_spawned_was_seen() -> None:
    drive = Driver()
    drive(ev.Begin("started"))
    drive(ev.Granted(1))
    drive(ev.Ended("i0", 1, "exited with 1", tree_gone=True))
    assert drive.seen == (Lifecycle.BACKING_OFF, "exited with 1")
    # To be sure; of one that is gone there is nothing to kill.
    assert kinds(drive(ev.Spawned("i0", 42))) == ["KillTree"]
    assert drive.life.pid is None


def test_a_stop_before_spawned_was_seen() -> None:
    drive = Driver()
    drive(ev.Begin("started"))
    drive(ev.Granted(1))
    assert kinds(drive(ev.Stop("stopped"))) == ["Keep", "Release", "Arm", "Tell"]
    assert kinds(drive(ev.Spawned("i0", 42))) == ["Terminate", "Tell"]
    assert kinds(drive.due()) == ["KillTree", "Arm"]
    drive(ev.TreeGone("i0"))
    assert drive.seen == (Lifecycle.STOPPED, "stopped")
    assert (drive.life.ends[-1].code, drive.life.ends[-1].how) == (None, "has ended, nobody knows how")


def test_the_owner_stops_it_while_it_waits() -> None:
    drive = Driver()
    drive(ev.Begin("started"))
    assert drive(ev.Stop("stopped")) == [ev.Keep(wanted=False), ev.Withdraw(1), ev.Tell(Lifecycle.WAITING)]
    assert drive(ev.Granted(1)) == []  # it crossed the withdrawal
    drive(ev.Start("started"))
    assert drive(ev.Granted(1)) == []
    assert kinds(drive(ev.Granted(2))) == ["Arm", "Spawn", "Tell"]


def test_one_that_ignores_the_signal_is_killed_after_its_grace() -> None:
    drive = Driver(stop_signal=SIGINT, grace=3.0)
    name = drive.up()
    assert drive(ev.Restart("again"))[0] == ev.Terminate(name, SIGINT, 3.0)
    assert drive.life.due == drive.now + 3.0
    assert drive.due()[0] == ev.KillTree(name, "it did not end within 3 s")


def test_a_hurry() -> None:
    drive = Driver()
    name = drive.up()
    assert drive(ev.Hurry()) == []
    drive(ev.Close("the supervisor stops"))
    assert drive(ev.Hurry())[0] == ev.KillTree(name, "the supervisor stops")


def test_one_that_is_condemned_goes_and_that_is_a_failure() -> None:
    drive = Driver()
    name = drive.up()
    assert drive(ev.Condemned(name, "the watchdog heard nothing for 5 s", SIGABRT))[0] == ev.Terminate(
        name, SIGABRT, 10.0
    )
    drive.crash(name, -6)
    assert drive.seen == (Lifecycle.WAITING, "the watchdog heard nothing for 5 s")
    name = drive.up()
    drive(ev.Condemned(name, "it has 900 MB"))
    drive.crash(name, 0)
    assert drive.seen == (Lifecycle.BACKING_OFF, "it has 900 MB")
    never = Driver(restart=Restart.NEVER)
    name = never.up()
    never(ev.Condemned(name, "it has 900 MB"))
    never.crash(name, 0)
    assert never.seen == (Lifecycle.FAILED, "it has 900 MB")


def test_the_times_of_a_start() -> None:
    drive = Driver(silent_after=5.0, start_period=40.0, silently="running without a word")
    name = drive.up(ready=False)
    assert drive.life.due == drive.now + 5.0
    assert kinds(drive.due()) == ["Release", "Arm", "Tell"]
    assert drive.seen == (Lifecycle.STARTING, "running without a word")
    assert kinds(drive.due()) == ["Terminate", "Arm", "Tell"]
    assert drive.now == 1040.0
    drive.crash(name, -15)
    assert drive.seen == (Lifecycle.BACKING_OFF, "it was not ready within 40 s")


def test_one_that_says_that_it_loads_keeps_its_turn_for_a_while() -> None:
    drive = Driver(silent_after=5.0)
    name = drive.up(ready=False)
    drive(ev.Unhealthy(name, "loading the model"))
    assert kinds(drive.due()) == ["Arm"]
    assert kinds(drive.due()) == ["Release"]
    assert drive.now == 1000.0 + LONGEST_TURN
    assert (drive.seen, drive.life.due) == ((Lifecycle.STARTING, "loading the model"), None)


def test_a_start_that_is_over_at_once() -> None:
    drive = Driver(silent_after=0.0, start_period=0.0)
    drive(ev.Begin("started"))
    drive(ev.Granted(1))
    assert kinds(drive(ev.Spawned("i0", 1))) == ["Release", "Terminate", "Arm", "Tell"]


def test_a_spawn_that_is_never_answered() -> None:
    drive = Driver()
    drive(ev.Begin("started"))
    drive(ev.Granted(1))
    assert ev.KillTree("i0", "its start was not answered within 60 s") in drive.due()
    drive(ev.TreeGone("i0"))
    assert drive.seen == (Lifecycle.BACKING_OFF, "its start was not answered within 60 s")


def test_adopted() -> None:
    drive = Driver()
    assert drive(ev.Adopted("old", 7, 900.0, 950.0, "adopted")) == [ev.Tell(Lifecycle.STOPPED)]
    assert drive.seen == (Lifecycle.READY, "adopted")
    assert drive(ev.Begin("started with the supervisor")) == []
    assert drive(ev.Adopted("other", 8, 900.0, None, "adopted")) == [
        ev.KillTree("other", "it is not the present instance")
    ]
    drive.crash("old")
    assert drive.seen == (Lifecycle.WAITING, "started again after it was killed by SIGKILL")


def test_adopted_while_it_loads() -> None:
    drive = Driver(start_period=200.0)
    drive(ev.Adopted("old", 7, 900.0, None, "adopted"))
    assert drive.seen == (Lifecycle.STARTING, "running; it has not said that it is ready")
    assert drive.life.due == 1100.0
    drive(ev.Ready("old", "ready"))
    assert drive.life.state is Lifecycle.READY


def test_adopted_although_its_owner_has_stopped_it() -> None:
    life = Life(Policy(), now=ev.Moment(0.0, WALL), draw=lambda: 0.0, new_instance=lambda: "new", wanted=False)
    assert life.reason == "stopped by its owner"
    actions = life.feed(ev.Adopted("old", 7, 0.0, 0.0, "adopted"), ev.Moment(1.0, WALL))
    assert actions == [ev.Terminate("old", SIGTERM, 10.0), ev.Arm(11.0), ev.Tell(Lifecycle.STOPPED)]
    assert (life.state, life.reason) == (Lifecycle.STOPPING, "stopped by its owner")


def test_a_timer_that_was_taken_back_and_fires_all_the_same() -> None:
    drive = Driver()
    drive(ev.Begin("started"))
    drive(ev.Granted(1))
    patience = drive.life.due
    assert patience is not None
    drive.crash(drive.life.instance or "")
    assert drive.life.state is Lifecycle.BACKING_OFF
    assert drive(ev.Due(patience)) == []
    assert drive(ev.Due(patience), after=600.0) == []
    assert drive.life.state is Lifecycle.BACKING_OFF


def test_a_failure_to_spawn_of_what_runs_is_not_believed() -> None:
    drive = Driver()
    name = drive.up(ready=False)
    assert drive(ev.SpawnFailed(name, "no", retry=False)) == []
    drive(ev.Stop("stopped"))
    assert drive(ev.SpawnFailed(name, "no", retry=False)) == []
    assert drive.life.state is Lifecycle.STOPPING


def test_what_the_owner_says_while_the_supervisor_stops_is_kept_for_the_next_one() -> None:
    drive = Driver()
    name = drive.up()
    drive(ev.Close("the supervisor stops"))
    assert drive(ev.Stop("stopped by anna")) == [ev.Keep(wanted=False)]
    assert drive(ev.Restart("restarted by anna")) == [ev.Keep(wanted=True)]
    drive(ev.Stop("stopped by anna"))
    drive.crash(name, -15)
    assert drive.seen == (Lifecycle.STOPPED, "the supervisor stops")
    assert drive(ev.Start("started by anna")) == [ev.Keep(wanted=True)]
    assert drive.life.state is Lifecycle.STOPPED


def test_the_last_ends_are_kept() -> None:
    drive = Driver(backoff=Backoff(factor=1.0))
    drive(ev.Begin("started"))
    for _ in range(30):
        drive.crash(drive.up())
    assert drive.life.restarts == 30
    assert len(drive.life.ends) == KEPT_ENDS
