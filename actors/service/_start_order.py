"""Who starts when: after what it needs, and not too many at a time. Pure: it is told what happens, and says who is next.

A place among those that start is held from `Granted` until `release`, which a worker's `Life` says when it is ready, has
failed, or has taken long enough. Nobody is started for another's sake: one whose dependency is stopped or has failed waits,
and says for what. Dependencies order starts; an end of one that others have started after does not end those.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from actors.service._events import Granted, Held
from schemas.manifest import Condition
from schemas.states import Lifecycle

Needs = Mapping[str, Mapping[str, Condition]]
"""`start_after` of each service, by name; in the order of the manifest."""

Told = tuple[str, Granted | Held]
"""To whom, and what."""

_STARTED: Final = frozenset(
    {Lifecycle.READY, Lifecycle.UNHEALTHY, Lifecycle.EXITED, Lifecycle.EXTERNAL, Lifecycle.CONFIG_ONLY}
)
_MEETS: Final[Mapping[Condition, frozenset[Lifecycle]]] = {
    Condition.STARTED: _STARTED,
    Condition.READY: frozenset({Lifecycle.READY}),
    Condition.EXITED_OK: frozenset({Lifecycle.EXITED}),
}
_WORDS: Final[Mapping[Condition, str]] = {
    Condition.STARTED: "to be started",
    Condition.READY: "to be ready",
    Condition.EXITED_OK: "to finish",
}


class _Request(Struct):
    ticket: int
    told: str = ""


class StartOrder:
    """First come, first served, among those whose conditions are met. Each call gives what is now to be told, in order."""

    def __init__(self, needs: Needs, places: int) -> None:
        """`places`: how many may start at a time, at least one."""
        self._needs = needs
        self._places = max(1, places)
        self._states: dict[str, tuple[Lifecycle, bool]] = {}
        self._requests: dict[str, _Request] = {}
        self._starting: set[str] = set()
        self._kept_down: dict[str, str] = {}

    def configure(self, needs: Needs, places: int) -> list[Told]:
        """Take another manifest."""
        self._needs = needs
        self._places = max(1, places)
        return self._next()

    def queue(self, name: str, ticket: int) -> list[Told]:
        """It asks for its turn."""
        self._starting.discard(name)
        self._requests.pop(name, None)
        self._requests[name] = _Request(ticket)
        return self._next()

    def withdraw(self, name: str, ticket: int) -> list[Told]:
        """It does not ask any more, or what it was granted has crossed that."""
        request = self._requests.get(name)
        if request is not None and request.ticket == ticket:
            del self._requests[name]
        self._starting.discard(name)
        return self._next()

    def release(self, name: str) -> list[Told]:
        """It does not keep a place any more."""
        self._starting.discard(name)
        return self._next()

    def note(self, name: str, state: Lifecycle, *, spawned: bool) -> list[Told]:
        """Its state has changed. `spawned`: there is a process.

        Of an external service: `ready` or `unhealthy` as its health says, `external` where nothing is known of it.
        """
        if self._states.get(name) == (state, spawned):
            return []
        self._states[name] = (state, spawned)
        return self._next()

    def keep_down(self, names: Iterable[str], why: str) -> list[Told]:
        """Grant these nothing until `let_up`: those they start after are restarted first. `why` is told them."""
        self._kept_down.update(dict.fromkeys(names, why))
        return self._next()

    def let_up(self, names: Iterable[str]) -> list[Told]:
        """The end of `keep_down`."""
        for name in names:
            self._kept_down.pop(name, None)
        return self._next()

    def forget(self, name: str) -> list[Told]:
        """Its actor has ended, or the service is gone: it asks for nothing and holds nothing."""
        self._requests.pop(name, None)
        self._states.pop(name, None)
        self._starting.discard(name)
        self._kept_down.pop(name, None)
        return self._next()

    def unmet(self, name: str) -> tuple[str, ...]:
        """Whom it starts after, and whose condition is not met now."""
        return tuple(other for other, condition in self._needs.get(name, {}).items() if not self._met(other, condition))

    def _next(self) -> list[Told]:
        told: list[Told] = []
        for name, request in list(self._requests.items()):
            reason = self._obstacle(name)
            if not reason:
                del self._requests[name]
                self._starting.add(name)
                told.append((name, Granted(request.ticket)))
            elif reason != request.told:
                request.told = reason
                told.append((name, Held(request.ticket, reason)))
        return told

    def _obstacle(self, name: str) -> str:
        """Why it cannot start yet; empty where it can."""
        if name in self._kept_down:
            return self._kept_down[name]
        unmet = [
            f"{other} {_WORDS[condition]} ({self._said(other)})"
            for other, condition in self._needs.get(name, {}).items()
            if not self._met(other, condition)
        ]
        if unmet:
            return f"waits for {', '.join(unmet)}"
        if len(self._starting) >= self._places:
            # Without the names: they change all the time, and each change would be told everybody who waits.
            return f"waits for its turn to start; there {'is one' if self._places == 1 else f'are {self._places}'} at a time"
        return ""

    def _met(self, name: str, condition: Condition) -> bool:
        state, spawned = self._states.get(name, (Lifecycle.STOPPED, False))
        if condition is Condition.STARTED and state is Lifecycle.STARTING:
            return spawned
        return state in _MEETS[condition]

    def _said(self, name: str) -> str:
        state, _ = self._states.get(name, (Lifecycle.STOPPED, False))
        return "there is no such service" if name not in self._needs else f"it is {state}"


def waves(needs: Needs, names: Iterable[str] | None = None) -> list[list[str]]:
    """Put services (all, or these) in waves: each is after all that it needs, be it by way of one that is not of these.

    Reversed it is the order of their ends.

    Raises:
        ValueError: they need each other; the message names the circle.
    """
    wanted = needs.keys() if names is None else set(names)
    left = {name: set(others) for name, others in needs.items()}
    found: list[list[str]] = []
    while left:
        wave = [name for name, others in left.items() if not others & left.keys()]
        if not wave:
            raise ValueError(f"these start after each other: {' after '.join(_circle(left))}")
        found.append([name for name in wave if name in wanted])
        for name in wave:
            del left[name]
    return [wave for wave in found if wave]


def _circle(left: Mapping[str, set[str]]) -> list[str]:
    """Everybody in `left` needs another of it, so whoever follows comes by somewhere twice."""
    path = [next(iter(left))]
    while path.count(path[-1]) == 1:
        path.append(next(name for name in sorted(left[path[-1]]) if name in left))
    return path[path.index(path[-1]) :]


def with_dependants(needs: Needs, names: Sequence[str]) -> list[str]:
    """Give these and all that start after them, directly or not, in the manifest's order."""
    found = set(names)
    while more := {name for name, others in needs.items() if name not in found and found & others.keys()}:
        found |= more
    return [name for name in needs if name in found]
