"""A restart of several services, as steps. Pure: it is told the states, and says what to do next.

At once: those that depend on others end first, wave by wave, and stay down until all have ended; then `StartOrder` brings them
up in their order. Rolling: one after the other, each when the one before is up again; the first that does not come up ends
it, and the others keep running as they did.
"""

from msgspec import Struct

from actors.service._start_order import Needs, waves
from schemas.states import DOWN_STATES, Lifecycle


class KeepDown(Struct, frozen=True):
    """`StartOrder.keep_down` these."""

    names: tuple[str, ...]


class RestartThese(Struct, frozen=True):
    """Tell each of these `Restart`."""

    names: tuple[str, ...]


class LetUp(Struct, frozen=True):
    """`StartOrder.let_up` these."""

    names: tuple[str, ...]


Step = KeepDown | RestartThese | LetUp

_SETTLED = frozenset({Lifecycle.READY, Lifecycle.EXITED})
_IN_TROUBLE = frozenset({Lifecycle.FAILED, Lifecycle.BACKING_OFF, Lifecycle.STOPPED, Lifecycle.UNHEALTHY})


class _Member(Struct):
    before: str | None
    """The instance that is to end."""
    asked: bool = False
    gone: bool = False
    """The one before has ended."""
    up: bool = False
    trouble: str = ""


class Roll:
    """One such restart. Do the steps that `begin` and `note` give; whoever waits to a deadline calls `give_up` then.

    Where it is dropped without `give_up`, `LetUp` of all its names has to be done: none may stay down for ever.
    """

    def __init__(self, needs: Needs, instances: dict[str, str | None], *, rolling: bool) -> None:
        """`instances`: who is to be restarted, and the present instance of each. Not those that their owner has stopped."""
        self._rolling = rolling
        self._members = {name: _Member(before) for name, before in instances.items()}
        order = waves(needs, instances)
        self._left: list[tuple[str, ...]] = (
            [(name,) for wave in order for name in wave] if rolling else [tuple(wave) for wave in reversed(order)]
        )
        self._now: tuple[str, ...] = ()
        self.done = not instances

    @property
    def trouble(self) -> dict[str, str]:
        """Who did not come up, and what was said about it."""
        return {name: member.trouble for name, member in self._members.items() if member.trouble}

    @property
    def untouched(self) -> list[str]:
        """Who was not asked to restart: a rolling restart ended before."""
        return [name for name, member in self._members.items() if not member.asked]

    def begin(self) -> list[Step]:
        """Give the first steps."""
        if self.done:
            return []
        first: list[Step] = [] if self._rolling else [KeepDown(tuple(self._members))]
        return [*first, *self._advance()]

    def note(
        self, name: str, state: Lifecycle, instance: str | None, reason: str, *, coming_up: bool = False
    ) -> list[Step]:
        """Take what a service is now: each change, told in order.

        `coming_up` is that of its `Life`: one that runs without a word is up.
        """
        member = self._members.get(name)
        if member is None or self.done or not member.asked:
            return []
        if not member.gone:
            member.gone = instance != member.before or (member.before is None and state in DOWN_STATES)
        if member.gone and not member.up:
            member.up = state in _SETTLED or (state is Lifecycle.STARTING and not coming_up)
            member.trouble = f"it is {state}: {reason}" if state in _IN_TROUBLE else ""
        return self._advance()

    def give_up(self, why: str) -> list[Step]:
        """The deadline has come, or nobody waits any more."""
        for member in self._members.values():
            if member.asked and not member.up and not member.trouble:
                member.trouble = why
        self.done = True
        return [] if self._rolling else [LetUp(tuple(self._members))]

    def _advance(self) -> list[Step]:
        present = [self._members[name] for name in self._now]
        if self._rolling and any(member.trouble for member in present):
            self.done = True
            return []
        if not all(member.up if self._rolling else member.gone for member in present):
            return []
        if self._left:
            self._now = self._left.pop(0)
            for name in self._now:
                self._members[name].asked = True
            return [RestartThese(self._now)]
        if self._rolling:
            self.done = True
            return []
        everybody = tuple(self._members)
        let_up: list[Step] = [LetUp(everybody)] if self._now else []
        self._now = ()
        self.done = all(member.up or member.trouble for member in self._members.values())
        return let_up
