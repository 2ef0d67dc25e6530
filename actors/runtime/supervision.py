"""Supervision as in OTP: children, restart types, strategies, intensity, backoff, escalation.

Source: Erlang/OTP, "supervisor" behaviour (design principles and reference manual).
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from actors.runtime._actor import Actor, Ending, Exit
from actors.runtime._inbox import Control
from actors.runtime._ref import Ref
from actors.runtime.errors import ActorDown
from actors.runtime.handle import Handle

logger = logging.getLogger(__name__)


class Restart(Enum):
    """When a child that ended is started again."""

    PERMANENT = "always"
    TRANSIENT = "unless it stopped in order"
    TEMPORARY = "never"


class Strategy(Enum):
    """Which children a restart takes along."""

    ONE_FOR_ONE = "the one that ended"
    REST_FOR_ONE = "the one that ended and those started after it"


@dataclass(frozen=True, slots=True)
class Intensity:
    """More than `restarts` within `window` seconds, and the supervisor gives up and fails itself."""

    restarts: int = 5
    window: float = 30.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the n-th restart within the intensity's window: at once, then doubling, with up to 20 % jitter."""

    initial: float = 0.05
    maximum: float = 5.0

    def delay(self, restarts: int) -> float:
        if restarts <= 1:
            return 0.0
        grown: float = self.initial * 2.0 ** min(restarts - 2, 30)
        return min(self.maximum, grown) * random.uniform(0.8, 1.0)  # noqa: S311  # jitter


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor starts and keeps one child.

    `start` gives a newly started actor's reference (`SomeActor.start(...)`); others reach it through `handle`.
    """

    handle: Handle[Any]
    start: Callable[[], Ref[Any]]
    restart: Restart = Restart.PERMANENT
    start_timeout: float = 15.0
    stop_timeout: float = 5.0

    @property
    def name(self) -> str:
        return self.handle.name


class Escalation(Exception):
    """A supervisor gave up on a child: it ended more often than its intensity allows."""


class ChildEnded(Control):
    """What a supervisor tells itself once for each child's end."""

    __slots__ = ("exit", "name", "ref")

    def __init__(self, name: str, ref: Ref[Any], exit_: Exit) -> None:
        self.name = name
        self.ref = ref
        self.exit = exit_


class _RestartDue(Control):
    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    ref: Ref[Any] | None = None
    restarts: int = 0
    timer: asyncio.TimerHandle | None = None
    ends: deque[float] = field(default_factory=deque)


