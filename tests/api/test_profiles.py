"""Profiles over REST: what reaches the one who keeps them, and how each of the answers is told."""

from urllib.parse import quote

import pytest

from actors import OutcomeUnknown
from api.models import ProblemDetails
from api.profile_models import ActivationAnswer, ProfileAnswer, ProfileDeleted, ProfileEntry, ProfileList
from api.routes._profile_documents import SECRETS_STAY
from schemas.changes import ChangeAccepted, GroupAccepted, GroupRefused, ReadOnly
from schemas.plans import ChangePlan
from schemas.problems import ConfigInvalid, FieldError
from schemas.profiles import (
    Activated,
    Author,
    ProfileExists,
    ServiceGone,
    TooManyProfiles,
    UnknownProfile,
    profile_name,
)
from schemas.records import StoreUnavailable
from tests.api.conftest import READER, Running, running, state_over
from tests.api.fake_profiles import FakeProfiles
from tests.api.fake_services import EPOCH, FakeServices

ALL = "/api/config/profiles"
AUTHOR = Author("write", "mine-1", "127.0.0.1")
ID = {"X-Request-ID": "mine-1"}


def fake(api: Running) -> FakeProfiles:
    profiles = api.state.profiles
    assert isinstance(profiles, FakeProfiles)
    return profiles


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"name": "  Evening "}, ("Evening", None, None, False, AUTHOR)),
        (
            {"name": "a. b", "description": "", "services": ["tts-worker", "tts-worker"], "replace": True},
            ("a. b", "", ["tts-worker"], True, AUTHOR),
        ),
        # What looks the same is the same.
        ({"name": "fu\u0308r \U0001f319"}, ("f\u00fcr \U0001f319", None, None, False, AUTHOR)),
    ],
)
async def test_what_is_to_be_saved_arrives(api: Running, body, asked):
    answer = await api.client.post(ALL, json=body, headers=ID)
    assert answer.status_code == 200, answer.text
    assert ProfileEntry.model_validate_json(answer.content).name == "Evening"
    assert fake(api).asked == [asked]


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 65, "a/b", "a\nb", "a\x00b", "a\u2028b", "\u202eb", ".", "..", "\u00a0 \t"]
)
async def test_a_name_that_is_none_is_refused(api: Running, name):
    with pytest.raises(ValueError, match="A profile"):
        profile_name(name)
    for method, path in (("POST", ALL), ("PUT", f"{ALL}/Evening")):
        answer = await api.client.request(method, path, json={"name": name})
        assert answer.status_code == 422, answer.text
        assert [each["field"] for each in answer.json()["errors"]] == ["name"]
    assert fake(api).asked == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["name"]),
        ({"name": 7}, ["name"]),
        ({"name": "a", "services": []}, ["services"]),
        ({"name": "a", "services": ["stt-wroker", "x"]}, ["services", "services"]),
        ({"name": "a", "replace": "yes"}, ["replace"]),
        ({"name": "a", "settings": {}}, ["settings"]),
    ],
)
async def test_a_body_that_is_wrong_is_told(api: Running, body, fields):
    answer = await api.client.post(ALL, json=body)
    assert answer.status_code == 422, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == fields
    assert fake(api).asked == []


@pytest.mark.parametrize("name", ["Evening", "a b", "100%", "für 🌙", "activate", "a+b?c#d"])
async def test_the_path_names_it(api: Running, name):
    path = f"{ALL}/{quote(name, safe='')}"
    ProfileAnswer.model_validate_json((await api.client.get(path, headers=ID)).content)
    ProfileEntry.model_validate_json(
        (await api.client.put(path, json={"description": "", "name": " Late "}, headers=ID)).content
    )
    ActivationAnswer.model_validate_json((await api.client.put(f"{path}/activate", headers=ID)).content)
    ProfileDeleted.model_validate_json((await api.client.delete(path, headers=ID)).content)
    shown, changed, (activated, only_plan), deleted = fake(api).asked
    assert shown == deleted == (name, AUTHOR)
    assert (changed.name, changed.new_name, changed.description, changed.author) == (name, "Late", "", AUTHOR)
    assert (activated.name, activated.author, only_plan) == (name, AUTHOR, False)


async def test_a_change_of_nothing_is_refused(api: Running):
    answer = await api.client.put(f"{ALL}/Evening", json={})
    assert answer.status_code == 422
    assert fake(api).asked == []


