"""Restores over REST: what reaches the one who makes them, and how each of their answers is told."""

from datetime import UTC, datetime

import pytest

from api.models import ProblemDetails
from api.restore_models import RestoreAnswer
from schemas.changes import ChangeAccepted, GroupAccepted, GroupRefused, OverriddenByEnvironment, ReadOnly, StaleVersion
from schemas.history import NotReached, Point
from schemas.plans import ChangePlan
from schemas.problems import ConfigInvalid, FieldError
from schemas.restores import Restored, UnknownEntries
from schemas.types import Revision, Version
from tests.api.conftest import READER, Running
from tests.api.fake_services import EPOCH

RESTORE = "/api/config/history/restore"
MOMENT = datetime(2026, 11, 20, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "point", "entries", "why"),
    [
        ({"service": "stt-worker", "version": 3}, Point(version=Version(3)), (), "restored version 3"),
        ({"revision": 17, "reason": "too loud"}, Point(revision=Revision(17)), (), "too loud"),
        ({"revision": 0}, Point(revision=Revision(0)), (), "restored revision 0"),
        (
            {"timestamp": "2026-11-20T09:00:00+01:00"},
            Point(moment=MOMENT),
            (),
            "restored what was in force at 2026-11-20T09:00:00+01:00",
        ),
        ({"service": "stt-worker", "history_entries": [7, 8, 7]}, None, (7, 8), "undid 2 entries of the history"),
        ({"service": "stt-worker", "history_entries": [7]}, None, (7,), "undid a change"),
    ],
)
async def test_what_is_asked_for_arrives(api: Running, body, point, entries, why):
    answer = await api.client.post(RESTORE, json=body, headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 200, answer.text
    ((wanted, only_plan),) = api.services.restores
    assert (wanted.service, wanted.point, wanted.entries) == (body.get("service"), point, entries)
    assert (wanted.why(), wanted.changed_by, wanted.request_id, only_plan) == (why, "write", "mine-1", False)
    assert wanted.address == "127.0.0.1"


async def test_what_came_of_it_is_told(api: Running):
    accepted = ChangeAccepted(5, EPOCH, 18, ("vad_threshold",), (), "Saved. It takes over.")
    api.services.restored = Restored(
        GroupAccepted(18, {"stt-worker": accepted}), (), {"stt-worker": ("gone",)}, {"stt-worker": ("key",)}
    )
    answer = (await api.client.post(RESTORE, json={"revision": 3})).json()
    RestoreAnswer.model_validate(answer)
    assert answer == {
        "revision": 18,
        "services": [
            {"service": "stt-worker", "version": 5, "config_epoch": EPOCH, "message": "Saved. It takes over."}
        ],
        "plans": [],
        "left_out": {"stt-worker": ["gone"]},
        "secrets_kept": {"stt-worker": ["key"]},
        "message": "Saved: stt-worker.",
    }


async def test_a_plan(api: Running):
    plan = ChangePlan("stt-worker", 1, EPOCH, (), (), (), "Not saved yet.")
    api.services.restored = Restored(GroupAccepted(None, {}), (plan,), {}, {})
    answer = (await api.client.post(f"{RESTORE}?plan=true", json={"revision": 3})).json()
    assert api.services.restores[0][1] is True
    assert (answer["plans"][0]["service"], answer["message"], answer["revision"]) == (
        "stt-worker",
        "Not saved yet.",
        None,
    )


@pytest.mark.parametrize(
    ("failure", "status", "code", "fields"),
    [
        (GroupRefused({"stt-worker": StaleVersion(1, 2, EPOCH, "r")}), 409, "stale-version", None),
        (
            GroupRefused(
                {
                    "stt-worker": ConfigInvalid([FieldError("volume", "Too loud.", "out_of_range")]),
                    "tts-worker": OverriddenByEnvironment(("volume",)),
                }
            ),
            422,
            "invalid",
            ["stt-worker.volume", "tts-worker"],
        ),
        (NotReached("from", "The history goes back to revision 9."), 422, "invalid", ["revision"]),
        (UnknownEntries("stt-worker", (7,)), 422, "invalid", ["history_entries"]),
        (ReadOnly("The disk is full."), 503, "read-only", None),
    ],
)
async def test_what_is_refused_says_why(api: Running, failure, status, code, fields):
    api.services.failure = failure
    answer = await api.client.post(RESTORE, json={"revision": 3})
    assert answer.status_code == status, answer.text
    problem = ProblemDetails.model_validate_json(answer.content)
    assert problem.type.rpartition(":")[2] == code
    assert [each.field for each in problem.errors or []] == (fields or [])


async def test_whoever_may_only_read_may_not_even_plan(api: Running):
    answer = await api.client.post(f"{RESTORE}?plan=true", json={"revision": 3}, headers={"X-API-Token": READER})
    assert answer.status_code == 403
