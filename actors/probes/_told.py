"""Probes that ask nobody: they go by what the worker says, or by the clock."""

import asyncio
from typing import ClassVar

from actors.probes._probe import MAX_TEXT, Count, OnResult, Probe, aligned
from schemas.manifest import DelayProbe, HealthTopicProbe, LogLineProbe

MAX_LINE = 1024
"""Characters of a line in which a pattern is looked for."""


class HealthTopic(Probe):
    """The last report on the health topic. It counts when it comes, and again after each interval until there is a verdict."""

    def __init__(self, spec: HealthTopicProbe, on_result: OnResult) -> None:
        super().__init__(on_result)
        self._spec = spec
        self._report: tuple[bool, str] | None = None
        self._since = 0.0
        self._count: Count | None = None

    def start(self) -> None:
        self._since = asyncio.get_running_loop().time()
        self._count = Count(
            successes=self._spec.success_threshold,
            failures=self._spec.failure_threshold,
            start_until=self._since + (self._spec.start_period or 0.0),
        )
        if self._spec.stale_after is not None:
            self._at(aligned(self._since, self._spec.stale_after), self._look)

    def heard(self, ok: bool, text: str) -> None:
        if self._on_result is not None and self._count is not None:
            self._report = ok, text
            self._since = asyncio.get_running_loop().time()
            self._look()

    def _look(self) -> None:
        assert self._count is not None
        now, stale_after = asyncio.get_running_loop().time(), self._spec.stale_after
        outcome = self._report
        if stale_after is not None and now >= self._since + stale_after:
            outcome = False, f"it has said nothing on its health topic for {stale_after:g} s"
        settled = outcome is None or self._count.take(outcome[0], now)
        if outcome is not None and settled:
            self._say(*outcome)
        if self._on_result is None:
            return
        if not settled:
            self._at(aligned(now, self._spec.interval), self._look)
        elif stale_after is not None and (outcome is None or outcome[0]):
            self._at(aligned(now, self._since + stale_after - now), self._look)
        else:
            self._at(None)


class LogLine(Probe):
    """A line of output in which the pattern is found. Readiness alone: once found it is found."""

    listens = True

    def __init__(self, spec: LogLineProbe, on_result: OnResult) -> None:
        super().__init__(on_result)
        self._found_in = spec.finder()

    def line(self, line: str) -> None:
        if self.listens and self._found_in(line[:MAX_LINE]):
            self.listens = False
            self._say(True, f"it wrote: {line}"[:MAX_TEXT])

    def stop(self) -> None:
        self.listens = False
        super().stop()


class Notify(Probe):
    """`READY=1` on the notify socket, see `NotifySocket`."""

    def notified_ready(self, text: str) -> None:
        self._say(True, text or "ready")


class Delay(Probe):
    """It has run for so long."""

    def __init__(self, spec: DelayProbe, on_result: OnResult) -> None:
        super().__init__(on_result)
        self._after = spec.after

    def start(self) -> None:
        self._at(asyncio.get_running_loop().time() + self._after, self._over)

    def _over(self) -> None:
        self._say(True, f"it has run for {self._after:g} s")


class Nothing(Probe):
    """It runs, and nothing else is asked."""

    text: ClassVar = "running"

    def start(self) -> None:
        self._at(asyncio.get_running_loop().time(), lambda: self._say(True, self.text))
