"""Start, stop and restart, of one service or of several, answered when it is done or its time is over."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from actors.board import Board
from actors.runtime import Handle
from actors.service._actor import ServiceActor
from actors.service._fleet import Fleet, Present
from actors.service._roll import KeepDown, LetUp, RestartThese, Roll, Step
from actors.service._start_order import waves, with_dependants
from schemas.states import DOWN_STATES, Kind, Lifecycle
from schemas.status import CommandRefused, Outcome, UnknownService, Verb

_UP = frozenset({Lifecycle.READY, Lifecycle.EXITED})
_IN_TROUBLE = frozenset({Lifecycle.FAILED, Lifecycle.BACKING_OFF, Lifecycle.UNHEALTHY})


class Commands:
    """One for the program. What was begun goes on, whether anybody waits for it or not, but for a rolling restart, and one
    with dependants that have not ended yet: these are asked one after the other for as long as somebody waits.
    """

    def __init__(
        self, board: Board, fleet: Fleet, kinds: Mapping[str, Kind], handles: Mapping[str, Handle[ServiceActor]]
    ) -> None:
        """`kinds` and `handles`: of all services, in the order of the manifest."""
        self._board = board
        self._fleet = fleet
        self._kinds = kinds
        self._handles = handles

    def configure(self, kinds: Mapping[str, Kind], handles: Mapping[str, Handle[ServiceActor]]) -> None:
        """Take another manifest."""
        self._kinds, self._handles = kinds, handles

    async def __call__(
        self,
        service: str | None,
        verb: Verb,
        *,
        dependants: bool = False,
        rolling: bool = False,
        by: str,
        reason: str | None = None,
        wait_s: float = 30.0,
    ) -> Outcome:
        """Do it to `service`, or to all workers that run here. `dependants`: and to all that start after it, directly or not
        (of a start: and to all that it starts after). `rolling`: one after the other, each when the one before is up again.

        Raises:
            CommandRefused: it makes no sense for this service, or there is no such service.
            Rejected, OutcomeUnknown: its actor is down, or was when it was at work on this.
        """
        names = self._names(service, verb, dependants)
        late = f"this was not done within {wait_s:g} s"
        one = _Command(self._fleet, self._handles, verb, by, reason, late=late)
        trouble: dict[str, str] = {}
        untouched: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                if verb is Verb.RESTART and service is not None and self._kinds[service] is Kind.EXTERNAL:
                    await one.tell(service)
                elif verb is Verb.STOP:
                    order = reversed(waves(self._fleet.needs, names))
                    trouble = await one.ask(order, _down)
                elif verb is Verb.START:
                    trouble = await one.ask([names], _up)
                else:
                    trouble, untouched = await one.roll(names, rolling=rolling)
        except TimeoutError:
            trouble = one.left()
            untouched = one.untouched
        return Outcome(
            done=not trouble and not untouched,
            services=tuple(self._board.statuses[name] for name in names if name in self._board.statuses),
            trouble=trouble,
            untouched=untouched,
        )

    def _names(self, service: str | None, verb: Verb, dependants: bool) -> list[str]:
        processes = [name for name, kind in self._kinds.items() if kind is Kind.PROCESS]
        if service is None:
            if verb is Verb.RESTART:
                return [name for name in processes if self._wanted(name)]
            return processes
        kind = self._kinds.get(service)
        if kind is None:
            raise UnknownService(f"there is no service {service}")
        if kind is Kind.CONFIG_ONLY:
            raise CommandRefused(f"{service} has no worker, so there is nothing to {verb}")
        if kind is Kind.EXTERNAL:
            if verb is not Verb.RESTART:
                raise CommandRefused(
                    f"{service} is run by somebody else, who has to {verb} it; only a restart can be asked for"
                )
            return [service]
        if not dependants:
            return [service]
        found = set(
            with_dependants(self._fleet.needs, [service])
            if verb is not Verb.START
            else _with_needs(self._fleet.needs, service)
        )
        stays = {name for name in found if verb is Verb.RESTART and name != service and not self._wanted(name)}
        return [name for name in processes if name in found - stays]

    def _wanted(self, name: str) -> bool:
        present = self._fleet.present.get(name)
        return present is None or present.wanted


class _Command:
    """One command under way."""

    def __init__(
        self,
        fleet: Fleet,
        handles: Mapping[str, Handle[ServiceActor]],
        verb: Verb,
        by: str,
        reason: str | None,
        *,
        late: str,
    ) -> None:
        """`late`: what is said of what is not done in time."""
        self._late = late
        self._fleet = fleet
        self._handles = handles
        self._verb = verb
        self._by = by
        self._reason = reason
        self._waits: dict[str, str] = {}
        self._roll: Roll | None = None

    @property
    def untouched(self) -> tuple[str, ...]:
        return tuple(self._roll.untouched) if self._roll is not None else ()

    def left(self) -> dict[str, str]:
        """What is not done, and why not."""
        left = self._waits if self._roll is None else self._roll.trouble
        return {name: self._said(name) if not text or text == self._late else text for name, text in left.items()}

    async def tell(self, name: str) -> None:
        await self._handles[name].within(10.0).ask(ServiceActor.command, self._verb, self._by, self._reason)

    async def ask(self, order: Iterable[Sequence[str]], look: Callable[[Present], str | None]) -> dict[str, str]:
        """Tell each wave when the one before is done. `look` gives None while that is open, else what is wrong."""
        trouble: dict[str, str] = {}
        left = [list(wave) for wave in order]
        changed = asyncio.Event()
        self._waits = {name: "" for wave in left for name in wave}
        with self._fleet.watched(lambda *_: changed.set()):
            for wave in left:
                for name in wave:
                    await self.tell(name)
                while True:
                    changed.clear()
                    for name in [name for name in wave if name in self._waits]:
                        present = self._fleet.present.get(name)
                        said = None if present is None else look(present)
                        if said is not None:
                            del self._waits[name]
                            if said:
                                trouble[name] = said
                    if not any(name in self._waits for name in wave):
                        break
                    await changed.wait()
        return trouble

    async def roll(self, names: Sequence[str], *, rolling: bool) -> tuple[dict[str, str], tuple[str, ...]]:
        """Restart these: see `Roll`."""
        present = self._fleet.present
        before = {name: present[name].instance if name in present else None for name in names}
        self._roll = roll = Roll(self._fleet.needs, before, rolling=rolling)
        steps: asyncio.Queue[Step] = asyncio.Queue()

        def noted(name: str, now: Present) -> None:
            for step in roll.note(name, now.state, now.instance, now.reason, coming_up=now.coming_up):
                steps.put_nowait(step)
            changed.set()

        changed = asyncio.Event()
        try:
            with self._fleet.watched(noted):
                for step in roll.begin():
                    steps.put_nowait(step)
                while not (roll.done and steps.empty()):
                    changed.clear()
                    while not steps.empty():
                        await self._do(steps.get_nowait())
                    if not roll.done:
                        await changed.wait()
        finally:
            # Whatever happens, nobody is kept down for ever.
            for step in roll.give_up(self._late) if not roll.done else ():
                await self._do(step)
            while not steps.empty():
                step = steps.get_nowait()
                if isinstance(step, LetUp):
                    await self._do(step)
        return roll.trouble, tuple(roll.untouched)

    async def _do(self, step: Step) -> None:
        match step:
            case KeepDown(names):
                self._fleet.keep_down(names, "waits until those that it starts after have been restarted")
            case LetUp(names):
                self._fleet.let_up(names)
            case RestartThese(names):
                for name in names:
                    await self.tell(name)

    def _said(self, name: str) -> str:
        present = self._fleet.present.get(name)
        now = "" if present is None else f"; it is {present.state}{present.reason and f': {present.reason}'}"
        return f"{self._late}{now}"


def _down(present: Present) -> str | None:
    return "" if present.state in DOWN_STATES and not present.wanted else None


def _up(present: Present) -> str | None:
    if not present.wanted:
        return "it was stopped meanwhile"
    if present.state in _UP or (present.state is Lifecycle.STARTING and present.instance and not present.coming_up):
        return ""
    return f"it is {present.state}: {present.reason}" if present.state in _IN_TROUBLE else None


def _with_needs(needs: Mapping[str, Mapping[str, object]], name: str) -> set[str]:
    """Give it and all that it starts after, directly or not."""
    found, left = set(), [name]
    while left:
        present = left.pop()
        if present not in found:
            found.add(present)
            left += needs.get(present, ())
    return found
