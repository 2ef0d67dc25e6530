"""What a worker reports: the applied version, refused messages, a control signal that failed, its health."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from tars_config._link import Link
from tars_config._values import masked
from tars_config.reports import AppliedReport, WorkerHealth
from tars_config.wire import Refused

REFUSALS_EVERY_S = 1.0
MAX_ERROR_CHARS = 500

_log = logging.getLogger(__name__)


class Reporter:
    """Makes the reports and hands them to the link, which sees to their delivery; without a link they are kept.

    `secret_values` are looked up anew for each text that leaves the process.
    """

    def __init__(
        self,
        service: str,
        instance: str,
        *,
        health_topic: str,
        clock: Callable[[], datetime],
        secret_values: Callable[[], Iterable[str]],
    ) -> None:
        self._service = service
        self._instance = instance
        self.health_topic = health_topic
        self._clock = clock
        self._secret_values = secret_values
        self._refusals_told = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._restart_pending: dict[str, object] = {}
        self._errors: dict[str, str] = {}
        self._says_health = False
        self.link: Link | None = None
        self.last: AppliedReport | None = None
        self.refused: Counter[str] = Counter()

    def applied(self, config_epoch: str, version: int, *, error: str | None = None) -> None:
        """Report that this version runs, or how it failed."""
        self._note("version", error)
        self.last = AppliedReport(
            service=self._service,
            instance=self._instance,
            config_epoch=config_epoch,
            version=version,
            ok=error is None,
            applied_at=self._clock(),
            error=self._error(),
            restart_required=tuple(sorted(self._restart_pending)),
            refused=dict(self.refused),
        )
        self._publish(self.last)

    def given_out(self, config_epoch: str | None, version: int | None, *, error: str | None = None) -> None:
        """Report what the worker starts with, once; later versions are reported when they are applied."""
        if config_epoch is None or version is None:
            return  # nothing that a supervisor could match
        last = self.last
        recovered = last and not last.ok and (last.config_epoch, last.version) == (config_epoch, version)
        if last is None or error is not None or recovered:
            self.applied(config_epoch, version, error=error)

    def acted(self, *, error: str | None = None) -> None:
        """Report how the last control signal failed, beside whatever runs; with None, that it did not."""
        before = self._error()
        self._note("control", error)
        if self.last is not None and self._error() != before:
            self.last = self.last.model_copy(update={"error": self._error()})
            self._publish(self.last)

    def restarts(self, keys: Iterable[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Note keys that wait for a restart; one whose value is back to what the worker runs with waits no more."""
        for key in keys:
            self._restart_pending.setdefault(key, old.get(key))
        self._restart_pending = {
            key: running for key, running in self._restart_pending.items() if key not in new or new[key] != running
        }

    def refusal(self, refusal: Refused, what: str = "update") -> None:
        """Count a refused message; told in the log at 1, 2, 4, 8, ... and reported at most once a second."""
        self.refused[refusal.reason.value] += 1
        count = self.refused[refusal.reason.value]
        level = logging.WARNING if count & (count - 1) == 0 else logging.DEBUG
        _log.log(level, "%s: %s refused (number %d of this kind): %s", self._service, what, count, refusal)
        if self._timer is None:
            wait = max(0.0, self._refusals_told + REFUSALS_EVERY_S - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._tell_refusals)

    def health(self, ok: bool, event: str, err: str) -> None:
        """Publish health, and leave a last will that says `connection lost`."""
        if self.link is None:
            return
        self._says_health = True
        now = WorkerHealth(ok=ok, event=self.clean(event), err=self.clean(err))
        lost = WorkerHealth(ok=False, event="connection lost")
        self.link.leave_will(self.health_topic, lost.model_dump_json().encode())
        self.link.put(self.health_topic, now.model_dump_json().encode())

    def restarting(self) -> None:
        """Publish that the worker ends for a restart, if its health is its own affair."""
        if self._says_health:
            self.health(ok=False, event="restarting", err="")

    def clean(self, text: str) -> str:
        """Give a text fit to leave the process: no secret's value, not endless."""
        return masked(text, self._secret_values())[:MAX_ERROR_CHARS]

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._tell_refusals()

    def _note(self, about: str, error: str | None) -> None:
        self._errors.pop(about, None)
        if error is not None:
            self._errors[about] = self.clean(error)

    def _error(self) -> str | None:
        return "; ".join(self._errors.values()) or None

    def _tell_refusals(self) -> None:
        self._timer = None
        self._refusals_told = time.monotonic()
        if self.last is not None:
            self.last = self.last.model_copy(update={"refused": dict(self.refused)})
            self._publish(self.last)

    def _publish(self, report: AppliedReport) -> None:
        if self.link is not None:
            self.link.put(f"system/applied/{self._service}", report.model_dump_json().encode())
