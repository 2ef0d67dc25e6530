"""Plans over REST: what reaches the actor, and how its answer is told."""

import pytest

from api.models import PlanAnswer, ProblemDetails
from schemas.plans import ChangePlan, PlannedKey, PlannedRestart
from schemas.problems import FieldError
from tests.api.conftest import READER, Running
from tests.api.fake_services import EPOCH

PLAN = "/api/config/services/stt-worker/plan"


def body(**changes):
    return {"service": "stt-worker", "config": {"log_level": "debug"}, "version": 1, **changes}


@pytest.mark.parametrize(
    ("media_type", "merge"), [("application/json", False), ("application/merge-patch+json; charset=utf-8", True)]
)
async def test_the_type_of_the_content_says_whether_it_is_a_patch(api: Running, media_type, merge):
    answer = await api.client.post(PLAN, json=body(), headers={"Content-Type": media_type, "X-API-Token": READER})
    assert answer.status_code == 200, answer.text
    assert PlanAnswer.model_validate_json(answer.content).valid
    (asked,) = api.services.plans
    assert (asked.service, dict(asked.config), asked.merge, asked.expected_version) == (
        "stt-worker",
        {"log_level": "debug"},
        merge,
        1,
    )
    assert api.services.changes == []
    assert api.services.versions["stt-worker"] == 1


async def test_everything_in_a_plan_is_told(api: Running):
    key = PlannedKey("log_level", "Log level", "info", "debug", True, False, "restart", False)
    api.services.planned = ChangePlan(
        "stt-worker", 1, EPOCH, (key,), (PlannedRestart("stt-worker", 1.5),), (), "It restarts."
    )
    answer = (await api.client.post(PLAN, json=body())).json()
    assert answer == {
        "service": "stt-worker",
        "version": 1,
        "config_epoch": EPOCH,
        "valid": True,
        "changes": [
            {
                "key": "log_level",
                "title": "Log level",
                "old": "info",
                "new": "debug",
                "old_is_default": True,
                "new_is_default": False,
                "apply": "restart",
                "is_secret": False,
            }
        ],
        "restarts": [{"service": "stt-worker", "last_away_s": 1.5}],
        "errors": [],
        "message": "It restarts.",
    }


async def test_what_would_be_refused_is_an_answer_and_no_error(api: Running):
    wrong = FieldError("log_level", "It must be one of debug, info.", "not_allowed")
    api.services.planned = ChangePlan("stt-worker", 1, EPOCH, (), (), (wrong,), "This would be refused.")
    answer = PlanAnswer.model_validate_json((await api.client.post(PLAN, json=body())).content)
    assert not answer.valid
    assert [(each.field, each.type) for each in answer.errors] == [("log_level", "not_allowed")]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"version": 7}, 409, "stale-version"),
        ({"service": "tts-worker"}, 400, "service-mismatch"),
        ({"config": 1}, 422, "invalid"),
        ({"colour": "red"}, 422, "invalid"),
    ],
)
async def test_a_request_that_says_nothing_sensible(api: Running, changes, status, code):
    answer = await api.client.post(PLAN, json=body(**changes))
    assert answer.status_code == status
    assert ProblemDetails.model_validate_json(answer.content).type.rpartition(":")[2] == code


async def test_an_unknown_service(api: Running):
    answer = await api.client.post("/api/config/services/sst-worker/plan", json=body(service="sst-worker"))
    assert (answer.status_code, "stt-worker" in answer.json()["detail"]) == (404, True)
