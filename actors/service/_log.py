"""What happened to a service and its worker, told to people: one short line each, at the place where the fact is known."""

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

from actors.service import _events as ev
from actors.service._lifecycle import Life
from schemas.states import RUNNING_STATES, Lifecycle


class ServiceLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the service's name in front of each line, and beside it as the field `service`."""

    def __init__(self, logger: logging.Logger, service: str) -> None:
        super().__init__(logger, {"service": service})
        self._service = service

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """See `logging.LoggerAdapter`. A service's name has no `%`."""
        kwargs["extra"] = self.extra
        return f"{self._service}: {msg}", kwargs


class LifeLog:
    """Says what has become of a worker, by the event that did it."""

    def __init__(self, log: ServiceLog) -> None:
        self.warning = log.warning
        self.error = log.error
        self._info = log.info

    def told(self, event: ev.Event, before: Lifecycle, life: Life, actions: Iterable[ev.Action], *, new: bool) -> None:
        """Tell what an event has changed. `before` was the state; `new`: there is a process now and was none."""
        if new:
            self._new(event, life)
        match event:
            case ev.Renew() if self._ends(before, life):
                told = event.reason
                self._info(
                    "restarts%s", told.removeprefix("restarted") if told.startswith("restarted") else f": {told}"
                )
            case ev.Close() | ev.Stop() | ev.Restart() if self._ends(before, life):
                self._info("asked to end: %s", life.reason)
            case ev.Condemned() | ev.Due() if self._ends(before, life):
                self.warning("is ended: %s", life.reason)
            case ev.Ready() if life.state is Lifecycle.READY and before is not Lifecycle.READY:
                self._info("ready" if before is Lifecycle.STARTING else "healthy again")
            case ev.Unhealthy() if life.state is Lifecycle.UNHEALTHY and before is not Lifecycle.UNHEALTHY:
                self.warning("unhealthy: %s", event.reason)
            case ev.SpawnFailed() if life.instance is None and before in {Lifecycle.STARTING, Lifecycle.STOPPING}:
                self._not_spawned(event, life)
            case ev.Ended() if life.instance is None:
                self._ended(event.how, before, life)
            case ev.TreeGone() if life.instance is None:
                self._ended("all that it left is gone", before, life)
        for action in actions:
            if isinstance(action, ev.KillTree):
                self._killed(event, action)

    def _new(self, event: ev.Event, life: Life) -> None:
        reason = event.reason if isinstance(event, ev.Adopted) else life.reason
        self._info("%s, pid %s (%s)", "adopted" if isinstance(event, ev.Adopted) else "started", life.pid, reason)

    def _not_spawned(self, event: ev.SpawnFailed, life: Life) -> None:
        reason = event.reason.removeprefix("it ")
        if life.state is Lifecycle.STOPPED:
            return
        if life.state is Lifecycle.FAILED:
            self.error("%s; it is tried again when it is asked for, or its configuration changes", reason)
        else:
            self.error("%s; tried again %s", reason, _when(life))

    def _ended(self, how: str, before: Lifecycle, life: Life) -> None:
        match life.state:
            case Lifecycle.FAILED:
                self.error("has failed: %s", life.reason)
            case Lifecycle.EXITED:
                self._info("has finished (%s)", how)
            case _ if before is Lifecycle.STOPPING and life.state is not Lifecycle.BACKING_OFF:
                self._info("ended (%s)", how)
            case Lifecycle.STOPPED:
                self._info("ended (%s)", how)
            case _:
                self.warning("%s; it is started again %s", how, _when(life))

    def _killed(self, event: ev.Event, action: ev.KillTree) -> None:
        if isinstance(event, ev.Hurry):
            self.warning("killed: the supervisor was asked a second time to stop")
        elif isinstance(event, ev.Due):
            self.warning("killed, since %s", action.reason)
        else:
            self.warning("killed: %s", action.reason)

    @staticmethod
    def _ends(before: Lifecycle, life: Life) -> bool:
        return before in RUNNING_STATES and life.state is Lifecycle.STOPPING


def in_seconds(delay: float) -> str:
    """Say when, for a person."""
    return f"in {delay:.1f} s" if delay else "at once"


def why(error: Exception) -> str:
    """Say what went wrong, for a person."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'} cannot be used: {error.strerror}"
    return str(error)


def _when(life: Life) -> str:
    return in_seconds(0.0 if life.due is None else max(0.0, life.due - life.since.steady))
