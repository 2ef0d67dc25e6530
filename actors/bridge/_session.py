"""Keeps one connection to the broker alive, and the broker's knowledge equal to what is desired.

Ownership: one task runs `Session.run` and owns the link; it waits for the link's end. Everything else happens in
callbacks on the same loop, none of which waits: the link's events, a timer while connected, and `_publish`, once in a
turn of the loop in which somebody has changed `Desired` and called `wake`. Nothing else is started, so when that task
has ended, by cancellation too, nothing is left.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from actors.bridge._desired import Desired, check_topic
from actors.bridge._link import Link
from actors.bridge._state import BridgeState, Failure, LinkFailed, Trouble
from actors.runtime import Rejected
from actors.signer import Unsigned
from schemas.broker_address import BrokerAddress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds, and the clocks that measure them.

    Retries double from `first_retry` to `quick_retry` where trying is cheap and the broker may be back any
    moment (nobody listens, it closed on us), to `slow_retry` elsewhere (host away, silence); what only a person
    can mend (login, TLS) is tried every `stubborn_retry`. A publish without PUBACK for `puback_timeout` means
    that the broker is dead, whatever TCP says; without publishes PINGREQ finds that out after at most twice
    `keep_alive` (MQTT 3.1.1, 3.1.2.10).

    A signed content is signed and published anew after `sign_again`, less up to `sign_spread` so that they do
    not all come at once: in sum under the two minutes that readers are promised. `drift`: how far wall and
    monotonic clock may go apart before everything is signed anew.
    """

    connect_timeout: float = 5.0
    keep_alive: int = 10
    puback_timeout: float = 10.0
    first_retry: float = 0.05
    quick_retry: float = 0.5
    slow_retry: float = 5.0
    stubborn_retry: float = 30.0
    sign_again: float = 110.0
    sign_spread: float = 30.0
    drift: float = 30.0
    tick: float = 1.0
    window: int = 32
    wall: Callable[[], float] = field(default=time.time, repr=False)
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)


_QUICK = frozenset({Trouble.NO_ADDRESS, Trouble.REFUSED, Trouble.CLOSED})
_STUBBORN = frozenset({Trouble.LOGIN_REFUSED, Trouble.TLS})
_ROUNDS = 16
"""Signatures made in one turn of the loop, which are what takes time in it: a millisecond, about."""


