"""What the broker keeps of a client, connected or away."""

from amqtt.session import OutgoingApplicationMessage, Session

from actors.broker.link import Link
from actors.broker.settings import Limits

_OVERHEAD = 400
"""Bytes that a message costs beside its text, about."""


class Budget:
    """Bytes that the messages of some sessions may take together. Each session gives back what it took."""

    def __init__(self, limit: int, of_all: "Budget | None" = None) -> None:
        self._left = limit
        self._of_all = of_all

    def has(self, size: int) -> bool:
        return size <= self._left and (self._of_all is None or self._of_all.has(size))

    def take(self, size: int) -> None:
        self._left -= size
        if self._of_all is not None:
            self._of_all.take(size)


class ClientSession(Session):
    """A client's session; a persistent one outlives its connection.

    Of amqtt's queues, `inflight_out` holds what is not acknowledged, `retained_messages` what waits (amqtt's name
    for a session's queue), and `inflight_in` the packet ids of QoS 2 that are not released.
    """

    def __init__(self, link: Link, limits: Limits, budget: Budget) -> None:
        super().__init__()
        self.client_id: str = link.session_id
        self.clean_session = link.clean
        self.principal = link.principal
        self.filters: set[str] = set()
        self.lost = 0
        """Messages dropped because too many waited."""
        self.refused = 0
        """Messages that it published where it may not."""
        self._limits = limits
        self._budget = budget
        self._taken = 0
        self._inflight_bytes = 0

    @property
    def connected(self) -> bool:
        return bool(self.transitions.state == "connected")

    @property
    def may_send(self) -> bool:
        """Whether a message of QoS 1 can go out now, without passing others or the window."""
        return self.retained_messages.empty() and self._window_is_open

    @property
    def _window_is_open(self) -> bool:
        # Whatever others cost: who acknowledges gets the next message.
        return not self.inflight_out or (
            len(self.inflight_out) < self._limits.max_inflight
            and self._inflight_bytes < self._limits.max_inflight_bytes
            and self._budget.has(0)
        )

    def send(self, message: OutgoingApplicationMessage) -> None:
        """It goes out now: give it a packet id and keep it until it is acknowledged."""
        message.packet_id = self.next_packet_id
        self.inflight_out[message.packet_id] = message
        self._inflight_bytes += _size(message)
        self._take(_size(message))

    def acknowledge(self, packet_id: int) -> None:
        if (message := self.inflight_out.pop(packet_id, None)) is not None:
            self._inflight_bytes -= _size(message)
            self._take(-_size(message))

    def enqueue(self, message: OutgoingApplicationMessage) -> None:
        """Keep it for later; dropped and counted where too much waits already, as Mosquitto does."""
        size = _size(message)
        if (
            self.retained_messages.qsize() >= self._limits.max_queued_messages
            or self._taken - self._inflight_bytes + size > self._limits.max_queued_bytes
            or not self._budget.has(size)
        ):
            self.lost += 1
            return
        self._take(size)
        self.retained_messages.put_nowait(message)

    def dequeue(self) -> OutgoingApplicationMessage | None:
        """The next waiting message, if it may go out now."""
        if self.retained_messages.empty() or not self._window_is_open:
            return None
        message = self.retained_messages.get_nowait()
        assert isinstance(message, OutgoingApplicationMessage)
        self._take(-_size(message))
        return message

    def clear_queues(self) -> None:
        """Called by amqtt when it forgets the session."""
        super().clear_queues()
        self.inflight_out.clear()
        self._inflight_bytes = 0
        self._take(-self._taken)

    def _take(self, size: int) -> None:
        self._taken += size
        self._budget.take(size)


def _size(message: OutgoingApplicationMessage) -> int:
    return len(message.data) + len(message.topic) + _OVERHEAD
