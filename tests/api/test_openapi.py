"""The document is whole, and the answers are as it says; the role that it names is the role that it takes."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

import actors.service
from api.bodies import ConfigChangeBody
from api.history_models import HistoryDifference, HistoryPage
from api.models import (
    ChangeAnswer,
    CsrfToken,
    DetailedHealth,
    FieldView,
    Me,
    PlanAnswer,
    ProblemDetails,
    ServiceConfig,
    ServiceList,
)
from api.problems import KINDS
from api.profile_models import (
    ActivateProfileBody,
    ActivationAnswer,
    ChangeProfileBody,
    ProfileAnswer,
    ProfileDeleted,
    ProfileEntry,
    ProfileList,
    SaveProfileBody,
)
from api.restore_models import RestoreAnswer, RestoreBody
from api.routes._service_documents import PUT
from api.search_models import SearchAnswer, SearchBody
from api.worker_models import (
    CommandAnswer,
    CommandBody,
    ReloadAnswer,
    RestartAllBody,
    ServiceDetails,
    ServiceDetailsList,
)
from schemas import services
from schemas.health import HealthReport
from schemas.service_schema import ServiceSchema
from schemas.states import PERMISSIONS, Role
from tests.api.conftest import TOKENS, Running

CHANGE = {"service": "stt-worker", "config": {}, "version": 1}
CALLS = [
    ("GET", "/health", None),
    ("GET", "/api/config/health", Role.READ),
    ("GET", "/api/config/me", Role.READ),
    ("GET", "/api/config/csrf-token", Role.READ),
    ("GET", "/api/config/services", Role.READ),
    ("GET", "/api/config/services/{service}", Role.READ),
    ("PUT", "/api/config/services/{service}", Role.WRITE),
    ("PATCH", "/api/config/services/{service}", Role.WRITE),
    ("POST", "/api/config/services/{service}/plan", Role.READ),
    ("POST", "/api/config/search", Role.READ),
    ("GET", "/api/config/history", Role.READ),
    ("GET", "/api/config/history/diff", Role.READ),
    ("POST", "/api/config/history/restore", Role.WRITE),
    ("GET", "/api/config/profiles", Role.READ),
    ("POST", "/api/config/profiles", Role.WRITE),
    ("GET", "/api/config/profiles/{name}", Role.READ),
    ("PUT", "/api/config/profiles/{name}", Role.WRITE),
    ("DELETE", "/api/config/profiles/{name}", Role.WRITE),
    ("PUT", "/api/config/profiles/{name}/activate", Role.WRITE),
    ("GET", "/api/services", Role.READ),
    ("GET", "/api/services/{service}", Role.READ),
    ("POST", "/api/services/{service}/start", Role.WRITE),
    ("POST", "/api/services/{service}/stop", Role.WRITE),
    ("POST", "/api/services/{service}/restart", Role.WRITE),
    ("POST", "/api/services/restart", Role.WRITE),
    ("POST", "/api/reload", Role.WRITE),
    ("GET", "/api/services/{service}/logs", Role.READ),
    ("GET", "/api/events", Role.READ),
    ("GET", "/schema", None),
    ("GET", "/docs", None),
]


async def document(api: Running) -> dict[str, Any]:
    answer = await api.client.get("/schema", headers={"X-API-Token": ""})
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method.upper(), path, each) for path, item in document["paths"].items() for method, each in item.items()]


async def send(api: Running, method: str, path: str, token: str):
    content = {"json": CHANGE} if method in {"PUT", "PATCH"} or path.endswith("/plan") else {}
    if path.endswith("/search"):
        content = {"json": {"query": "volume"}}
    if path.endswith("/restore"):
        content = {"json": {"revision": 1}}
    if path.endswith("/activate"):
        content = {"json": {}}
    elif "/profiles" in path and method in {"POST", "PUT"}:
        content = {"json": {"name": "Late"}}
    if path.endswith("/diff"):
        path += "?from=revision:1"
    path = path.format(service="stt-worker", name="Evening")
    async with api.client.stream(method, path, headers={"X-API-Token": token}, **content) as answer:
        # This one never ends.
        if path != "/api/events" or answer.status_code != 200:
            await answer.aread()
    return answer


async def test_every_call_of_the_contract_is_there_and_no_other(api: Running):
    assert {(method, path) for method, path, _ in operations(await document(api))} == {
        (method, path) for method, path, _ in CALLS
    }


@pytest.mark.parametrize(("method", "path", "role"), CALLS)
async def test_each_call_takes_its_role_and_no_less(api: Running, method, path, role):
    described = (await document(api))["paths"][path][method.lower()]
    assert described["security"] == ([] if role is None else [{"token": []}])
    for has, token in TOKENS.items():
        answer = await send(api, method, path, token)
        assert answer.status_code == (200 if role is None or role in PERMISSIONS[has] else 403), (has, answer.text)
        if answer.status_code == 403:
            assert role in answer.json()["detail"]
            assert has in answer.json()["detail"]
    assert (await send(api, method, path, "nobody's")).status_code == (200 if role is None else 401)


async def test_every_operation_is_described(api: Running):
    whole = await document(api)
    assert whole["openapi"].startswith("3.1.")
    assert whole["info"]["title"]
    assert whole["info"]["version"] == "1.2.3"
    assert whole["components"]["securitySchemes"]["token"] | {"description": ""} == {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Token",
        "description": "",
    }
    ids = [operation["operationId"] for _, _, operation in operations(whole)]
    assert len(set(ids)) == len(ids)
    for method, path, operation in operations(whole):
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"][0] in {tag["name"] for tag in whole["tags"]}
        statuses = set(operation["responses"])
        assert {"400", "421", "500", "503"} <= statuses
        assert any(status.startswith("2") for status in statuses)
        if operation["security"]:
            assert "401" in statuses
        if "requestBody" in operation:
            assert {"408", "413", "415", "422"} <= statuses
            # A search asks nobody; a profile is put in force whatever was there before.
            assert ({"409", "504"} <= statuses) == (not path.endswith(("/search", "/activate")))
            # Every token may read.
            assert ("403" in statuses) == (not path.endswith(("/plan", "/search")))
        assert ("404" in statuses) == ("{" in path)
        in_path = re.findall(r"{(\w+)}", path)
        parameters = operation.get("parameters", [])
        assert [each["name"] for each in parameters if each["in"] == "path"] == in_path
        assert all("example" in each and each["description"] and each["schema"] for each in parameters)
        for status, answer in operation["responses"].items():
            assert answer["description"]
            assert "X-Request-ID" in answer["headers"]
            for media_type, content in answer.get("content", {}).items():
                assert (media_type == "application/problem+json") == (int(status) >= 400), (method, path, status)
                assert content["schema"]
                assert "example" in content or content["examples"]


async def test_every_reference_leads_somewhere(api: Running):
    whole = await document(api)
    names = set(whole["components"]["schemas"])
    used = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(whole)))
    assert used <= names
    assert {"ProblemDetails", "ServiceConfig", "ConfigChangeBody", "HealthReport"} <= names
    assert "'$ref': '#/" in str(whole)
    assert not re.findall(r"'\$ref': '(?!#/components/schemas/)", str(whole))


async def test_the_examples_fit_their_models(api: Running):
    models = {
        model.__name__: model
        for model in (
            ConfigChangeBody, ChangeAnswer, CsrfToken, DetailedHealth, HealthReport, Me, ProblemDetails, ServiceConfig,
            PlanAnswer, ServiceList, ServiceDetails, ServiceDetailsList, CommandAnswer, CommandBody, ReloadAnswer, RestartAllBody,
            SearchAnswer, SearchBody, RestoreAnswer, RestoreBody, HistoryPage, HistoryDifference,
            ActivateProfileBody, ActivationAnswer, ChangeProfileBody, ProfileAnswer, ProfileDeleted, ProfileEntry, ProfileList,
            SaveProfileBody,
        )
    }  # fmt: skip
    for _, _, operation in operations(await document(api)):
        bodies = [*operation["responses"].values()]
        bodies += [operation["requestBody"]] if "requestBody" in operation else []
        for body in bodies:
            for content in body.get("content", {}).values():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                examples = [each["value"] for each in content.get("examples", {}).values()] or [content["example"]]
                for example in examples if name else []:
                    models[name].model_validate(example)


JSON_TYPES = {dict: "object", str: "string", list: "array"}


async def test_what_has_no_model_has_the_type_of_its_example(api: Running):
    found = 0
    for _, _, operation in operations(await document(api)):
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                if "$ref" not in content["schema"]:
                    assert content["schema"] == {"type": JSON_TYPES[type(content["example"])]}
                    found += 1
    assert found == 4
    assert isinstance(await document(api), dict)


async def test_answers_are_open_and_bodies_are_closed(api: Running):
    schemas = (await document(api))["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    assert closed == {
        "ConfigChangeBody", "CommandBody", "RestartAllBody", "RestoreBody", "SearchBody",
        "ActivateProfileBody", "ChangeProfileBody", "SaveProfileBody",
    }  # fmt: skip
    rollout = schemas["ChangeAnswer"]["properties"]["rollout"]
    assert {choice["type"] for choice in rollout["anyOf"]} == {"object", "null"}
    assert "rollout" in schemas["ChangeAnswer"]["required"]


def test_the_example_of_a_message_is_what_the_program_says():
    """The sentence is written where the service's actor is; only there."""
    example = PUT.answers[200].content.example["message"]
    sentence, _, keys = example.partition(": ")
    sources = Path(str(actors.service.__file__)).parent.glob("*.py")
    assert any(f"{sentence.removeprefix('Saved')[1:]}: " in source.read_text(encoding="utf-8") for source in sources)
    assert keys == "vad_threshold."


