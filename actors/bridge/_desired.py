"""What the broker shall know: the bridge's memory, without any I/O.

A topic's life: *queued* (its newest content has still to be published), *taken* (being signed, or published
and not acknowledged), or settled. It can be queued and taken at once: changed meanwhile, or the newest content
has to be signed anew. At most one publish of a topic is under way, so that a flood of changes becomes few
messages, in order, and the last value is always the last one sent.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from actors.mqtt.topics import matches
from actors.signer import Unsigned

Handler: TypeAlias = Callable[[str, bytes], None]

_LONGEST_STRING = 65535


class Wanted(Struct, frozen=True, eq=False):
    """What a topic shall retain; `b""`: nothing. Each call of `retain` makes another one."""

    content: bytes | Unsigned
    token: Any = None


class Message(Struct, frozen=True, eq=False):
    """A message that is not retained."""

    topic: str
    payload: bytes
    qos: int


class _Entry(Struct):
    wanted: Wanted
    taken: Wanted | None = None
    # Whose acknowledgement has been told already.
    told: Wanted | None = None
    # Monotonic time at which an unsigned content is to be signed again.
    due: float | None = None


class _Flight(Struct, frozen=True):
    what: str | Message | None
    since: float


class Desired:
    """Wanted retained state, messages to send, subscriptions. Belongs to one bridge, on the loop's thread."""

    def __init__(self, *, queue_messages: int = 1000, queue_bytes: int = 4 * 1024 * 1024) -> None:
        self._entries: dict[str, _Entry] = {}
        # Queued topics in order; dicts are ordered sets here.
        self._plain: dict[str, None] = {}
        self._unsigned: dict[str, None] = {}
        self._flights: dict[int, _Flight] = {}
        self._queue: deque[Message] = deque()
        self._queue_messages = queue_messages
        self._queue_bytes = queue_bytes
        self._queued_bytes = 0
        self._handlers: dict[str, list[Handler]] = {}
        # Those of them with a wildcard. The others may be many, and are looked up.
        self._wildcards: dict[str, list[Handler]] = {}
        self.dropped = 0

    # -- what others want

    def retain(self, topic: str, content: bytes | Unsigned, token: Any = None) -> None:
        check_topic(topic)
        wanted = Wanted(content, token)
        entry = self._entries.get(topic)
        if entry is None:
            self._entries[topic] = _Entry(wanted)
        else:
            entry.wanted = wanted
            entry.due = None
        self._enqueue(topic)

    def send(self, message: Message) -> None:
        check_topic(message.topic)
        self._queue.append(message)
        self._queued_bytes += len(message.payload)
        self._drop_oldest()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        check_filter(topic_filter)
        handlers = self._handlers.setdefault(topic_filter, [])
        handlers.append(handler)
        if "+" in topic_filter or "#" in topic_filter:
            self._wildcards[topic_filter] = handlers

    @property
    def filters(self) -> list[str]:
        return list(self._handlers)

    def handlers(self, topic: str) -> list[Handler]:
        """Those whose filter matches; a handler that is behind several filters comes once."""
        found = list(self._handlers.get(topic, ()))
        for topic_filter, handlers in self._wildcards.items():
            if matches(topic_filter, topic):
                found += handlers
        return list({id(handler): handler for handler in found}.values())

    def wanted(self, topic: str) -> Wanted | None:
        entry = self._entries.get(topic)
        return None if entry is None else entry.wanted

    # -- signing again

    def sign_again(self) -> None:
        """Every unsigned content is to be signed and published anew."""
        for topic, entry in self._entries.items():
            if not isinstance(entry.wanted.content, bytes):
                self._enqueue(topic)

    def sign_due(self, now: float) -> bool:
        """The same for those whose time has come; true if there are any."""
        found = False
        for topic, entry in self._entries.items():
            if entry.due is not None and entry.due <= now:
                entry.due = None
                self._enqueue(topic)
                found = True
        return found

    def publish_again(self, topic: str) -> None:
        """The broker has something else there than what we want: publish it anew."""
        if topic in self._entries:
            self._enqueue(topic)

    # -- publishing

    def take_plain(self) -> tuple[str, bytes] | None:
        """Take the next topic whose content needs no signature."""
        for topic in self._plain:
            entry = self._entries[topic]
            if entry.taken is None:
                del self._plain[topic]
                entry.taken = entry.wanted
                assert isinstance(entry.wanted.content, bytes)
                return topic, entry.wanted.content
        return None

    def take_unsigned(self) -> tuple[str, Unsigned] | None:
        """Take the next topic whose content has to be signed."""
        for topic in self._unsigned:
            entry = self._entries[topic]
            if entry.taken is None:
                del self._unsigned[topic]
                entry.taken = entry.wanted
                assert not isinstance(entry.wanted.content, bytes)
                return topic, entry.wanted.content
        return None

    def take_message(self) -> Message | None:
        if not self._queue:
            return None
        message = self._queue.popleft()
        self._queued_bytes -= len(message.payload)
        return message

    def published(self, mid: int, what: str | Message | None, now: float, *, due: float | None = None) -> None:
        """Say that a taken topic, a taken message, or something nobody waits for, went out as `mid`.

        `due`: when a topic's content is to be signed again, should it still be the wanted one.
        """
        self._flights[mid] = _Flight(what, now)
        if isinstance(what, str):
            entry = self._entries[what]
            if entry.taken is entry.wanted:
                entry.due = due

    def put_back(self, topic: str) -> None:
        """A taken topic could not be published; it goes to the end."""
        self._entries[topic].taken = None
        self._enqueue(topic)

    def give_up(self, topic: str, due: float) -> None:
        """A taken topic cannot be published as it is: leave it until it changes, or until `due`."""
        entry = self._entries[topic]
        if entry.taken is entry.wanted:
            entry.due = due
        entry.taken = None

    def acknowledged(self, mid: int) -> Wanted | None:
        """The PUBACK of `mid` came. Give what the broker has now, the first time that it has it."""
        flight = self._flights.pop(mid, None)
        if flight is None or not isinstance(flight.what, str):
            return None
        entry = self._entries[flight.what]
        taken, entry.taken = entry.taken, None
        if taken is entry.wanted and taken.content == b"" and not self._is_queued(flight.what):
            del self._entries[flight.what]
        if taken is entry.told:
            return None
        entry.told = taken
        return taken

    def disconnected(self) -> None:
        """What was under way may be lost, and so may what the broker knew: everything is to be published."""
        flying = [flight.what for flight in self._flights.values() if isinstance(flight.what, Message)]
        self._flights.clear()
        self._queue.extendleft(reversed(flying))
        self._queued_bytes += sum(len(message.payload) for message in flying)
        self._drop_oldest()
        for topic, entry in self._entries.items():
            entry.taken = None
            self._enqueue(topic)

    # -- how it stands

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def oldest_flight(self) -> float | None:
        """When the publish that waits longest for its PUBACK went out."""
        return next(iter(self._flights.values())).since if self._flights else None

    @property
    def pending(self) -> int:
        """Topics whose newest content the broker has not acknowledged."""
        under_way = sum(1 for entry in self._entries.values() if entry.taken is not None)
        changed = sum(
            1 for queue in (self._plain, self._unsigned) for topic in queue if self._entries[topic].taken is None
        )
        return under_way + changed

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def has_work(self) -> bool:
        """Whether something waits to be taken; it may have to wait for a PUBACK."""
        return bool(self._plain or self._unsigned or self._queue)

    @property
    def settled(self) -> bool:
        """Nothing is left to publish, and everything is acknowledged."""
        return not (self.has_work or self._flights or self.pending)

    def is_settled(self, topic: str) -> bool:
        entry = self._entries.get(topic)
        return entry is None or (entry.taken is None and not self._is_queued(topic))

    # -- inside

    def _enqueue(self, topic: str) -> None:
        if isinstance(self._entries[topic].wanted.content, bytes):
            self._unsigned.pop(topic, None)
            self._plain.setdefault(topic)
        else:
            self._plain.pop(topic, None)
            self._unsigned.setdefault(topic)

    def _is_queued(self, topic: str) -> bool:
        return topic in self._plain or topic in self._unsigned

    def _drop_oldest(self) -> None:
        while len(self._queue) > self._queue_messages or (
            self._queued_bytes > self._queue_bytes and len(self._queue) > 1
        ):
            self.take_message()
            self.dropped += 1


def check_topic(topic: str) -> None:
    """Raise ValueError for what is not the name of a topic (MQTT 3.1.1, 4.7)."""
    _check_string(topic, "topic")
    if "+" in topic or "#" in topic:
        raise ValueError(f"the topic {topic[:80]!r} has a wildcard in it; only a subscription may")


def check_filter(topic_filter: str) -> None:
    """Raise ValueError for what is not a topic filter (MQTT 3.1.1, 4.7.1)."""
    _check_string(topic_filter, "topic filter")
    levels = topic_filter.split("/")
    if any(("+" in level and level != "+") or ("#" in level and level != "#") for level in levels):
        raise ValueError(f"in the topic filter {topic_filter[:80]!r} a wildcard does not fill its whole level")
    if "#" in levels[:-1]:
        raise ValueError(f"in the topic filter {topic_filter[:80]!r} '#' is not the last level")


def _check_string(text: str, what: str) -> None:
    if not text:
        raise ValueError(f"the {what} is empty")
    if "\0" in text or len(text.encode()) > _LONGEST_STRING:
        raise ValueError(f"the {what} {text[:80]!r} has a NUL in it or is longer than {_LONGEST_STRING} bytes")