class Session:
    """See the module. `run` never returns; all other methods are for the loop's thread and do not block."""

    def __init__(
        self,
        address: Callable[[], BrokerAddress | None],
        *,
        desired: Desired,
        sign: Callable[[Unsigned], bytes],
        will: Callable[[], tuple[str, bytes]],
        on_state: Callable[[BridgeState], None],
        on_acknowledged: Callable[[Any], None],
        mirrors: Sequence[str] = (),
        timing: Timing | None = None,
        tls_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        for template in mirrors:
            check_topic(template)
        self._address = address
        self._desired = desired
        self._sign = sign
        self._will = will
        self._on_state = on_state
        self._on_acknowledged = on_acknowledged
        self._mirrors = tuple(mirrors)
        self._timing = timing or Timing()
        self._tls_context = tls_context
        self._tls: ssl.SSLContext | None = None

        self._link: Link | None = None
        self._leaving = False
        self._flushed: asyncio.Future[None] | None = None
        self._due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._attempts = 0
        self._broker: BrokerAddress | None = None
        self._since = self._now()
        self._connected_at = 0.0
        self._failure: Failure | None = None
        self._told: object = None
        self._drift = self._timing.wall() - self._timing.monotonic()
        self._signer_away = False
        self._will_topic = ""
        # Of the connections that the broker may still hold for alive.
        self._wills: deque[bytes] = deque(maxlen=16)

    # -- for its owner

    async def run(self) -> None:
        """Connect, serve, and again, until cancelled."""
        while True:
            try:
                await self._live_once()
            except LinkFailed as failed:
                self._failed(failed.trouble, failed.reason)
            except Exception as error:
                # Whatever it is, the next attempt may do better, and nobody else can make one.
                logger.exception("the bridge failed")
                self._failed(Trouble.INTERNAL, f"the bridge failed: {type(error).__name__}")
            await self._pause()

    async def leave(self, flush: float) -> None:
        """Publish what is pending, for at most `flush` seconds; `run`, when cancelled after this, says goodbye."""
        self._leaving = True
        deadline = asyncio.get_running_loop().time() + flush
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._link is not None and self._link.alive and not self._desired.settled:
                    self._flushed = asyncio.get_running_loop().create_future()
                    await self._flushed

    def wake(self) -> None:
        """Say that `Desired` has changed."""
        if self._due is None and self._link is not None:
            self._due = asyncio.get_running_loop().call_soon(self._publish)

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe now if connected; `Desired` remembers it for the next connection."""
        if self._link is not None:
            self._link.subscribe([topic_filter])
            self.wake()

    def state(self) -> BridgeState:
        return BridgeState(
            connected=self._link is not None,
            since=self._since,
            broker="" if self._broker is None else str(self._broker),
            failure=self._failure,
            pending=self._desired.pending,
            queued=self._desired.queued,
            dropped=self._desired.dropped,
        )

    # -- one connection

    async def _live_once(self) -> None:
        address = self._broker = self._address()
        if address is None:
            raise LinkFailed(Trouble.NO_ADDRESS, "the broker has not told its address yet")
        if address.tls and self._tls is None:
            # It reads the system's certificates.
            self._tls = await asyncio.to_thread(self._tls_context)
        self._will_topic, will = self._will()
        if will not in self._wills:
            self._wills.append(will)
        link = Link(address, will=(self._will_topic, will), keep_alive=self._timing.keep_alive, events=self)
        try:
            try:
                async with asyncio.timeout(self._timing.connect_timeout):
                    await link.open(self._tls if address.tls else None)
            except TimeoutError:
                raise LinkFailed(
                    Trouble.SILENT,
                    f"the broker at {address} does not answer within {self._timing.connect_timeout:g} s",
                ) from None
            self._connected(link)
            await link.ended.wait()
            if link.failure is not None:
                raise link.failure
        finally:
            self._disconnected()
            if self._leaving:
                await link.leave()
            else:
                link.abort()

    def _connected(self, link: Link) -> None:
        self._link = link
        self._since = self._now()
        self._connected_at = self._timing.monotonic()
        logger.info("connected to the broker at %s", self._broker)
        # Before anything is published, so that we see our own clearing of a topic come back.
        link.subscribe(list(dict.fromkeys([*self._desired.filters, self._will_topic])))
        self._tick()
        self._tell_state()

    def _disconnected(self) -> None:
        """Synchronous: it also runs while the task is being cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._desired.disconnected()
        if self._link is not None:
            self._link = None
            self._since = self._now()
            # A broker that throws us out at once is not hammered.
            if self._timing.monotonic() - self._connected_at >= self._timing.quick_retry:
                self._attempts = 0

    def _publish(self) -> None:
        """Publish what may go out now: all of it in one send, and no more than others can wait for."""
        self._due = None
        link, desired = self._link, self._desired
        assert link is not None, "cancelled with the connection"
        for _ in range(_ROUNDS):
            if not link.has_room or desired.in_flight >= self._timing.window or not self._publish_some(link):
                break
        else:
            self.wake()
        link.flush()
        self._check_flushed()

    def _publish_some(self, link: Link) -> bool:
        """Publish at most one thing of each kind, so that none can keep another waiting; false: nothing to do."""
        desired, timing = self._desired, self._timing
        message = desired.take_message()
        if message is not None:
            mid = link.publish(message.topic, message.payload, qos=message.qos, retain=False)
            if message.qos:
                desired.published(mid, message, timing.monotonic())
        plain = desired.take_plain()
        if plain is not None:
            mid = link.publish(*plain, qos=1, retain=True)
            desired.published(mid, plain[0], timing.monotonic())
        signed = not self._signer_away and self._publish_signed(link)
        return signed or message is not None or plain is not None

    def _publish_signed(self, link: Link) -> bool:
        desired, timing = self._desired, self._timing
        taken = desired.take_unsigned()
        if taken is None:
            return False
        topic, unsigned = taken
        try:
            payload = self._sign(unsigned)
        except Rejected as error:
            # The signer is being restarted. Until the next tick only other kinds of content go on.
            logger.warning("nothing can be signed at present: %s", error)
            desired.put_back(topic)
            self._signer_away = True
            return False
        except Exception:
            logger.exception("version %d of %s cannot be signed and is not published", unsigned.version, topic)
            desired.give_up(topic, self._sign_due())
            return True
        now = timing.monotonic()
        desired.published(link.publish(topic, payload, qos=1, retain=True), topic, now, due=self._sign_due())
        for template in self._mirrors:
            mirror = template.replace("{service}", unsigned.service)
            desired.published(link.publish(mirror, payload, qos=1, retain=False), None, now)
        return True

    def _sign_due(self) -> float:
        timing = self._timing
        return timing.monotonic() + timing.sign_again - random.uniform(0.0, timing.sign_spread)  # noqa: S311  # spread

    def _tick(self) -> None:
        link, timing = self._link, self._timing
        if link is None or not link.alive:
            return
        self._timer = asyncio.get_running_loop().call_later(timing.tick, self._tick)
        now = timing.monotonic()
        drift = timing.wall() - now
        if abs(drift - self._drift) >= timing.drift:
            logger.warning("the clock jumped by %+.0f s: everything is signed anew", drift - self._drift)
            self._drift = drift
            self._desired.sign_again()
        self._desired.sign_due(now)
        self._signer_away = False
        self.wake()
        started = self._desired.oldest_flight
        if started is not None and now - started > timing.puback_timeout:
            link.fail(
                Trouble.SILENT,
                f"the broker at {self._broker} acknowledges nothing since {timing.puback_timeout:g} s",
            )
        else:
            link.keep_alive()

    # -- what the link tells

    def on_puback(self, mid: int) -> None:
        settled = self._desired.acknowledged(mid)
        if self._desired.has_work:
            self.wake()
        if settled is not None and settled.token is not None:
            self._tell(self._on_acknowledged, settled.token)
        self._check_flushed()

    def on_message(self, topic: str, payload: bytes) -> None:
        if topic == self._will_topic and payload in self._wills:
            self._undo_last_will(topic, payload)
        for handler in self._desired.handlers(topic):
            try:
                handler(topic, payload)
            except Exception:
                logger.exception("a handler of %s failed", topic)

    def on_room(self) -> None:
        self.wake()

    def on_closed(self) -> None:
        self._check_flushed()

    # -- inside

    def _undo_last_will(self, topic: str, payload: bytes) -> None:
        """The broker may publish the last will of a connection of ours that broke long after we are back."""
        wanted = self._desired.wanted(topic)
        if wanted is not None and wanted.content != payload and self._desired.is_settled(topic):
            self._desired.publish_again(topic)
            self.wake()

    def _check_flushed(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def _failed(self, trouble: Trouble, reason: str) -> None:
        self._attempts += 1
        self._failure = Failure(trouble, reason, self._now())
        if self._tell_state():
            logger.warning("%s", reason)

    async def _pause(self) -> None:
        """Wait before the next attempt; a new address ends the wait."""
        timing = self._timing
        trouble = self._failure.trouble if self._failure is not None else Trouble.CLOSED
        grown = timing.first_retry * 2.0 ** min(self._attempts - 1, 20)
        if trouble in _STUBBORN:
            delay = timing.stubborn_retry
        else:
            delay = min(grown, timing.quick_retry if trouble in _QUICK else timing.slow_retry)
        delay *= random.uniform(0.8, 1.0)  # noqa: S311  # jitter
        while delay > 0:
            await asyncio.sleep(min(delay, timing.quick_retry))
            delay -= timing.quick_retry
            if delay > 0 and self._has_moved():
                return

    def _has_moved(self) -> bool:
        try:
            return self._address() != self._broker
        except Exception:  # noqa: BLE001  # the next attempt tells it
            return False

    def _tell_state(self) -> bool:
        """Tell the state unless it says the same as the last time; true if it was told."""
        state = self.state()
        failure = None if state.failure is None else (state.failure.trouble, state.failure.reason)
        news = state.connected or failure
        if news == self._told:
            return False
        self._told = news
        self._tell(self._on_state, state)
        return True

    def _tell(self, listener: Callable[[Any], None], news: Any) -> None:
        try:
            listener(news)
        except Exception:
            logger.exception("a listener of the bridge failed")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._timing.wall(), UTC)
