"""The life of one worker as a state machine. It does nothing itself: it is told what happens, and says what is to be done.

There is at most one instance at a time, from its `Spawn` until its tree is gone; no other is spawned before. What the owner wants
(`wanted`) is changed by `Start`, `Stop` and `Restart` alone, and by nothing that happens to the worker.
"""

from collections.abc import Callable, Mapping
from math import inf
from signal import Signals
from typing import Any, Final, NamedTuple, cast

from msgspec import Struct

from actors.service._events import (
    Action,
    Adopted,
    Arm,
    Begin,
    Close,
    Condemned,
    Due,
    End,
    Ended,
    Event,
    Granted,
    Held,
    Hurry,
    Keep,
    KillTree,
    Moment,
    Queue,
    Ready,
    Release,
    Renew,
    Restart,
    Retry,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Tell,
    Terminate,
    TreeGone,
    Unhealthy,
    Withdraw,
)
from actors.service._policy import LONGEST_TURN, Mishaps, Policy
from schemas.manifest import Restart as RestartPolicy
from schemas.states import DOWN_STATES, PROCESS_STATES, Lifecycle

KEPT_ENDS: Final = 20

SPAWN_PATIENCE: Final = 60.0
"""Seconds within which a `Spawn` is answered; then whatever may have come of it is killed."""

KILL_AGAIN: Final = 1.0
LONGEST_KILL_AGAIN: Final = 30.0
"""Seconds after which a tree that is not gone is killed once more: doubling from the first to the longest."""

TABLE: Final = """
              stopped  waiting  starting  ready     unhealthy  stopping  backing-off  failed  exited
begin         queue    -        -         -         -          -         -            -       -
start         queue    -        -         -         -          again     queue        queue   queue
stop          drop     drop     end       end       end        stay      drop         drop    drop
restart       queue    -        end       end       end        again     queue        queue   queue
renew         -        -        end       end       end        again     queue        queue   -
retry         -        -        -         -         -          -         queue        queue   -
close         drop     drop     end       end       end        stay      drop         drop    drop
hurry         -        -        -         -         -          kill      -            -       -
granted       -        spawn    -         -         -          -         -            -       -
held          -        note     -         -         -          -         -            -       -
spawned       -        -        run       -         -          too-late  -            -       -
spawn-failed  -        -        no-process  -       -          no-process  -          -       -
ended         -        -        sweep     sweep     sweep      sweep     -            -       -
tree-gone     -        -        settle    settle    settle     settle    -            -       -
adopted       adopt    adopt    -         -         -          -         adopt        adopt   adopt
ready         -        -        well      well      well       -         -            -       -
unhealthy     -        -        note      ill       note       -         -            -       -
condemned     -        -        end       end       end        -         -            -       -
due           -        -        wait-on   -         -          kill      queue        -       -
"""
"""What is done where an event (row) finds the worker in a state (column); the words are methods of `Life`. This is the table in
force: it is read below. `settle` is what follows when an instance is gone: up again, at once or later, or an end for good.
"""


class _Instance(Struct):
    """One start, from its `Spawn` until its tree is gone."""

    name: str
    pid: int | None = None
    pending: bool = True
    """Its `Spawn` has not been answered."""
    spawned_at: float | None = None
    ready_at: float | None = None
    heard: bool = False
    ended: Ended | None = None
    ending: str | None = None
    """Why it is being ended."""
    blamed: bool = False
    """It is being ended by its own fault, which counts as a failure."""
    kill_after: float = KILL_AGAIN


class Foreseen(NamedTuple):
    """A start that is made at once if the present instance ends by itself: from what moment on (CLOCK_MONOTONIC, seconds), and
    the codes of ends after which it is not made.
    """

    at: float
    unless: frozenset[int]