class Supervisor(Actor):
    """Starts its children in order, restarts them by their kind, stops them in reverse.

    A child that cannot start fails the supervisor's own start. Backoff runs on timers, so its mailbox is never asleep; a
    child's `on_start` is waited for (`start_timeout`), as in OTP, so that later children may rely on earlier ones.
    """

    stop_grace: ClassVar[float] = 2.0

    def __init__(
        self,
        specs: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._specs = tuple(specs)
        self._strategy = strategy
        self._intensity = intensity or Intensity()
        self._backoff = backoff or Backoff()
        self._clock = clock
        # In start order; dicts keep it.
        self._children: dict[str, _Child] = {}
        self._ends: deque[float] = deque()

    async def on_start(self) -> None:
        try:
            for spec in self._specs:
                await self.add(spec)
        except BaseException:
            await self._stop_children()
            raise

    async def on_stop(self) -> None:
        await self._stop_children()

    async def on_failure(self, *_reason: object) -> None:
        await self._stop_children()

    # -- asked by others

    async def add(self, spec: ChildSpec) -> None:
        """Start one more child, after all others. Raises what its start raises."""
        if spec.name in self._children:
            raise ValueError(f"a child named {spec.name} is there already")
        child = _Child(spec)
        self._children[spec.name] = child
        try:
            await self._start_child(child)
        except BaseException:
            del self._children[spec.name]
            raise

    async def remove(self, name: str) -> None:
        """Stop a child and forget it. `KeyError` where there is none."""
        child = self._children[name]
        await self._stop_child(child)
        del self._children[name]

    def restarts(self) -> dict[str, int]:
        """Give each child's number of restarts so far."""
        return {name: child.restarts for name, child in self._children.items()}

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, ChildEnded):
            return self._child_ended(message)
        if isinstance(message, _RestartDue):
            return self._restart(message.names)
        return super().on_receive(message)

    # -- inside

    async def _start_child(self, child: _Child) -> None:
        spec = child.spec
        ref = spec.start()
        try:
            async with asyncio.timeout(spec.start_timeout):
                await ref.started
        except BaseException as error:
            ref.cancel()
            await ref.exited.wait()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{spec.name} was not ready within {spec.start_timeout:g} s") from None
            raise
        child.ref = ref
        spec.handle.attach(ref)
        watcher = asyncio.get_running_loop().create_task(self._watch(spec.name, ref))
        self._adopt(watcher)

    def _adopt(self, watcher: asyncio.Task[None]) -> None:
        if self._spawned is None:
            self._spawned = set()
        self._spawned.add(watcher)
        watcher.add_done_callback(self._spawned.discard)

    async def _watch(self, name: str, ref: Ref[Any]) -> None:
        exit_ = await ref.exited
        child = self._children.get(name)
        # At once, not in turn: nobody may ask a dead actor while the supervisor is busy with something else.
        if child is not None and child.ref is ref:
            child.spec.handle.detach()
        try:
            self.actor_ref.tell(ChildEnded(name, ref, exit_))
        except ActorDown:
            return

    def _child_ended(self, ended: ChildEnded) -> None:
        child = self._children.get(ended.name)
        if child is None or child.ref is not ended.ref:
            return  # stopped by us, or replaced since
        child.ref = None
        kind = child.spec.restart
        if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and ended.exit.ending is Ending.STOPPED):
            return
        logger.warning("%s ended (%s)", ended.name, ended.exit)
        self._plan_restart(child, ended.exit)

    def _plan_restart(self, child: _Child, why: Exit) -> None:
        now = self._clock()
        for ends in (self._ends, child.ends):
            ends.append(now)
            while ends and ends[0] <= now - self._intensity.window:
                ends.popleft()
        if len(self._ends) > self._intensity.restarts:
            raise Escalation(
                f"{child.spec.name} ended ({why}): {len(self._ends)} ends within {self._intensity.window:g} s, "
                f"{self._intensity.restarts} allowed"
            )
        names: list[str] = [child.spec.name]
        if self._strategy is Strategy.REST_FOR_ONE:
            order = list(self._children)
            names = order[order.index(child.spec.name) :]
        self._send_restart(tuple(names), self._backoff.delay(len(child.ends)), child)

    def _send_restart(self, names: tuple[str, ...], delay: float, child: _Child) -> None:
        def due() -> None:
            child.timer = None
            if not self.actor_stopped.is_set():
                self.actor_ref.tell(_RestartDue(names))

        if child.timer is not None:
            child.timer.cancel()
        child.timer = asyncio.get_running_loop().call_later(delay, due)

    async def _restart(self, names: tuple[str, ...]) -> None:
        children = [self._children[name] for name in names if name in self._children]
        for child in reversed(children[1:]):
            await self._stop_child(child)
        for child in children:
            if child.ref is not None:
                continue
            child.restarts += 1
            try:
                await self._start_child(child)
            except Exception as error:
                logger.exception("%s could not be started again", child.spec.name)
                self._plan_restart(child, Exit(Ending.FAILED, error))
                return

    async def _stop_children(self) -> None:
        for child in reversed(self._children.values()):
            await self._stop_child(child)

    async def _stop_child(self, child: _Child) -> None:
        if child.timer is not None:
            child.timer.cancel()
            child.timer = None
        ref, child.ref = child.ref, None
        if ref is None:
            return
        child.spec.handle.detach()
        ref.stop(block=False)
        try:
            async with asyncio.timeout(child.spec.stop_timeout):
                await ref.exited.wait()
        except TimeoutError:
            logger.error(  # noqa: TRY400  # the traceback would be this wait's
                "%s did not stop within %g s and is cancelled", child.spec.name, child.spec.stop_timeout
            )
            ref.cancel()
            try:
                async with asyncio.timeout(self.stop_grace):
                    await ref.exited.wait()
            except TimeoutError:
                logger.error("%s does not even end when cancelled", child.spec.name)  # noqa: TRY400  # as above
