"""POST /api/config/search."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from actors import ServiceView
from api.models import ProblemDetails
from api.routes import search as route
from api.search_models import SearchAnswer
from schemas.records import SECRET_MARK
from schemas.search import Found
from schemas.service_schema import ServiceSchema
from tests.api.conftest import READER, Running
from tests.api.fake_services import EPOCH, representation

SEARCH = "/api/config/search"


class Lamp(BaseModel):
    brightness: int = Field(80, description="How bright it is.")
    night: int = Field(10, json_schema_extra={"x-complexity": "advanced"})
    api_key: SecretStr | None = None


def put_lamp(api: Running, **values: Any) -> None:
    """A service of its own, as it runs now."""
    schema = ServiceSchema("lamp", Lamp)
    shown = {**dict.fromkeys(schema.keys), **schema.defaults(), **values}
    empty = representation(b"")
    api.services.board.services["lamp"] = ServiceView("lamp", 1, EPOCH, empty, empty, schema, lambda: shown)


async def search(api: Running, **body: Any) -> SearchAnswer:
    answer = await api.client.post(SEARCH, json=body, headers={"X-API-Token": READER})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return SearchAnswer.model_validate_json(answer.content)


async def test_what_a_result_says(api: Running):
    put_lamp(api, brightness=55)
    answer = await api.client.post(SEARCH, json={"query": "Brightness"})
    assert answer.json() == {
        "query": "Brightness",
        "results": [
            {
                "service": "lamp",
                "key": "brightness",
                "value": 55,
                "type": "integer",
                "complexity": "simple",
                "description": "How bright it is.",
                "is_secret": False,
                "match_score": 1.0,
            }
        ],
        "total_count": 1,
    }


async def test_a_change_is_found_at_once(api: Running):
    assert (await search(api, query="0.75")).total_count == 0
    change = {"service": "tts-worker", "config": {"vad_threshold": 0.75}, "version": 1}
    assert (await api.client.patch("/api/config/services/tts-worker", json=change)).status_code == 200
    (result,) = (await search(api, query="0.75")).results
    assert (result.service, result.key, result.value) == ("tts-worker", "vad_threshold", 0.75)
    changed = await search(api, query="", changed_only=True)
    assert [(each.service, each.key) for each in changed.results] == [("tts-worker", "vad_threshold")]


async def test_a_secret_shows_its_mask_and_is_not_found_by_it(api: Running):
    put_lamp(api, api_key=SECRET_MARK)
    (result,) = (await search(api, query="api key")).results
    assert (result.value, result.is_secret, result.type) == (SECRET_MARK, True, "secret")
    assert (await search(api, query=SECRET_MARK)).total_count == 0
    put_lamp(api)
    assert (await search(api, query="api key")).results[0].value is None


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ({"service_filter": "lamp"}, ["brightness", "night", "api_key"]),
        ({"service_filter": "lamp", "complexity_filter": "advanced"}, ["night"]),
        ({"service_filter": "lamp", "type_filter": "secret"}, ["api_key"]),
        ({"service_filter": "lamp", "simple": True}, ["brightness", "api_key"]),
        ({"service_filter": "lamp", "changed_only": True}, []),
        ({"service_filter": None, "complexity_filter": None, "type_filter": "float"}, ["vad_threshold"] * 2),
    ],
)
async def test_filters(api: Running, filters, keys):
    put_lamp(api)
    answer = await search(api, query="", **filters)
    assert [each.key for each in answer.results] == keys
    assert answer.total_count == len(keys)


async def test_what_is_not_shown_is_counted(api: Running):
    answer = await search(api, query="", max_results=3)
    assert [(each.service, each.key) for each in answer.results] == [
        ("stt-worker", "vad_threshold"),
        ("stt-worker", "sample_rate"),
        ("tts-worker", "vad_threshold"),
    ]
    assert answer.total_count == 4


@pytest.mark.parametrize(
    ("body", "field", "type_"),
    [
        ({}, "query", "missing"),
        ({"query": None}, "query", "wrong_type"),
        ({"query": "a" * 201}, "query", "too_long"),
        ({"query": " ".join(map(str, range(17)))}, "query", "too_long"),
        ({"query": "", "service_filter": "stt-wroker"}, "service_filter", "not_allowed"),
        ({"query": "", "complexity_filter": "hard"}, "complexity_filter", "not_allowed"),
        ({"query": "", "type_filter": "number"}, "type_filter", "not_allowed"),
        ({"query": "", "max_results": 0}, "max_results", "out_of_range"),
        ({"query": "", "max_results": 201}, "max_results", "out_of_range"),
        ({"query": "", "max_results": 1.5}, "max_results", "wrong_type"),
        ({"query": "", "max_results": True}, "max_results", "wrong_type"),
        ({"query": "", "simple": "yes"}, "simple", "wrong_type"),
        ({"query": "", "changed": True}, "changed", "unknown_key"),
        ([], "", "wrong_type"),
    ],
)
async def test_what_is_wrong_is_told(api: Running, body, field, type_):
    answer = await api.client.post(SEARCH, json=body)
    assert answer.status_code == 422, answer.text
    problem = ProblemDetails.model_validate_json(answer.content)
    assert problem.errors is not None
    assert [(each.field, each.type) for each in problem.errors] == [(field, type_)]


async def test_the_service_that_was_meant_is_named(api: Running):
    answer = await api.client.post(SEARCH, json={"query": "", "service_filter": "stt-wroker"})
    assert 'did you mean "stt-worker"?' in answer.json()["detail"]


async def test_there_has_to_be_a_content_of_a_known_type(api: Running):
    assert (await api.client.post(SEARCH)).status_code == 415
    assert (await api.client.post(SEARCH, headers={"Content-Type": "application/json"})).status_code == 400
    assert (
        await api.client.post(
            SEARCH, content=b'{"query": "a", "query": "b"}', headers={"Content-Type": "application/json"}
        )
    ).status_code == 400
    assert (await api.client.get(SEARCH)).status_code == 405


async def test_as_many_words_as_are_allowed(api: Running):
    assert (await search(api, query=" ".join("abcdefghijklmnop"))).total_count == 0
    # One character may become several words; what is folded counts.
    assert (await search(api, query="ﷺ" * 200)).total_count == 0


async def test_others_have_their_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(route, "_SLICE", 0)
    turns = []

    def steps() -> Iterator[None]:
        for number in range(5):
            asyncio.get_running_loop().call_soon(turns.append, number)
            yield
            assert turns == list(range(number + 1))
        return Found((), 0)

    assert (await route._by_turns(steps())).total == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(query=st.text(st.characters(codec="utf-8"), max_size=220), simple=st.booleans())
async def test_any_query_gets_an_answer(api: Running, query, simple):
    answer = await api.client.post(SEARCH, json={"query": query, "simple": simple})
    assert answer.status_code in {200, 422}
    if answer.status_code == 200:
        assert answer.json()["query"] == query
