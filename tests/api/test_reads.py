"""What is read: bodies, ETags, 304, HEAD, and what caches are told."""

from datetime import UTC, datetime, timedelta

import pytest

from api.csrf import CsrfTokens
from api.models import CsrfToken, DetailedHealth, Me, ServiceConfig, ServiceList
from schemas.health import ComponentHealth, HealthReport
from tests.api.conftest import ADMIN, READER, WRITER, Running
from tests.api.fake_services import EPOCH

SERVICE = "/api/config/services/stt-worker"


async def test_health_needs_no_token_and_says_what_the_board_says(api: Running):
    api.services.board.health = HealthReport(ok=False, event="store away", err="disk full")
    answer = await api.client.get("/health", headers={"X-API-Token": ""})
    assert answer.status_code == 200
    assert HealthReport.model_validate_json(answer.content) == api.services.board.health
    assert answer.headers["cache-control"] == "no-store"


async def test_detailed_health_adds_the_components(api: Running):
    component = ComponentHealth(ok=True, detail="connected", since=datetime.now(UTC), address="mqtt://127.0.0.1:1")
    api.services.board.components["bridge"] = component
    answer = await api.client.get("/api/config/health")
    assert DetailedHealth.model_validate_json(answer.content).components == {"bridge": component}
    assert answer.json()["event"] == "starting"


@pytest.mark.parametrize(
    ("token", "name", "permissions"),
    [
        (READER, "read", ["config.read"]),
        (WRITER, "write", ["config.read", "config.write"]),
        (ADMIN, "admin", ["config.read", "config.write", "admin"]),
    ],
)
async def test_me(api: Running, token, name, permissions):
    answer = await api.client.get("/api/config/me", headers={"X-API-Token": token})
    me = Me.model_validate_json(answer.content)
    assert (me.name, list(me.permissions), me.role) == (name, permissions, permissions[-1])


async def test_a_csrf_token_verifies_for_whom_it_was_issued_until_it_ends(api: Running):
    answer = await api.client.get("/api/config/csrf-token")
    issued = CsrfToken.model_validate_json(answer.content)
    assert answer.headers["cache-control"] == "no-store"
    # Another object with the same key: as after a restart.
    tokens = CsrfTokens(api.state.csrf_key)
    before, after = issued.expires_at - timedelta(seconds=1), issued.expires_at
    assert tokens.verify(issued.csrf_token, "write", before)
    assert not tokens.verify(issued.csrf_token, "write", after)
    assert not tokens.verify(issued.csrf_token, "admin", before)
    assert not CsrfTokens(b"x" * 32).verify(issued.csrf_token, "write", before)
    expires, _, seal = issued.csrf_token.partition(".")
    assert not tokens.verify(f"{int(expires) + 1}.{seal}", "write", before)
    assert not tokens.verify("", "write", before)


async def test_the_list_of_services_keeps_its_order(api: Running):
    answer = await api.client.get("/api/config/services")
    assert ServiceList.model_validate_json(answer.content).services == ["stt-worker", "tts-worker"]
    assert answer.headers["cache-control"] == "no-store"


async def test_a_configuration_comes_with_its_etag(api: Running):
    answer = await api.client.get(SERVICE)
    view = api.services.board.services["stt-worker"]
    assert answer.content == view.full.body
    assert answer.headers["etag"] == view.full.etag
    assert answer.headers["cache-control"] == "private, no-cache"
    config = ServiceConfig.model_validate_json(answer.content)
    assert (config.service, config.version, config.config_epoch, config.fields) == ("stt-worker", 1, EPOCH, [])


