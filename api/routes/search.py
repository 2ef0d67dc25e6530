"""Finding settings."""

import asyncio
import time
from typing import Any, Final

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope

from api.bodies import invalid
from api.command_bodies import read_question
from api.documents import Answer, Content, Operation
from api.problems import quoted
from api.responses import Finished, json_answer
from api.routes._route import change
from api.search_models import SearchAnswer, SearchBody
from api.state import ApiState
from api.tokens import Identity
from schemas.problems import FieldError, did_you_mean
from schemas.search import MAX_WORDS, Found, Query, Result, Search, Steps, words_of
from schemas.states import Role

_SLICE: Final = 0.002
"""Seconds that a search may take before others have their turn."""

_ANSWER: Final = {
    "query": "speech treshold",
    "results": [
        {
            "service": "stt-worker",
            "key": "vad_threshold",
            "value": 0.5,
            "type": "float",
            "complexity": "simple",
            "description": "How sure it must be that somebody speaks.",
            "is_secret": False,
            "match_score": 0.475,
        }
    ],
    "total_count": 1,
}
SEARCH: Final = Operation(
    id="searchSettings",
    summary="Find settings",
    description=(
        "Looks for every word of `query` in key, title, description, help, value and service's name. A word that is found "
        "nowhere among the settings that pass the filters may be mistyped: one letter wrong, missing, too many or swapped "
        "from 4 letters on, two from 8 on, against words of key and title. A secret is never found by its value."
    ),
    tag="Configuration",
    role=Role.READ,
    body=Content(SearchBody, {"query": "speech treshold", "service_filter": "stt-worker", "max_results": 20}),
    answers={200: Answer("What was found.", Content(SearchAnswer, _ANSWER))},
)


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    services = state.board.services
    engine = Search()

    async def search(scope: Scope, receive: Receive, _: Identity) -> Finished:
        body = await read_question(scope, receive, state.limits, SearchBody)
        errors = []
        if (count := len(words_of(body.query))) > MAX_WORDS:
            errors.append(FieldError("query", f"It has {count} words; it can have {MAX_WORDS}.", "too_long"))
        name = body.service_filter
        if name is not None and name not in services:
            told = f"There is no service {quoted(name)}{did_you_mean(name, services) or '.'}"
            errors.append(FieldError("service_filter", told, "not_allowed"))
        if errors:
            raise invalid(errors)
        query = Query(
            body.query,
            service=name,
            complexity=body.complexity_filter,
            type=body.type_filter,
            changed_only=body.changed_only,
            simple=body.simple,
            max_results=body.max_results,
        )
        found = await _by_turns(engine.steps(query, services.values()))
        results = [_shown(each) for each in found.results]
        return json_answer({"query": body.query, "results": results, "total_count": found.total})

    return [change("POST", "/api/config/search", SEARCH, search, state.tokens)]


async def _by_turns(steps: Steps[Found]) -> Found:
    """Take `steps`, and let the loop do something else in between."""
    until = time.perf_counter() + _SLICE
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Found = end.value
            return found
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _SLICE


def _shown(result: Result) -> dict[str, Any]:
    field = result.field
    return {
        "service": result.service,
        "key": field.key,
        "value": result.value,
        "type": field.type,
        "complexity": field.complexity,
        "description": field.description,
        "is_secret": field.is_secret,
        "match_score": result.score,
    }
