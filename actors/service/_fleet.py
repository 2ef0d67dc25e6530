"""What the workers of all services share: the order of their starts, and who waits for what becomes of them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context

from msgspec import Struct

from actors.output import Record
from actors.service._events import Event
from actors.service._start_order import Needs, StartOrder, Told
from schemas.states import Lifecycle

Door = Callable[[Event], None]
"""How a worker's life is told something: on the loop, at once, whatever waits in its actor's mailbox."""


class Present(Struct, frozen=True):
    """What a worker is now. `coming_up`: see `Life.coming_up`."""

    state: Lifecycle
    instance: str | None
    reason: str
    coming_up: bool
    wanted: bool


Watcher = Callable[[str, Present], None]


class Fleet:
    """One for the program, on the loop's thread. Nobody is called from within a call of theirs: it is told later."""

    def __init__(self, needs: Needs, places: int) -> None:
        """`needs` and `places`: see `StartOrder`."""
        self.needs = needs
        self._order = StartOrder(needs, places)
        self._doors: dict[str, Door] = {}
        self._listeners: dict[str, Callable[[Record], None]] = {}
        self._watchers: list[Watcher] = []
        self.present: dict[str, Present] = {}

    def configure(self, needs: Needs, places: int) -> None:
        """Take another manifest."""
        self.needs = needs
        self._tell(self._order.configure(needs, places))

    # -- called by services' actors

    def enter(self, name: str, door: Door) -> None:
        """It lives from now on."""
        self._doors[name] = door

    def leave(self, name: str) -> None:
        """Its actor has ended: it asks for nothing and holds nothing."""
        self._doors.pop(name, None)
        self._listeners.pop(name, None)
        self._tell(self._order.forget(name))

    def listen(self, name: str, listener: Callable[[Record], None]) -> None:
        """It wants to know what its worker prints."""
        self._listeners[name] = listener

    def printed(self, record: Record) -> None:
        """A worker has printed this."""
        listener = self._listeners.get(record.service)
        if listener is not None:
            listener(record)

    def queue(self, name: str, ticket: int) -> None:
        told = self._order.queue(name, ticket)
        if (door := self._doors.get(name)) is not None:
            # Its own turn is told at once: it asks from within a step, so it comes after that.
            for _, event in [each for each in told if each[0] == name]:
                door(event)
            told = [each for each in told if each[0] != name]
        self._tell(told)

    def withdraw(self, name: str, ticket: int) -> None:
        self._tell(self._order.withdraw(name, ticket))

    def release(self, name: str) -> None:
        self._tell(self._order.release(name))

    def note(self, name: str, present: Present, *, spawned: bool) -> None:
        """Its state has changed."""
        self.present[name] = present
        self._tell(self._order.note(name, present.state, spawned=spawned))
        for watcher in tuple(self._watchers):
            watcher(name, present)

    def waits_for(self, name: str) -> tuple[str, ...]:
        """Whom it starts after and who is not that far."""
        return self._order.unmet(name)

    # -- called by commands

    def tell(self, name: str, event: Event) -> bool:
        """Tell a life something, soon; false where there is none now."""
        door = self._doors.get(name)
        if door is None:
            return False
        asyncio.get_running_loop().call_soon(self._deliver, name, door, event, context=Context())
        return True

    def keep_down(self, names: Iterable[str], why: str) -> None:
        self._tell(self._order.keep_down(names, why))

    def let_up(self, names: Iterable[str]) -> None:
        self._tell(self._order.let_up(names))

    @contextlib.contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """Have each change told, in order. The watcher may call back, since it is not told from within."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def _tell(self, told: list[Told]) -> None:
        for name, event in told:
            self.tell(name, event)

    def _deliver(self, name: str, door: Door, event: Event) -> None:
        # Of the life that it was meant for: tickets begin anew with each.
        if self._doors.get(name) is door:
            door(event)
