"""The way back, through the real program: a version, a revision, a moment, single entries; planned first, all or nothing."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.system.program import Program

Make = Callable[..., Program]

MANIFEST = """
[services.tts-worker]
kind = "config-only"

[services.router]
kind = "config-only"
"""
SECRET = "c4nary-77b0e1d2cc"


@pytest.fixture
def supervised(program: Make) -> Program:
    """tts-worker: version 2 volume 40, 3 volume 60 and a secret, 4 another voice, 5 volume 80; router: 2 in between."""
    it = program(MANIFEST).start()
    for settings in ({"volume_percent": 40}, {"volume_percent": 60, "eleven_api_key": SECRET}):
        assert it.put("tts-worker", **settings).status_code == 200
    assert it.put("router", router_wake_ack_text="Ja?").status_code == 200
    assert it.put("tts-worker", piper_voice="de_DE-thorsten-medium").status_code == 200
    assert it.put("tts-worker", volume_percent=80).status_code == 200
    return it


def restore(supervised: Program, *, plan: bool = False, **body: Any) -> httpx.Response:
    with supervised.client() as client:
        return client.post("/api/config/history/restore", params={"plan": str(plan).lower()}, json=body)


def entries(supervised: Program) -> list[dict[str, Any]]:
    with supervised.client() as client:
        found: list[dict[str, Any]] = client.get("/api/config/history").json()["entries"]
    return found


def default(supervised: Program, key: str) -> Any:
    return next(each["default"] for each in supervised.get("tts-worker")["fields"] if each["key"] == key)


def volume(supervised: Program) -> tuple[int, int]:
    found = supervised.get("tts-worker")
    return found["version"], found["config"]["volume_percent"]


def test_a_version_is_planned_and_then_brought_back_as_a_new_one(supervised: Program) -> None:
    planned = restore(supervised, plan=True, service="tts-worker", version=2)
    assert planned.status_code == 200, planned.text
    (plan,) = planned.json()["plans"]
    assert {each["key"]: (each["old"], each["new"]) for each in plan["changes"]} == {
        "volume_percent": (80, 40),
        "piper_voice": ("de_DE-thorsten-medium", default(supervised, "piper_voice")),
    }
    assert planned.json()["secrets_kept"] == {"tts-worker": ["eleven_api_key"]}
    assert volume(supervised) == (5, 80)

    answer = restore(supervised, service="tts-worker", version=2, reason="it was better")
    assert answer.status_code == 200, answer.text
    (made,) = answer.json()["services"]
    assert (made["service"], made["version"]) == ("tts-worker", 6)
    assert volume(supervised) == (6, 40)
    # The history has no value of a secret: it stays.
    assert supervised.get("tts-worker")["config"]["eleven_api_key"] == "********"
    newest = entries(supervised)[0]
    assert (newest["origin"], newest["change_reason"]) == ("restore", "it was better")
    assert SECRET not in planned.text + answer.text
    # Restored once more nothing differs, and nothing is made of it.
    assert restore(supervised, service="tts-worker", version=2).json()["revision"] is None
    assert volume(supervised) == (6, 40)


def test_all_services_go_back_to_a_revision_in_one_transaction(supervised: Program) -> None:
    found = entries(supervised)
    before = next(each["revision"] for each in found if each["service"] == "router") - 1
    answer = restore(supervised, revision=before)
    assert answer.status_code == 200, answer.text
    assert {each["service"]: each["version"] for each in answer.json()["services"]} == {"tts-worker": 6, "router": 3}
    assert volume(supervised) == (6, 60)
    made = [each for each in entries(supervised) if each["revision"] == answer.json()["revision"]]
    assert {(each["service"], each["key"]) for each in made} == {
        ("tts-worker", "volume_percent"),
        ("tts-worker", "piper_voice"),
        ("router", "router_wake_ack_text"),
    }
    assert {each["change_reason"] for each in made} == {f"restored revision {before}"}
    # The way back has a way back.
    assert restore(supervised, revision=answer.json()["revision"] - 1).status_code == 200
    assert volume(supervised) == (7, 80)


def test_a_service_that_came_with_a_reload(program: Make) -> None:
    it = program('[services.router]\nkind = "config-only"\n').start()
    (it.folder / "services.toml").write_text(MANIFEST)
    with it.client() as client:
        assert client.post("/api/reload").status_code == 200
    for number in (40, 60):
        assert it.put("tts-worker", volume_percent=number).status_code == 200
    assert restore(it, service="tts-worker", version=2).json()["revision"] is not None
    assert volume(it) == (4, 40)


def test_a_moment(supervised: Program) -> None:
    moment = next(each["changed_at"] for each in entries(supervised) if each["new_value"] == 60)
    assert restore(supervised, service="tts-worker", timestamp=moment).status_code == 200
    assert volume(supervised) == (6, 60)


def test_single_entries_are_undone_whatever_came_after(supervised: Program) -> None:
    voice = next(each["id"] for each in entries(supervised) if each["key"] == "piper_voice")
    answer = restore(supervised, service="tts-worker", history_entries=[voice])
    assert answer.status_code == 200, answer.text
    found = supervised.get("tts-worker")
    assert (found["config"]["volume_percent"], found["config"]["piper_voice"]) == (
        80,
        default(supervised, "piper_voice"),
    )


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "", "Name one of"),
        ({"service": "tts-worker", "version": 2, "revision": 1}, "revision", "version and revision"),
        ({"version": 2}, "service", "Name the service"),
        ({"service": "tts-worker", "version": 99}, "version", "no version 99 yet"),
        ({"service": "tts-worker", "history_entries": [424242]}, "history_entries", "no entries 424242"),
        ({"service": "ts-worker", "version": 1}, "service", "tts-worker"),
        ({"timestamp": "2001-01-01T00:00:00Z"}, "timestamp", "goes back to"),
        ({"service": "tts-worker", "version": 2, "colour": 1}, "colour", "unknown key"),
    ],
)
def test_what_there_is_not_is_named_and_changes_nothing(
    supervised: Program, body: dict[str, Any], field: str, words: str
) -> None:
    answer = restore(supervised, **body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["field"], words in error["message"]) == (field, True), error
    assert volume(supervised) == (5, 80)
