"""Control signals as they arrive: judged at once, remembered on disk, then acted on one after another."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tars_config import _callbacks, control
from tars_config._callbacks import CallbackFailed
from tars_config._reporter import Reporter
from tars_config._sources import verify_with
from tars_config.control import MAX_ACTED, RESTART, ControlFile, ControlSignal
from tars_config.keys import TrustedKeys
from tars_config.wire import Refused

MAX_WAITING = 16

ControlHandler: TypeAlias = Callable[[ControlSignal], Awaitable[None] | None]

_log = logging.getLogger(__name__)


class Controls:
    """The signals that wait, the one that is acted on, and the times of those acted on before.

    State of one event loop. Signals are judged as if those that wait had been acted on already, so each is taken once.
    One task acts; it is there while there is something to do. A signal is on disk before it is acted on: after a crash
    in between it was not acted on, and never will be, which is right for a command, for somebody waits for its effect
    and can ask again. One that cannot be written down is not acted on: after the restart that it asks for, it could
    be sent again and again.
    """

    def __init__(
        self,
        service: str,
        keys: TrustedKeys,
        state_directory: Path | None,
        executor: Executor,
        *,
        reporter: Reporter,
        clock: Callable[[], datetime],
        timeout_s: float,
        restart: Callable[[], None],
    ) -> None:
        """`restart` is what the command `restart` does without a handler."""
        self._service = service
        self._keys = keys
        self._file = ControlFile(state_directory / "control.json", service) if state_directory else None
        self._executor = executor
        self._reporter = reporter
        self._clock = clock
        self._timeout_s = timeout_s
        self._restart = restart
        self._acted: tuple[datetime, ...] = ()
        self._taken: ControlSignal | None = None
        self._waiting: deque[ControlSignal] = deque()
        self._task: asyncio.Task[None] | None = None
        self.handler: ControlHandler | None = None

    def load(self) -> None:
        """Read what was acted on before; blocks."""
        if self._file is not None:
            self._acted = self._file.load()

    def receive(self, payload: bytes) -> None:
        """Judge one message, and have it acted on if it counts. Never raises."""
        try:
            signal = self._accepted(payload)
        except Refused as refusal:
            self._reporter.refusal(refusal, "control signal")
            return
        except Exception:  # noqa: BLE001 - a fault of ours must not end the connection
            _log.exception("%s: a control signal could not be judged", self._service)
            return
        if len(self._waiting) >= MAX_WAITING:
            self._failed(signal, f"{MAX_WAITING} signals wait already, so it is not acted on")
            return
        self._waiting.append(signal)
        if self._task is None:
            self._task = asyncio.create_task(self._act_on_waiting())
            self._task.add_done_callback(_look_at_end)

    async def settle(self) -> None:
        """Wait until none waits or is acted on."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Forget what waits; a handler that runs is cancelled."""
        self._waiting.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _accepted(self, payload: bytes) -> ControlSignal:
        signal = control.decode(payload)
        verify_with(partial(control.verify, signal), self._keys)
        before = [*self._acted, *(each.issued_at for each in (self._taken, *self._waiting) if each is not None)]
        control.judge(before, signal, service=self._service, now=self._clock())
        return signal

    async def _act_on_waiting(self) -> None:
        try:
            while self._waiting:
                self._taken = self._waiting.popleft()
                if await self._written_down(self._taken):
                    await self._act(self._taken)
        finally:
            # Nothing awaits between the last look at what waits and this: what comes now begins another task.
            self._taken = self._task = None

    async def _written_down(self, signal: ControlSignal) -> bool:
        if self._file is None:
            self._failed(signal, "without TARS_STATE_DIRECTORY it cannot be remembered, so it is not acted on")
            return False
        acted = (*self._acted, signal.issued_at)[-MAX_ACTED:]
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._file.store, acted)
        except OSError as error:
            self._failed(signal, f"it cannot be written down, so it is not acted on: {error}")
            return False
        self._acted = acted
        return True

    async def _act(self, signal: ControlSignal) -> None:
        reason = self._reporter.clean(signal.reason)
        _log.info("%s: control signal %s, reason %r", self._service, signal.command, reason)
        try:
            await _callbacks.call(self.handler or self._without_handler, signal, self._timeout_s)
        except CallbackFailed as error:
            self._failed(signal, str(error))
        else:
            self._reporter.acted()

    def _without_handler(self, signal: ControlSignal) -> None:
        if signal.command != RESTART:
            raise CallbackFailed("this worker has no handler for it (on_control)")
        self._restart()

    def _failed(self, signal: ControlSignal, why: str) -> None:
        text = self._reporter.clean(f"control signal {signal.command}: {why}")
        _log.error("%s: %s", self._service, text)
        self._reporter.acted(error=text)


def _look_at_end(task: asyncio.Task[None]) -> None:
    """Take the exception, or asyncio complains of it: a `SystemExit`, by which a handler may end the process."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception):
        _log.error("a control signal could not be acted on", exc_info=error)
