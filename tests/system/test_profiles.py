"""Profiles through the real program: saved, compared, planned, activated as one revision, renamed, deleted; across releases."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.system.program import Program

Make = Callable[..., Program]

MANIFEST = """
[services.tts-worker]
kind = "config-only"

[services.router]
kind = "config-only"

[services.wake-activation]
kind = "config-only"
"""
SECRET = "c4nary-90c4aa17fe"
ALL = "/api/config/profiles"
SETTINGS = {
    "tts-worker": {"volume_percent": 40, "piper_voice": "de_DE-thorsten-medium"},
    "router": {"router_wake_ack_text": "Ja?"},
}


@pytest.fixture
def supervised(program: Make) -> Program:
    it = program(MANIFEST).start()
    for service, settings in SETTINGS.items():
        assert it.put(service, **settings).status_code == 200
    assert it.put("tts-worker", eleven_api_key=SECRET).status_code == 200
    return it


def call(
    supervised: Program, method: str, profile: str | None = None, /, *, then: str = "", **body: Any
) -> httpx.Response:
    path = ALL if profile is None else f"{ALL}/{quote(profile, safe='')}{then}"
    with supervised.client() as client:
        answer = client.request(method, path, json=body or None)
    assert SECRET not in answer.text
    assert "********" not in answer.text
    return answer


def names(supervised: Program) -> list[str]:
    return [each["name"] for each in call(supervised, "GET").json()["profiles"]]


def changes(answer: httpx.Response) -> dict[str, dict[str, tuple[Any, Any]]]:
    assert answer.status_code == 200, answer.text
    return {
        plan["service"]: {each["key"]: (each["old"], each["new"]) for each in plan["changes"]}
        for plan in answer.json()["plans"]
    }


def test_from_save_to_delete(supervised: Program) -> None:
    saved = call(supervised, "POST", name=" Abends, für Ella ", description="quiet")
    assert saved.status_code == 200, saved.text
    name = "Abends, für Ella"
    assert (saved.json()["name"], saved.json()["services"]) == (name, ["tts-worker", "router", "wake-activation"])
    taken = call(supervised, "POST", name=name)
    assert (taken.status_code, taken.json()["type"].rpartition(":")[2]) == (409, "profile-exists")
    assert changes(call(supervised, "GET", name)) == {}

    assert supervised.put("tts-worker", volume_percent=90).status_code == 200
    assert supervised.put("router", router_wake_ack_text="Hm?").status_code == 200
    versions = {service: supervised.get(service)["version"] for service in ("tts-worker", "router", "wake-activation")}
    shown = call(supervised, "GET", name)
    differs = {"tts-worker": {"volume_percent": (90, 40)}, "router": {"router_wake_ack_text": ("Hm?", "Ja?")}}
    assert changes(shown) == differs
    assert shown.json()["settings"] == {**SETTINGS, "wake-activation": {}}
    planned = call(supervised, "PUT", name, then="/activate?plan=true")
    assert changes(planned) == differs
    assert supervised.get("tts-worker")["config"]["volume_percent"] == 90

    activated = call(supervised, "PUT", name, then="/activate", reason="she sleeps")
    assert activated.status_code == 200, activated.text
    # One revision, a new version of what differed, and nothing of the rest.
    assert {each["service"]: each["version"] for each in activated.json()["services"]} == {
        "tts-worker": versions["tts-worker"] + 1,
        "router": versions["router"] + 1,
    }
    assert supervised.get("wake-activation")["version"] == versions["wake-activation"]
    assert supervised.get("tts-worker")["config"]["volume_percent"] == 40
    assert supervised.get("tts-worker")["config"]["eleven_api_key"] == "********"
    assert activated.json()["message"].count("Secrets") == 1
    with supervised.client() as client:
        entries = client.get("/api/config/history", params={"limit": 2}).json()["entries"]
    assert {(each["service"], each["revision"], each["origin"], each["change_reason"]) for each in entries} == {
        (service, activated.json()["revision"], "profile", f"activated profile {name}: she sleeps")
        for service in ("tts-worker", "router")
    }
    assert call(supervised, "PUT", name, then="/activate").json()["revision"] is None

    assert call(supervised, "POST", name="Other", services=["router"]).status_code == 200
    assert call(supervised, "PUT", name, name="Other").status_code == 409
    assert call(supervised, "PUT", name, name="Abends").json()["name"] == "Abends"
    assert call(supervised, "GET", name).status_code == 404
    supervised.kill()
    supervised.start()
    assert names(supervised) == ["Abends", "Other"]
    assert call(supervised, "DELETE", "Abends").status_code == 200
    assert call(supervised, "DELETE", "Abends").status_code == 404
    assert names(supervised) == ["Other"]
    assert supervised.get("tts-worker")["config"]["volume_percent"] == 40


def test_names_that_are_refused(supervised: Program) -> None:
    for name in ("", "  ", "a/b", "a\u0007b", "..", "x" * 65):
        answer = call(supervised, "POST", name=name)
        assert answer.status_code == 422, (name, answer.text)
        assert [each["field"] for each in answer.json()["errors"]] == ["name"]
    assert names(supervised) == []


def document(**properties: Any) -> str:
    return json.dumps({"type": "object", "properties": properties})


def test_what_an_older_schema_knew(program: Make) -> None:
    it = program("")
    manifest = it.folder / "services.toml"
    lamp = '[services.lamp]\nkind = "config-only"\nmodel = "lamp.json"\n'
    fan = '[services.fan]\nkind = "config-only"\nmodel = "lamp.json"\n'
    brightness = {"type": "integer", "default": 10, "minimum": 0, "maximum": 100}
    colour = {"type": "string", "default": "white"}
    (it.folder / "lamp.json").write_text(document(brightness=brightness, colour=colour))
    manifest.write_text(lamp + fan)
    it.start()
    for service in ("lamp", "fan"):
        assert it.put(service, brightness=80, colour="red").status_code == 200
    assert call(it, "POST", name="Old").status_code == 200
    assert it.put("lamp", brightness=5, colour="white").status_code == 200
    assert it.stop() == 0

    # The next release: no colours, and no fan.
    (it.folder / "lamp.json").write_text(document(brightness=brightness))
    manifest.write_text(lamp)
    it.start()
    version = it.get("lamp")["version"]
    shown = call(it, "GET", "Old").json()
    assert (shown["unknown_keys"], shown["unknown_services"]) == ({"lamp": ["colour"]}, ["fan"])
    refused = call(it, "PUT", "Old", then="/activate")
    assert refused.status_code == 422, refused.text
    assert [each["field"] for each in refused.json()["errors"]] == ["lamp.colour", "fan"]
    planned = call(it, "PUT", "Old", then="/activate?plan=true").json()
    assert ([each["valid"] for each in planned["plans"]], planned["message"][:22]) == (
        [False],
        "This would be refused;",
    )
    assert (it.get("lamp")["version"], it.get("lamp")["config"]["brightness"]) == (version, 5)

    activated = call(it, "PUT", "Old", then="/activate", drop_unknown=True)
    assert activated.status_code == 200, activated.text
    assert (activated.json()["unknown_keys"], activated.json()["unknown_services"]) == ({"lamp": ["colour"]}, ["fan"])
    assert (it.get("lamp")["version"], it.get("lamp")["config"]) == (version + 1, {"brightness": 80})
