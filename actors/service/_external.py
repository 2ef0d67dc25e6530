"""A worker that somebody else runs: heard on its health topic, restarted by its command or by the signed control signal."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

from actors.probes import MAX_TEXT, Probe, make_probe
from actors.process import Command, SpawnFailed, run_to_end
from actors.service._log import ServiceLog
from actors.service._policy import Mishaps, Policy
from schemas.manifest import HealthTopicProbe, Liveness, NoProbe, Restart, Service
from schemas.states import Lifecycle


class RestartFailed(Exception):
    """The worker could not be asked to restart; the message says why."""


class External:
    """`state` is `external` until something is known of it. It is restarted where its liveness probe fails, as often as its
    backoff and intensity allow, and where somebody asks for it.
    """

    def __init__(
        self,
        service: Service,
        *,
        believes_reports: bool,
        command: Callable[[tuple[str, ...]], Command],
        signal: Callable[[str], Awaitable[None]],
        run: Callable[[Coroutine[Any, Any, None]], object],
        on_change: Callable[[], None],
        clean: Callable[[str], str],
        log: ServiceLog,
    ) -> None:
        """`signal(reason)` sends the control signal, or raises RestartFailed. `run` runs a coroutine as the actor's own.
        `clean` strikes the service's secrets out of a text.

        Not `believes_reports`: see `Watch`.
        """
        self._service = service
        self._believes_reports = believes_reports
        self._asks = self._asked(service)
        self._command = command
        self._signal = signal
        self._run = run
        self._on_change = on_change
        self._clean = clean
        self._log = log
        self._policy = Policy.of(service)
        self._mishaps = Mishaps(random.random)
        self._probe: Probe | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at: float | None = None
        self._well_at: float | None = None
        self.restarts = 0
        self.state = Lifecycle.EXTERNAL
        self.reason = ""
        self.since = datetime.now(UTC)

    def start(self) -> None:
        """Begin to look after it, where the manifest says how."""
        self._timer = None
        if not isinstance(self._asks, NoProbe):
            self._probe = make_probe(self._asks, self._result, self._command)
            self._probe.start()

    def configure(self, service: Service) -> None:
        """Go by another entry of the manifest. What is known of it, and how often it was restarted, stays."""
        self._service, before = service, self._asks
        self._policy = Policy.of(service)
        self._asks = self._asked(service)
        if self._asks != before:
            self.close()
            self._probe = None
            self.start()

    def _asked(self, service: Service) -> Liveness:
        believed = self._believes_reports or not isinstance(service.liveness, HealthTopicProbe)
        return service.liveness if believed else NoProbe()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.stop()

    def heard(self, ok: bool, text: str) -> None:
        """Take what it says of itself, its last will included."""
        if self._probe is not None:
            self._probe.heard(ok, text)
        self._move(ok, text)

    async def restart(self, reason: str) -> None:
        """Have it restarted; return when it was asked. Raises RestartFailed."""
        self._asked_at, self._well_at = asyncio.get_running_loop().time(), None
        self.restarts += 1
        if self._service.restart_command:
            await self._execute(self._service.restart_command)
            self._log.info("its restart command was run: %s", reason)
        else:
            await self._signal(reason)
            self._log.info("the control signal to restart was sent: %s", reason)
        self._on_change()

    def _result(self, ok: bool, text: str) -> None:
        text = self._clean(text)[:MAX_TEXT]
        if not isinstance(self._asks, HealthTopicProbe):
            self._move(ok, text)
        if not ok:
            self._ill(f"its liveness probe failed: {text}")

    def _ill(self, reason: str) -> None:
        if self._probe is not None:
            self._probe.stop()
            self._probe = None
        if self._policy.restart is Restart.NEVER:
            self._log.warning("%s; nothing is done about it (restart = never)", reason)
            return
        now = asyncio.get_running_loop().time()
        delay = self._mishaps.ended(self._policy, now, self._asked_at, self._well_at)
        if delay is None:
            self._log.error("%s; it was restarted too often, so it is not tried again by itself", reason)
            return
        self._log.warning("%s; it is restarted", reason)
        self._run(self._mend(reason, delay))

    async def _mend(self, reason: str, delay: float) -> None:
        try:
            await self.restart(reason)
        except RestartFailed as error:
            self._log.error("cannot be restarted: %s", error)  # no traceback for a person's mistake
        # It is given some time to come back before it is asked again.
        after = max(delay, self._service.grace)
        self._timer = asyncio.get_running_loop().call_later(after, self.start, context=Context())

    def _move(self, ok: bool, text: str) -> None:
        state = Lifecycle.READY if ok else Lifecycle.UNHEALTHY
        if ok and self._well_at is None:
            self._well_at = asyncio.get_running_loop().time()
        if (state, text) == (self.state, self.reason):
            return
        if state is not self.state:
            self.since = datetime.now(UTC)
            if not ok:
                self._log.warning("unhealthy: %s", text)
            elif self.state is Lifecycle.UNHEALTHY:
                self._log.info("healthy again")
        self.state, self.reason = state, text
        self._on_change()

    async def _execute(self, argv: tuple[str, ...]) -> None:
        try:
            async with asyncio.timeout(self._service.grace):
                how, said = await run_to_end(self._command(argv))
        except SpawnFailed as error:
            raise RestartFailed(f"its restart_command: {error}") from error
        except TimeoutError:
            raise RestartFailed(f"its restart_command did not end within {self._service.grace:g} s") from None
        # It has the environment of a worker, and so may print a secret.
        words = self._clean(said)[:MAX_TEXT]
        if not how.clean:
            raise RestartFailed(f"its restart_command {how}{f': {words}' if words else ''}")