class Life:
    """Keeps the state of one worker. `feed` it what happens; do what it says, in that order.

    Not to be fed from within an action. `draw` gives numbers from 0 to 1, `new_instance` names that were never given.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        now: Moment,
        draw: Callable[[], float],
        new_instance: Callable[[], str],
        wanted: bool = True,
    ) -> None:
        """`wanted`: what the last `Keep` said, true where there was none."""
        self.policy = policy
        """May be replaced at any time; what is under way goes on as it has begun."""
        self.wanted = wanted
        self.state = Lifecycle.STOPPED
        self.reason = "not started yet" if wanted else "stopped by its owner"
        self.since = now
        self.restarts = 0
        self.ends: list[End] = []
        self.due: float | None = None
        """When `Due` is wanted: in `backing-off`, the time of the next start."""
        self._new_instance = new_instance
        self.away: float | None = None
        """Seconds for which it was away at its last restart: from the request to end, or the end, until it was ready."""
        self._away_since: float | None = None
        self.next_instance: str | None = None
        """What the next instance is to be called, where somebody has already said so."""
        self._mishaps = Mishaps(draw)
        self._now = now
        self._closing = False
        self._instance: _Instance | None = None
        self._ticket = 0
        self._has_turn = False
        self._why = ""
        self._actions: list[Action] = []

    @property
    def instance(self) -> str | None:
        return self._instance.name if self._instance is not None else None

    @property
    def pid(self) -> int | None:
        """The first process's, from when it is known until its tree is gone."""
        return self._instance.pid if self._instance is not None else None

    @property
    def spawned_at(self) -> float | None:
        return self._instance.spawned_at if self._instance is not None else None

    @property
    def ready_at(self) -> float | None:
        """When it first was ready."""
        return self._instance.ready_at if self._instance is not None else None

    @property
    def coming_up(self) -> bool:
        """It starts, and has not taken so long or been so silent that nobody waits for it any more."""
        return self.state is Lifecycle.STARTING and self._has_turn

    def foresee(self) -> Foreseen | None:
        """Say what would be started at once if the worker ended by itself; None where nothing would.

        It holds until the next event, and may turn out otherwise: its turn to start is not foreseen.
        """
        ready_at, policy = self.ready_at, self.policy
        if (
            self.state not in {Lifecycle.READY, Lifecycle.UNHEALTHY}
            or ready_at is None
            or policy.restart is RestartPolicy.NEVER
        ):
            return None
        at = self._mishaps.at_once_from(policy, ready_at)
        if at is None:
            return None
        return Foreseen(at, policy.success if policy.restart is RestartPolicy.ON_FAILURE else frozenset())

    def feed(self, event: Event, now: Moment) -> list[Action]:
        """Take what has happened; what is to be done about it, in this order."""
        assert now.steady >= self._now.steady
        self._now = now
        self._actions = []
        before, shown = self.state, self._shown()
        if isinstance(event, Start | Restart | Stop):
            self._want(not isinstance(event, Stop))
        elif isinstance(event, Close):
            self._closing = True
        if not self._is_stale(event):
            if isinstance(event, Due):
                self.due = None
            STEPS[type(event), self.state](self, event)
        if self._shown() != shown:
            self._do(Tell(before))
        return self._actions

    def _shown(self) -> tuple[object, ...]:
        return self.state, self.reason, self.instance, self.pid, self.restarts

    def _is_stale(self, event: Event) -> bool:
        match event:
            case Granted(ticket) | Held(ticket, _):
                return ticket != self._ticket
            case Due(at):
                return at != self.due
            case Spawned(name) | Adopted(name):
                if name == self.instance:
                    return False
                # One too many: somebody has spawned what was already given up.
                if isinstance(event, Spawned) or self._instance is not None:
                    self._do(KillTree(name, "it is not the present instance"))
                    return True
                return False
            case SpawnFailed(name) | Ended(name) | TreeGone(name) | Ready(name) | Unhealthy(name) | Condemned(name):
                return name != self.instance
            case _:
                return False

    # -- steps that begin a life

    def _queue(self, event: Begin | Start | Restart | Renew | Retry | Due) -> None:
        if not self.wanted or self._closing:
            return
        if self.state in {Lifecycle.FAILED, Lifecycle.EXITED} or isinstance(event, Start | Restart):
            self._mishaps.forgive()
        self._line_up(self._why if isinstance(event, Due) else event.reason)

    def _spawn(self, _event: Granted) -> None:
        self._has_turn = True
        self._instance = _Instance(self.next_instance or self._new_instance())
        self.next_instance = None
        self._move(Lifecycle.STARTING, self._why)
        self._arm(self._now.steady + SPAWN_PATIENCE)
        self._do(Spawn(self._instance.name, self._why))

    def _run(self, event: Spawned) -> None:
        instance = self._present()
        if not instance.pending:
            return
        instance.pid, instance.pending, instance.spawned_at = event.pid, False, self._now.steady
        self._look_on(instance.spawned_at)

    def _too_late(self, event: Spawned) -> None:
        """It came to a process after somebody had changed his mind."""
        instance = self._present()
        if not instance.pending:
            return
        instance.pid, instance.pending, instance.spawned_at = event.pid, False, self._now.steady
        self._terminate(None)

    def _adopt(self, event: Adopted) -> None:
        self._withdraw()
        self._instance = instance = _Instance(event.instance, event.pid, pending=False, spawned_at=event.spawned_at)
        instance.ready_at, instance.heard = event.ready_at, event.ready_at is not None
        if not self.wanted or self._closing:
            self._finish(self.reason)
        elif event.ready_at is not None:
            self._move(Lifecycle.READY, event.reason)
            self._arm(None)
        else:
            self._move(Lifecycle.STARTING, event.reason)
            self._look_on(self._now.steady)

    # -- steps while it runs

    def _well(self, event: Ready) -> None:
        instance = self._present()
        instance.heard = True
        if instance.ready_at is None:
            instance.ready_at = self._now.steady
            if self._away_since is not None:
                self.away, self._away_since = self._now.steady - self._away_since, None
        self._release()
        self._arm(None)
        self._move(Lifecycle.READY, event.reason)

    def _ill(self, event: Unhealthy) -> None:
        self._move(Lifecycle.UNHEALTHY, event.reason)

    def _note(self, event: Unhealthy | Held) -> None:
        if isinstance(event, Unhealthy):
            self._present().heard = True
        self.reason = event.reason

    def _wait_on(self, event: Due) -> None:
        if self._present().pending:
            self._finish(f"its start was not answered within {SPAWN_PATIENCE:g} s", blamed=True)
            self._kill(event)
        else:
            # A loop's timer may come a little early.
            self._look_on(max(event.at, self._now.steady))

    def _look_on(self, now: float) -> None:
        """Do what is due while it starts, and see to what will be."""
        instance, policy = self._present(), self.policy
        assert instance.spawned_at is not None
        if policy.start_period is not None:
            last_at, free_at = instance.spawned_at + policy.start_period, inf
        else:
            last_at, free_at = inf, instance.spawned_at + LONGEST_TURN
        silent_at = inf if policy.silent_after is None else instance.spawned_at + policy.silent_after
        if now >= last_at:
            self._finish(f"it was not ready within {policy.start_period:g} s", blamed=True)
            return
        if now >= silent_at and not instance.heard:
            self.reason = policy.silently
            self._release()
        if now >= free_at:
            self._release()
        self._arm(min((at for at in (silent_at, free_at, last_at) if now < at < inf), default=None))

    # -- steps that end it

    def _drop(self, event: Stop | Close) -> None:
        self._withdraw()
        if isinstance(event, Close) or not self._closing:
            self._move(Lifecycle.STOPPED, event.reason)
        self._arm(None)

    def _end(self, event: Stop | Close | Restart | Renew | Condemned) -> None:
        blamed = isinstance(event, Condemned)
        self._finish(event.reason, event.signal if isinstance(event, Condemned) else None, blamed=blamed)

    def _stay(self, event: Stop | Close) -> None:
        if isinstance(event, Close) or not self._closing:
            self._redirect(event.reason)

    def _again(self, event: Start | Restart | Renew) -> None:
        if self.wanted and not self._closing:
            self._redirect(event.reason)

    def _kill(self, event: Due | Hurry | None) -> None:
        instance = self._present()
        if instance.ended is not None:
            reason = "what it left is to go with it"
        elif instance.pending or not isinstance(event, Due):
            reason = self.reason
        else:
            reason = f"it did not end within {self.policy.grace:g} s"
        self._do(KillTree(instance.name, reason))
        self._arm(self._now.steady + instance.kill_after)
        instance.kill_after = min(2 * instance.kill_after, LONGEST_KILL_AGAIN)

    def _sweep(self, event: Ended) -> None:
        instance = self._present()
        self._goes_away()
        if instance.ended is None:
            instance.ended, instance.pending = event, False
        if event.tree_gone:
            self._settle(event)
            return
        self._release()
        self._move(Lifecycle.STOPPING, instance.ending or f"{event.how}; what it left is ended")
        instance.kill_after = KILL_AGAIN
        self._kill(None)

    def _settle(self, _event: Ended | TreeGone) -> None:
        """There is nothing of this instance any more: decide what comes next."""
        instance, now, policy = self._dismiss(), self._now.steady, self.policy
        code, how = (
            (None, "has ended, nobody knows how")
            if instance.ended is None
            else (instance.ended.code, instance.ended.how)
        )
        reason = instance.ending or how
        delay: float | None = None
        if not self.wanted or self._closing:
            self._move(Lifecycle.STOPPED, reason)
        elif instance.ending is not None and not instance.blamed:
            delay = 0.0
            self._line_up(reason)
        elif not policy.again(None if instance.blamed else code):
            ok = not instance.blamed and code in policy.success
            self._move(Lifecycle.EXITED if ok else Lifecycle.FAILED, reason)
        else:
            delay = self._mishaps.ended(policy, now, instance.spawned_at, instance.ready_at)
            if delay is None:
                most = f"more than {policy.intensity.restarts} times in {policy.intensity.window:g} s"
                self._move(Lifecycle.FAILED, f"{reason}; that was {most}, so it is not tried again by itself")
            else:
                self._later(delay, reason, f"started again after it {how}" if instance.ending is None else reason)
        self.restarts += delay is not None
        self._remember(instance, reason, code, how, restarted=delay is not None)

    def _no_process(self, event: SpawnFailed) -> None:
        if not self._present().pending:
            return
        instance = self._dismiss()
        if not self.wanted or self._closing:
            self._move(Lifecycle.STOPPED, instance.ending or event.reason)
        elif instance.ending is not None and not instance.blamed:
            self._line_up(instance.ending)
        elif event.retry:
            self._later(self._mishaps.not_spawned(self.policy), event.reason, "tried again")
        else:
            self._move(Lifecycle.FAILED, event.reason)

    # -- what steps are made of

    def _want(self, wanted: bool) -> None:
        if self.wanted != wanted:
            self.wanted = wanted
            self._do(Keep(wanted))

    def _line_up(self, why: str) -> None:
        self._arm(None)
        self._why = why
        self._ticket += 1
        self._move(Lifecycle.WAITING, why)
        self._do(Queue(self._ticket))

    def _withdraw(self) -> None:
        if self.state is Lifecycle.WAITING:
            self._do(Withdraw(self._ticket))

    def _release(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._do(Release())

    def _later(self, delay: float, reason: str, why: str) -> None:
        if delay <= 0.0:
            self._line_up(why)
            return
        self._why = why
        self._move(Lifecycle.BACKING_OFF, reason)
        self._arm(self._now.steady + delay)

    def _finish(self, reason: str, signal: Signals | None = None, *, blamed: bool = False) -> None:
        instance = self._present()
        instance.ending, instance.blamed = reason, blamed
        self._goes_away()
        self._release()
        self._move(Lifecycle.STOPPING, reason)
        self._terminate(signal)

    def _terminate(self, signal: Signals | None) -> None:
        instance = self._present()
        if not instance.pending:
            self._do(Terminate(instance.name, signal or self.policy.stop_signal, self.policy.grace))
        self._arm(self._now.steady + self.policy.grace)

    def _goes_away(self) -> None:
        if self._away_since is None and self._present().ready_at is not None:
            self._away_since = self._now.steady

    def _redirect(self, reason: str) -> None:
        """Another end is under way already: it is not asked twice, but what comes after is another thing."""
        instance = self._present()
        instance.ending, instance.blamed = reason, False
        self.reason = reason

    def _remember(self, instance: _Instance, reason: str, code: int | None, how: str, *, restarted: bool) -> None:
        ran = None if instance.spawned_at is None else self._now.steady - instance.spawned_at
        ended = instance.ended
        lines, memory = ((), None) if ended is None else (ended.last_lines, ended.memory)
        self.ends.append(End(self._now.wall, instance.name, reason, code, how, ran, lines, memory, restarted))
        del self.ends[:-KEPT_ENDS]

    def _dismiss(self) -> _Instance:
        instance, self._instance = self._present(), None
        self._release()
        self._arm(None)
        return instance

    def _present(self) -> _Instance:
        assert self._instance is not None
        return self._instance

    def _move(self, state: Lifecycle, reason: str) -> None:
        if state is not self.state:
            self.since = self._now
        self.state = state
        self.reason = reason
        if state not in PROCESS_STATES and state is not Lifecycle.WAITING and state is not Lifecycle.BACKING_OFF:
            # Nobody is away who is not to come back.
            self._away_since = None

    def _arm(self, at: float | None) -> None:
        if at != self.due:
            self.due = at
            self._do(Arm(at))

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _ignore(self, event: Event) -> None:
        pass


Step = Callable[[Life, Any], None]


def _read(table: str) -> Mapping[tuple[type, Lifecycle], Step]:
    head, *rows = table.strip().splitlines()
    states = [Lifecycle(word) for word in head.split()]
    assert set(states) == DOWN_STATES | PROCESS_STATES
    events = {
        "".join(f"-{c.lower()}" if c.isupper() else c for c in each.__name__)[1:]: each for each in Event.__args__
    }
    steps: dict[tuple[type, Lifecycle], Step] = {}
    for row in rows:
        name, *words = row.split()
        event = events.pop(name)
        for state, word in zip(states, words, strict=True):
            steps[event, state] = cast(
                "Step", getattr(Life, "_ignore" if word == "-" else f"_{word.replace('-', '_')}")
            )
    assert not events
    return steps


STEPS: Final = _read(TABLE)