async def test_a_path_that_can_be_no_profile(api: Running):
    answer = await api.client.get(f"{ALL}/{'x' * 65}")
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (404, "unknown-profile")
    assert fake(api).asked == []


async def test_the_list(api: Running):
    answer = await api.client.get(ALL)
    (only,) = ProfileList.model_validate_json(answer.content).profiles
    assert (only.name, only.services, only.created_by, only.updated_by) == (
        "Evening",
        ["stt-worker"],
        "owner",
        "guest",
    )


async def test_what_came_of_an_activation_is_told(api: Running):
    accepted = ChangeAccepted(5, EPOCH, 18, ("vad_threshold",), (), "Saved. It takes over.")
    fake(api).activated = Activated(
        GroupAccepted(18, {"stt-worker": accepted}), (), {"stt-worker": ("gone",)}, ("old",), refused=False
    )
    answer = await api.client.put(f"{ALL}/Evening/activate", json={"reason": "late", "drop_unknown": True})
    ActivationAnswer.model_validate_json(answer.content)
    assert answer.json() == {
        "revision": 18,
        "services": [
            {"service": "stt-worker", "version": 5, "config_epoch": EPOCH, "message": "Saved. It takes over."}
        ],
        "plans": [],
        "unknown_keys": {"stt-worker": ["gone"]},
        "unknown_services": ["old"],
        "message": f"Saved: stt-worker. {SECRETS_STAY}",
    }
    ((wanted, _),) = fake(api).asked
    assert (wanted.drop_unknown, wanted.why()) == (True, "activated profile Evening: late")


@pytest.mark.parametrize(("refused", "words"), [(True, "This would be refused"), (False, "Not saved yet")])
async def test_a_plan(api: Running, refused, words):
    errors = (FieldError("gone", "unknown key", "unknown_key"),) if refused else ()
    plan = ChangePlan("stt-worker", 1, EPOCH, (), (), errors, "")
    fake(api).activated = Activated(GroupAccepted(None, {}), (plan,), {}, (), refused=refused)
    answer = await api.client.put(f"{ALL}/Evening/activate?plan=true")
    assert answer.status_code == 200, answer.text
    assert fake(api).asked[0][1] is True
    assert answer.json()["plans"][0]["valid"] is not refused
    assert answer.json()["message"].startswith(words)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (UnknownProfile("Evening"), 404, "unknown-profile"),
        (ProfileExists("Evening"), 409, "profile-exists"),
        (ReadOnly("The disk is full."), 503, "read-only"),
        (StoreUnavailable("The disk is gone", "locked"), 503, "busy"),
        (OutcomeUnknown("timeout"), 504, "outcome-unknown"),
    ],
)
async def test_what_is_refused_says_why(api: Running, failure, status, code):
    fake(api).failure = failure
    answer = await api.client.put(f"{ALL}/Evening", json={"name": "Late"})
    assert answer.status_code == status, answer.text
    assert ProblemDetails.model_validate_json(answer.content).type.rpartition(":")[2] == code


async def test_there_is_no_room(api: Running):
    fake(api).failure = TooManyProfiles()
    answer = await api.client.post(ALL, json={"name": "Late"})
    assert (answer.status_code, "There are 100 profiles" in answer.json()["detail"]) == (409, True)


async def test_an_activation_that_is_refused_names_every_key(api: Running):
    fake(api).failure = GroupRefused(
        {"stt-worker": ConfigInvalid([FieldError("gone", "unknown", "unknown_key")]), "old-worker": ServiceGone()}
    )
    answer = await api.client.put(f"{ALL}/Evening/activate")
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == ["stt-worker.gone", "old-worker"]


async def test_whoever_may_only_read_may_look_and_no_more():
    async with running(state=state_over(FakeServices())) as api:
        reader = {"X-API-Token": READER}
        for path in (ALL, f"{ALL}/Evening"):
            assert (await api.client.get(path, headers=reader)).status_code == 200
        before = len(fake(api).asked)
        for method, path in (
            ("POST", ALL),
            ("PUT", f"{ALL}/Evening"),
            ("DELETE", f"{ALL}/Evening"),
            ("PUT", f"{ALL}/Evening/activate?plan=true"),
        ):
            assert (await api.client.request(method, path, headers=reader)).status_code == 403
        assert len(fake(api).asked) == before
