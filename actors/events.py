"""What happens, told to whoever follows: the source of `GET /api/events`. Pure asyncio, no HTTP.

Whoever owns a fact publishes it; `Events` numbers it, keeps the last ones, and lets any number of readers follow and resume.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol, Self

import orjson
from msgspec import Struct
from msgspec.structs import asdict

from actors.exact import exact
from actors.output import Ring
from schemas.health import HealthReport

KEPT: Final = 1000
KEPT_BYTES: Final = 512 * 1024
"""Events, and bytes of their data, that a reader can resume from."""

SLOW: Final = 32
"""Events that wait for a reader, from which on it gets of several states of one service only the last."""

LONGEST_ID: Final = 64


class Event(Protocol):
    """Something that happened.

    `name` is the kind that readers subscribe to; `subject` names whose state it tells, None where it is no state and
    each one counts; `data` is what JSON can carry.
    """

    name: ClassVar[str]

    @property
    def subject(self) -> str | None: ...

    @property
    def data(self) -> Mapping[str, Any] | orjson.Fragment: ...


class StateChanged(Struct, frozen=True):
    """A service or its worker is in another state; `text` is the message on `system/state/<service>`."""

    name: ClassVar[str] = "state"
    service: str
    text: bytes

    @property
    def subject(self) -> str:
        return self.service

    @property
    def data(self) -> orjson.Fragment:
        return orjson.Fragment(self.text)


class HealthChanged(Struct, frozen=True):
    """The supervisor's own health is another; the data is that of `system/health/config-manager`."""

    name: ClassVar[str] = "health"
    report: HealthReport

    @property
    def subject(self) -> str:
        return ""

    @property
    def data(self) -> Mapping[str, Any]:
        return self.report.model_dump(mode="json")


class ConfigChanged(Struct, frozen=True):
    """A new version of a service's configuration is on disk. `keys`: what it changed; never their values."""

    name: ClassVar[str] = "config"
    service: str
    version: int
    config_epoch: str
    revision: int
    keys: tuple[str, ...]
    changed_by: str
    reason: str

    @property
    def subject(self) -> None:
        return None

    @property
    def data(self) -> Mapping[str, Any]:
        return asdict(self)


class RolloutChanged(Struct, frozen=True):
    """A change's probation began, or came to an end. `version`: the one on probation."""

    name: ClassVar[str] = "rollout"
    id: str
    service: str
    state: str
    version: int
    config_epoch: str
    reason: str

    @property
    def subject(self) -> None:
        return None

    @property
    def data(self) -> Mapping[str, Any]:
        return asdict(self)


class Published(Struct, frozen=True):
    """An event as readers get it. `id` is never used for another one; `data` is one line of JSON without its end."""

    id: str
    name: str
    data: bytes
    subject: str | None = None


RESET: Final = "reset"
"""Name of the event that tells a reader that it has missed some: it has to read everything again."""


class Events:
    """The last events. All on the loop's thread; `publish` never waits, and a reader that is slow costs nothing.

    An id is the name of this life of the supervisor and a number that rises by one: `01939b2e7c4af3a1-17`. The name
    begins with the time, so that it rises from life to life with the clock, and ends with something random, so that
    it is not used twice where the clock was set back.
    """

    def __init__(self, *, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        self._life = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"
        self._ring = Ring[Published](kept, kept_bytes, lambda event: len(event.data))
        self._newest: dict[tuple[str, str], int] = {}

    @property
    def last_id(self) -> str:
        """Of the newest event. Who reads everything after taking it, and subscribes `after` it, misses nothing."""
        return self._id(self._ring.next - 1)

    def publish(self, event: Event) -> str:
        """Tell everybody; gives the event's id. The event is rendered once, here."""
        number = self._ring.next
        if event.subject is not None:
            # Bounded by the number of services.
            self._newest[event.name, event.subject] = number
        published = Published(self._id(number), event.name, exact(orjson.dumps(event.data)), event.subject)
        self._ring.add(published)
        return published.id

    def subscribe(self, after: str | None = None) -> "Subscription":
        """Follow the events after that id, or from now on."""
        number = self._ring.next if after is None else self._following(after)
        known = number is not None and number <= self._ring.next
        return Subscription(self, self._ring, number if number is not None and known else -1)

    def close(self) -> None:
        """End all subscriptions, once they have read what is there."""
        self._ring.end()

    def is_outdated(self, event: Published, number: int) -> bool:
        """Whether a later event tells the state of the same subject."""
        return event.subject is not None and self._newest[event.name, event.subject] > number

    def reset(self, reason: str) -> Published:
        """Give the event for a reader that goes on with the next one to come."""
        return Published(self.last_id, RESET, orjson.dumps({"reason": reason}))

    def _id(self, number: int) -> str:
        return f"{self._life}-{number + 1}"

    def _following(self, event_id: str) -> int | None:
        """Number of the event after that id; None where it is none of ours."""
        life, _, number = event_id[:LONGEST_ID].rpartition("-")
        return int(number) if life == self._life and number.isascii() and number.isdecimal() else None


class Subscription:
    """An async iterator over events; ends when `Events` is closed. Holds nothing that would have to be given back.

    Where events that it wants are not here, because their id is of another life or it fell behind what is kept, it gets
    a `reset` event in their place, which carries the id after which nothing is missing. Where `SLOW` events or more wait, it
    gets only the last of several states of one subject. A cancelled `anext` loses nothing. Used by one task.
    """

    def __init__(self, events: Events, ring: Ring[Published], number: int) -> None:
        """`number` is that of the event to begin with, -1 where it is not known."""
        self._events = events
        self._ring = ring
        self._number = number

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Published:
        while self._number < 0 or await self._ring.wait(self._number):
            if self._number < self._ring.first:
                reason = "these events are not known here" if self._number < 0 else "too many events were missed"
                self._number = self._ring.next
                return self._events.reset(reason)
            event = self._ring[self._number]
            self._number += 1
            if self._ring.next - self._number < SLOW or not self._events.is_outdated(event, self._number - 1):
                return event
        raise StopAsyncIteration