async def test_every_kind_of_problem_is_in_the_document(api: Running):
    text = str(await document(api))
    # Two that every path has without being a call of it.
    elsewhere = {"not-found", "method-not-allowed"}
    assert [code for code in KINDS if code not in elsewhere and f"problem:{code}'" not in text] == []


@pytest.mark.parametrize("path", ["/schema", "/docs"])
async def test_the_documentation_is_revalidated(api: Running, path):
    answer = await api.client.get(path)
    again = await api.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_page_needs_nothing_from_elsewhere_and_no_script(api: Running):
    answer = await api.client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.text
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!#|/schema)""", page)
    assert "url(" not in page
    for method, path, operation in operations(await document(api)):
        assert f'id="{operation["operationId"]}"' in page, (method, path)
        assert path in page
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page))
    # Every element that has to be closed is, and in order.
    open_elements: list[str] = []
    for closing, name in re.findall(r"<(/?)(html|head|body|details|summary|table|pre|code|span|h[1-4]|strong)\b", page):
        if closing:
            assert open_elements.pop() == name
        else:
            open_elements.append(name)
    assert open_elements == []


async def test_the_policy_allows_the_pages_style_and_no_other(api: Running):
    answer = await api.client.get("/docs")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert "style=" not in answer.text


@pytest.mark.parametrize("name", services.__all__)
def test_the_services_settings_are_described_as_the_document_says(name):
    schema = ServiceSchema("a-service", getattr(services, name))
    described = schema.describe(stored=(), environment={}, secrets_set=schema.secret_keys)
    assert described
    for field in described:
        FieldView.model_validate(field)
