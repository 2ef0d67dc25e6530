"""The workers: how they are, and what can be asked of them."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope

from actors import OutcomeUnknown
from api.command_bodies import read_command
from api.figures import FigureReader, ProcessKey, Readings
from api.problems import Problem, quoted
from api.responses import Finished, json_answer
from api.routes import _worker_documents as documents
from api.routes._route import change, waiting_read
from api.state import ApiState
from api.tokens import Identity
from api.worker_models import CommandBody, RestartAllBody
from schemas.problems import did_you_mean
from schemas.states import Lifecycle
from schemas.status import Outcome, ServiceStatus, Verb

# The service's name itself stands in the path.
_SERVICE = "/api/services/{service:str}"
_BROKER = "embedded-broker"
_PAST = {Verb.START: "Started", Verb.STOP: "Stopped", Verb.RESTART: "Restarted"}


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    calls = _Workers(state)
    commands = [
        change("POST", f"{_SERVICE}/{verb}", documents.COMMANDS[verb], calls.command(verb), state.tokens)
        for verb in Verb
    ]
    return [
        waiting_read("/api/services", documents.LIST, calls.all, state.tokens),
        waiting_read(_SERVICE, documents.GET, calls.one, state.tokens),
        *commands,
        # With its last part as a parameter: else a service may not be called `restart`.
        change("POST", _SERVICE, documents.RESTART_ALL, calls.restart_all, state.tokens),
    ]


def status_of(statuses: Mapping[str, ServiceStatus], scope: Scope) -> ServiceStatus:
    """The status of the service that the path names.

    Raises:
        Problem: 404, there is none.
    """
    name: str = scope["path_params"]["service"]
    status = statuses.get(name)
    if status is None:
        raise Problem("unknown-service", f"There is no service {quoted(name)}{did_you_mean(name, statuses) or '.'}")
    return status


class _Workers:
    def __init__(self, state: ApiState) -> None:
        self._state = state
        self._statuses = state.board.statuses
        self._figures = FigureReader()

    async def all(self, _: Scope, __: Identity) -> Finished:
        readings = await self._read()
        services = [_details(_brief(status), readings) for status in self._statuses.values()]
        return json_answer({"services": services, "internal": self._internal(readings)})

    async def one(self, scope: Scope, _: Identity) -> Finished:
        status_of(self._statuses, scope)
        readings = await self._read()
        # The board may have moved on meanwhile.
        return json_answer(_details(status_of(self._statuses, scope), readings))

    def command(self, verb: Verb) -> Any:
        """What answers the call that asks for `verb`."""

        async def command(scope: Scope, receive: Receive, identity: Identity) -> Finished:
            name = status_of(self._statuses, scope).service
            body = await read_command(scope, receive, self._state.limits, CommandBody)
            return await self._command(
                name, verb, identity, reason=body.reason, wait_s=body.wait_s, dependants=body.dependants
            )

        return command

    async def restart_all(self, scope: Scope, receive: Receive, identity: Identity) -> Finished:
        if scope["path_params"]["service"] != Verb.RESTART:
            allowed = "GET, HEAD, OPTIONS"
            raise Problem("method-not-allowed", f"This path allows {allowed}.", headers={"allow": allowed})
        body = await read_command(scope, receive, self._state.limits, RestartAllBody)
        return await self._command(
            None, Verb.RESTART, identity, reason=body.reason, wait_s=body.wait_s, rolling=body.rolling
        )

    async def _command(
        self,
        service: str | None,
        verb: Verb,
        identity: Identity,
        *,
        reason: str | None,
        wait_s: float,
        dependants: bool = False,
        rolling: bool = False,
    ) -> Finished:
        began = time.monotonic()
        try:
            outcome = await self._state.command(
                service, verb, dependants=dependants, rolling=rolling, by=identity.name, reason=reason, wait_s=wait_s
            )
        except OutcomeUnknown as error:
            where = f"/api/services/{service}" if service is not None else "/api/services"
            raise Problem("outcome-unknown", f"It is not known what came of it: {error}. See GET {where}.") from error
        answer = {
            "done": outcome.done,
            "took_s": round(time.monotonic() - began, 4),
            "message": _message(verb, outcome),
            "services": [_brief(status).model_dump(mode="json") for status in outcome.services],
            "trouble": outcome.trouble,
            "untouched": outcome.untouched,
        }
        return json_answer(answer, status=200 if outcome.done else 202)

    async def _read(self) -> Readings:
        processes = {key: None for status in self._statuses.values() if (key := _key(status)) is not None}
        if (broker := self._broker()) is not None:
            processes[broker] = None
        return await self._figures.read(processes) if processes else {}

    def _broker(self) -> ProcessKey | None:
        pid = self._state.broker_pid() if self._state.broker_pid is not None else None
        return ProcessKey("", pid) if pid is not None else None

    def _internal(self, readings: Readings) -> list[dict[str, Any]]:
        told = self._state.board.components.get("broker")
        if self._state.broker_pid is None or told is None:
            return []
        key = self._broker()
        running = Lifecycle.READY if told.ok else Lifecycle.STARTING
        return [
            {
                "service": _BROKER,
                "kind": "internal",
                "state": running if key is not None else Lifecycle.BACKING_OFF,
                "since": told.since,
                "reason": told.detail,
                "process": _process(key, None, readings),
            }
        ]


def _message(verb: Verb, outcome: Outcome) -> str:
    names = ", ".join(status.service for status in outcome.services) or "nothing"
    if outcome.done:
        return f"{_PAST[verb]}: {names}."
    troubles = [f"{name}: {why}" for name, why in outcome.trouble.items()]
    return f"To {verb} {names} has not come true yet. {'; '.join(troubles)}".rstrip()


def _brief(status: ServiceStatus) -> ServiceStatus:
    """Without the last lines of its ends, which are far larger than all the rest."""
    if not status.ends:
        return status
    return status.model_copy(update={"ends": tuple(end.model_copy(update={"last_lines": ()}) for end in status.ends)})


def _details(status: ServiceStatus, readings: Readings) -> dict[str, Any]:
    return {**status.model_dump(mode="json"), "process": _process(_key(status), status.started_at, readings)}


def _key(status: ServiceStatus) -> ProcessKey | None:
    return ProcessKey(status.instance or "", status.pid) if status.pid is not None else None


def _process(key: ProcessKey | None, started_at: datetime | None, readings: Readings) -> dict[str, Any] | None:
    if key is None:
        return None
    found = readings.get(key)
    uptime = None if started_at is None else max(0.0, round((datetime.now(UTC) - started_at).total_seconds(), 3))
    return {
        "pid": key.pid,
        "uptime_s": uptime,
        "cpu_s": found.cpu_s if found else None,
        "cpu_percent": found.cpu_percent if found else None,
        "memory": found.memory if found else None,
        "memory_kind": found.memory_kind if found else None,
        "fds": found.fds if found else None,
        "threads": found.threads if found else None,
    }
