"""Reading the manifest anew."""

from typing import Final

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope

from actors import OutcomeUnknown
from api.documents import Answer, Content, Operation, Parameter
from api.problems import Problem
from api.queries import Query
from api.responses import Finished, json_answer
from api.routes._route import change
from api.state import ApiState
from api.tokens import Identity
from api.worker_models import ReloadAnswer
from schemas.manifest import Change, Differences
from schemas.problems import FieldError
from schemas.states import Role
from schemas.status import ReloadRefused

_ANSWER = {
    "done": True,
    "message": "Done: router is restarted; stt-worker goes by other rules.",
    "services": [
        {"service": "stt-worker", "change": "policy", "keys": ["backoff"]},
        {"service": "router", "change": "restart", "keys": ["command"]},
        {"service": "tts-worker", "change": "unchanged", "keys": []},
    ],
    "concurrent_starts": False,
}
RELOAD: Final = Operation(
    id="reloadManifest",
    summary="Read the manifest anew",
    description=(
        "Compares it with what the supervisor goes by, and does what that asks for, as `services` tells: `added` ones get their "
        "settings and their worker, of `removed` ones the worker is ended and the settings are kept, those to `restart` are "
        "ended and started with what changed, those with another `policy` are left alone. It is answered when that is begun, "
        "and what is to end has ended. A manifest with a mistake changes nothing."
    ),
    tag="Workers",
    role=Role.WRITE,
    parameters=(
        Parameter(
            "plan", "query", "Only tell what would be done.", {"type": "boolean", "default": False}, example=True
        ),
    ),
    answers={200: Answer("What was done, or would be.", Content(ReloadAnswer, _ANSWER))},
    problems=("invalid", "outcome-unknown"),
)
_WORDS: Final = {
    Change.ADDED: "is new",
    Change.REMOVED: "has left",
    Change.RESTART: "is restarted",
    Change.POLICY: "goes by other rules",
}


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    async def reload(scope: Scope, _receive: Receive, _identity: Identity) -> Finished:
        query = Query(scope)
        only_plan = query.flag("plan", default=False)
        query.check()
        try:
            found = await state.reload(only_plan=only_plan)
        except ReloadRefused as refused:
            raise Problem(
                "invalid",
                "The manifest has mistakes, and nothing was changed. Mend them, and reload it again.",
                errors=[FieldError("manifest", line, "manifest") for line in refused.lines],
            ) from refused
        except OutcomeUnknown as error:
            raise Problem(
                "outcome-unknown", f"It is not known what came of it: {error}. See GET /api/services."
            ) from error
        return json_answer(
            {
                "done": not only_plan,
                "message": _message(found, only_plan=only_plan),
                "services": [
                    {"service": each.service, "change": each.change, "keys": each.keys} for each in found.services
                ],
                "concurrent_starts": found.concurrent_starts,
            }
        )

    return [change("POST", "/api/reload", RELOAD, reload, state.tokens)]


def _message(found: Differences, *, only_plan: bool) -> str:
    if found.nothing:
        return "Nothing is different."
    told = [f"{each.service} {_WORDS[each.change]}" for each in found.services if each.change in _WORDS]
    if found.concurrent_starts:
        told.append("another number of workers starts at a time")
    return f"{'To be done' if only_plan else 'Done'}: {'; '.join(told)}."