@pytest.mark.parametrize("query", ["include_fields=false", "include_fields=0", "x=1&include_fields=FALSE&y"])
async def test_fields_can_be_left_out(api: Running, query):
    answer = await api.client.get(f"{SERVICE}?{query}")
    view = api.services.board.services["stt-worker"]
    assert (answer.content, answer.headers["etag"]) == (view.short.body, view.short.etag)
    again = await api.client.get(f"{SERVICE}?{query}", headers={"If-None-Match": view.short.etag})
    assert again.status_code == 304
    other = await api.client.get(f"{SERVICE}?{query}", headers={"If-None-Match": view.full.etag})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "query", ["include_fields=true", "include_fields=1", "stray=1", "include_fieldz=false", "&&=&"]
)
async def test_stray_parameters_change_nothing(api: Running, query):
    assert (await api.client.get(f"{SERVICE}?{query}")).content == api.services.board.services["stt-worker"].full.body


async def test_a_wrong_include_fields_is_told(api: Running):
    answer = await api.client.get(f"{SERVICE}?include_fields=perhaps")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "include_fields"


@pytest.mark.parametrize(
    "field",
    ["{etag}", "W/{etag}", '"a", {etag}', '"a",, W/{etag} ,"b"', "*", ",{etag},"],
)
async def test_if_none_match_that_matches_is_304(api: Running, field):
    etag = (await api.client.get(SERVICE)).headers["etag"]
    answer = await api.client.get(SERVICE, headers={"If-None-Match": field.format(etag=etag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "x-request-id" in answer.headers
    # It would be that of the content which is left out (RFC 9110, section 8.6).
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("field", ['"a"', "", "{bare}", '"a" {etag}', "w/{etag}", '"*"', "*, {etag}"])
async def test_if_none_match_that_does_not_match_is_200(api: Running, field):
    etag = (await api.client.get(SERVICE)).headers["etag"]
    field = field.format(etag=etag, bare=etag.strip('"'))
    assert (await api.client.get(SERVICE, headers={"If-None-Match": field})).status_code == 200


async def test_several_if_none_match_fields_count_as_one(api: Running):
    etag = (await api.client.get(SERVICE)).headers["etag"]
    headers = [("X-API-Token", WRITER), ("If-None-Match", '"a"'), ("If-None-Match", etag)]
    assert (await api.client.get(SERVICE, headers=headers)).status_code == 304


async def test_a_change_changes_the_etag(api: Running):
    etag = (await api.client.get(SERVICE)).headers["etag"]
    change = {"service": "stt-worker", "config": {"log_level": "debug"}, "version": 1}
    assert (await api.client.put(SERVICE, json=change)).status_code == 200
    answer = await api.client.get(SERVICE, headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.json()["config"]["log_level"] == "debug"


@pytest.mark.parametrize(
    "path",
    ["/health", "/api/config/health", "/api/config/me", "/api/config/services", SERVICE, "/schema", "/docs"],
)
async def test_head_is_get_without_content(api: Running, path):
    get, head = await api.client.get(path), await api.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers.get(name) == get.headers.get(name)


async def test_head_of_an_error_has_its_status_and_no_content(api: Running):
    answer = await api.client.head("/api/config/services/nobody")
    assert (answer.status_code, answer.content) == (404, b"")
    assert (await api.client.head("/health", headers={"Host": "evil.example"})).status_code == 421


@pytest.mark.parametrize(
    ("wrong", "hint"), [("stt-wroker", 'did you mean "stt-worker"?'), ("x" * 200, "…"), ("a%00b", "")]
)
async def test_an_unknown_service_is_404_with_a_suggestion(api: Running, wrong, hint):
    answer = await api.client.get(f"/api/config/services/{wrong}")
    assert answer.status_code == 404
    assert answer.json()["type"].endswith(":unknown-service")
    assert hint in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 200


async def test_a_service_that_is_new_on_the_board_is_there_at_once(api: Running):
    api.services.board.services["echo"] = api.services.board.services["stt-worker"]
    assert (await api.client.get("/api/config/services/echo")).status_code == 200
    del api.services.board.services["echo"]
    assert (await api.client.get("/api/config/services/echo")).status_code == 404
