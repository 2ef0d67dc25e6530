"""The supervisor: children in order, restarts, backoff, escalation, as in OTP.

Source: Erlang/OTP, "supervisor" behaviour (design principles and reference manual).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, ClassVar

from actors.runtime._actor import Actor
from actors.runtime._exit import Ending, Exit
from actors.runtime._inbox import Control
from actors.runtime._ref import Ref
from actors.runtime.errors import ActorDown, Foreseen
from actors.runtime.policy import Backoff, ChildSpec, Escalation, Intensity, Restart, Strategy

logger = logging.getLogger(__name__)


class _ChildEnded(Control):
    """What a supervisor tells itself once for each child's end."""

    __slots__ = ("exit", "name", "ref")

    def __init__(self, name: str, ref: Ref[Any], exit_: Exit) -> None:
        self.name = name
        self.ref = ref
        self.exit = exit_


class _RestartDue(Control):
    """What a supervisor tells itself when a backoff is over; void unless it is still the child's `due`."""

    __slots__ = ("child", "timer")

    def __init__(self, child: "_Child") -> None:
        self.child = child
        self.timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class _Child:
    spec: ChildSpec
    ref: Ref[Any] | None = None
    restarts: int = 0
    ends: list[float] = field(default_factory=list)
    due: _RestartDue | None = None

    def forget_restart(self) -> None:
        due, self.due = self.due, None
        if due is not None and due.timer is not None:
            due.timer.cancel()


