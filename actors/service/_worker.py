"""One worker process through its life: wanted or not, running or not, and when it is started again."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from actors.process import Command, Ended, Process, SpawnFailed
from schemas.states import RUNNING_STATES, Lifecycle

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between a failed start and the next one: doubling from the first to the longest, with jitter."""

STABLE_AFTER = 60.0
"""Seconds of readiness after which earlier failures no longer count."""


class Worker:
    """The state machine of one worker. Its owner calls it on the loop, one call at a time.

    `wanted` is what the owner of the machine wants; the state follows it. Transitions:

        stopped, backing-off --started--> starting --health--> ready <--health--> unhealthy
        starting, ready, unhealthy --terminate--> stopping --ended--> stopped
        starting, ready, unhealthy --ended--> backing-off
    """

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._process: Process | None = None
        self._failures = 0
        self._ready_at: float | None = None
        self.wanted = False
        self.state = Lifecycle.STOPPED
        self.since = datetime.now(UTC)
        self.reason = "not started yet"
        self.instance: str | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(
        self,
        command: Command,
        instance: str,
        *,
        on_line: Callable[[bytes], None],
        on_end: Callable[[Ended], None],
        reason: str,
    ) -> None:
        """Spawn it; it is `starting` until its health says otherwise.

        Raises:
            SpawnFailed: and the state is `backing-off`.
        """
        assert self._process is None
        self._ready_at = None
        self.instance = instance
        try:
            self._process = Process(command, on_line=on_line, on_end=on_end)
        except SpawnFailed as error:
            self.instance = None
            self._failures += 1
            self._move(Lifecycle.BACKING_OFF, str(error))
            raise
        self._move(Lifecycle.STARTING, reason)

    def terminate(self, grace: float, reason: str) -> None:
        """Ask it to end; it is killed after `grace` seconds."""
        if self._process is not None:
            self._move(Lifecycle.STOPPING, reason)
            self._process.terminate(grace)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def ended(self, ended: Ended) -> float | None:
        """Take its end: seconds until it is to be started again, or None where it is to stay down."""
        asked = self.state is Lifecycle.STOPPING
        now = time.monotonic()
        was_ready = self._ready_at is not None
        if was_ready and self._ready_at is not None and now - self._ready_at >= STABLE_AFTER:
            self._failures = 0
        self._process = None
        self.instance = None
        if not self.wanted:
            self._move(Lifecycle.STOPPED, self.reason if asked else str(ended))
            return None
        self.restarts += 1
        if asked:
            self._move(Lifecycle.STOPPED, self.reason)
            return 0.0
        self._failures += 1
        self._move(Lifecycle.BACKING_OFF, str(ended))
        return 0.0 if was_ready and self._failures == 1 else self.delay()

    def delay(self) -> float:
        """Seconds until the next start after as many failures as there were."""
        grown: float = FIRST_DELAY * 2.0 ** min(self._failures - 1, 16)
        return min(LONGEST_DELAY, grown) * random.uniform(0.8, 1.0)  # noqa: S311  # jitter

    def healthy(self, ok: bool, reason: str) -> None:
        """Take what it says of itself."""
        if self.state not in RUNNING_STATES:
            return
        if ok:
            if self._ready_at is None:
                self._ready_at = time.monotonic()
            self._move(Lifecycle.READY, reason)
        elif self.state is not Lifecycle.STARTING:
            # While it loads, "not yet" is no illness.
            self._move(Lifecycle.UNHEALTHY, reason)

    def _move(self, state: Lifecycle, reason: str) -> None:
        if state is self.state and reason == self.reason:
            return
        if state is not self.state:
            self.since = datetime.now(UTC)
        self.state = state
        self.reason = reason
        self._on_change()