class Supervisor(Actor):
    """Starts its children in order, restarts them by their kind, stops them in reverse.

    A child that cannot start fails the supervisor's own start. Backoff runs on timers, so its mailbox is never asleep; a
    child's `on_start` is waited for (`start_timeout`), as in OTP, so that later children may rely on earlier ones. A
    supervisor that is cancelled cancels its children: whoever cancels it has lost patience with an orderly stop.
    """

    stop_grace: ClassVar[float] = 2.0
    """Seconds that a cancelled child has to end."""
    # Each child's end has a limit of its own.
    cleanup_timeout: ClassVar[float | None] = None

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
        self._ends: list[float] = []

    async def on_start(self) -> None:
        try:
            for spec in self._specs:
                await self.add(spec)
        except asyncio.CancelledError:
            await self._cancel_children()
            raise
        except Exception:
            await self._stop_children()
            raise

    async def on_stop(self) -> None:
        await self._stop_children()

    async def on_failure(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            await self._cancel_children()
        else:
            await self._stop_children()

    # -- asked by others

    async def add(self, spec: ChildSpec) -> None:
        """Start one more child, after all others. Raises what its start raises; `ValueError` where the name is taken."""
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
        """Give each child's number of restarts so far, in start order."""
        return {name: child.restarts for name, child in self._children.items()}

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, _ChildEnded):
            return self._child_ended(message)
        if isinstance(message, _RestartDue):
            return self._restart(message)
        return super().on_receive(message)

    # -- a child's end and its restart

    async def _watch(self, name: str, ref: Ref[Any]) -> None:
        exit_ = await ref.exited
        child = self._children.get(name)
        # At once, not in turn: the handle must not keep the dead one while the supervisor is busy with something else.
        if child is not None and child.ref is ref:
            child.spec.handle.detach()
        with contextlib.suppress(ActorDown):
            self.actor_ref.tell(_ChildEnded(name, ref, exit_))

    async def _child_ended(self, ended: _ChildEnded) -> None:
        child = self._children.get(ended.name)
        if child is None or child.ref is not ended.ref:
            return  # stopped by us, or replaced since
        child.ref = None
        kind = child.spec.restart
        if kind is Restart.TEMPORARY:
            del self._children[ended.name]
        elif kind is Restart.PERMANENT or ended.exit.ending is not Ending.STOPPED:
            error = ended.exit.error
            # Text, not the exit itself: a log that keeps it would keep the actor.
            what = f"{ended.name}: {error}" if isinstance(error, Foreseen) else f"{ended.name} ended ({ended.exit})"
            await self._plan_restart(child, what)

    async def _plan_restart(self, child: _Child, what: str) -> None:
        now = self._clock()
        for ends in (self._ends, child.ends):
            ends.append(now)
            while ends and ends[0] <= now - self._intensity.window:
                del ends[0]
        if len(self._ends) > self._intensity.restarts:
            raise Escalation(
                f"{what}: {len(self._ends)} ends within {self._intensity.window:g} s, "
                f"{self._intensity.restarts} allowed"
            )
        delay = self._backoff.delay(len(child.ends))
        logger.warning("%s; it is started again %s", what, f"in {delay:.1f} s" if delay else "at once")
        for other in reversed(self._taken_along(child)):
            await self._stop_child(other)
            if other.spec.restart is Restart.TEMPORARY:
                del self._children[other.spec.name]
        child.due = due = _RestartDue(child)
        due.timer = asyncio.get_running_loop().call_later(delay, self._tell_due, due, context=Context())

    def _taken_along(self, child: _Child) -> list[_Child]:
        if self._strategy is Strategy.ONE_FOR_ONE:
            return []
        children = list(self._children.values())
        return children[children.index(child) + 1 :]

    def _tell_due(self, due: _RestartDue) -> None:
        with contextlib.suppress(ActorDown):
            self.actor_ref.tell(due)

    async def _restart(self, due: _RestartDue) -> None:
        if due.child.due is not due:
            return  # removed meanwhile, or stopped along with one before it
        for child in [due.child, *self._taken_along(due.child)]:
            child.forget_restart()
            if child.ref is not None:
                continue  # added meanwhile
            child.restarts += 1
            try:
                await self._start_child(child)
            except Foreseen as error:
                await self._plan_restart(child, f"{child.spec.name}: {error}")
                return
            except Exception as error:
                logger.exception("%s could not be started again", child.spec.name)
                await self._plan_restart(child, f"{child.spec.name} ended (not started: {error!r})")
                return
            logger.info("%s runs again", child.spec.name)

    # -- one child

    async def _start_child(self, child: _Child) -> None:
        spec = child.spec
        ref = spec.start()
        try:
            async with asyncio.timeout(spec.start_timeout) as patience:
                await ref.started
        except BaseException:
            await self._cancel_child(spec.name, ref)
            if patience.expired():
                raise TimeoutError(f"{spec.name} was not ready within {spec.start_timeout:g} s") from None
            raise
        child.ref = ref
        spec.handle.attach(ref, supervised=True)
        self.spawn(self._watch(spec.name, ref), name=f"watch {spec.name}")

    async def _stop_child(self, child: _Child) -> None:
        ref = self._let_go(child)
        if ref is None:
            return
        ref.stop(block=False)
        try:
            async with asyncio.timeout(child.spec.stop_timeout):
                await ref.exited.wait()
        except TimeoutError:
            logger.error(  # noqa: TRY400  # the traceback would be this wait's
                "%s did not stop within %g s and is cancelled", child.spec.name, child.spec.stop_timeout
            )
            await self._cancel_child(child.spec.name, ref)
        except asyncio.CancelledError:
            await self._cancel_child(child.spec.name, ref)
            raise

    def _let_go(self, child: _Child) -> Ref[Any] | None:
        """Take back the name and the plans, so that its end is nobody's business any more."""
        child.forget_restart()
        ref, child.ref = child.ref, None
        if ref is not None:
            child.spec.handle.detach()
        return ref

    async def _cancel_child(self, name: str, ref: Ref[Any]) -> None:
        ref.cancel()
        try:
            async with asyncio.timeout(self.stop_grace):
                await ref.exited.wait()
        except TimeoutError:
            logger.error("%s does not even end when cancelled", name)  # noqa: TRY400  # the traceback would be this wait's

    async def _stop_children(self) -> None:
        try:
            for child in reversed(self._children.values()):
                await self._stop_child(child)
        except asyncio.CancelledError:
            await self._cancel_children()
            raise

    async def _cancel_children(self) -> None:
        left = {child.spec.name: self._let_go(child) for child in reversed(self._children.values())}
        # All first: whoever cancels this wait too has cancelled them all the same.
        for ref in left.values():
            if ref is not None:
                ref.cancel()
        await asyncio.gather(*(self._cancel_child(name, ref) for name, ref in left.items() if ref is not None))
