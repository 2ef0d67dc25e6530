"""Looking back, through the real program: who changed what, what differs from then, and no secret in it."""

from collections.abc import Callable
from typing import Any

import httpx

from tests.system.program import Program

Make = Callable[..., Program]

MANIFEST = """
[services.tts-worker]
kind = "config-only"

[services.router]
kind = "config-only"
"""
SECRET = "c4nary-2b9e71f0aa"


def page(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/config/history", params=query)
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def difference(client: httpx.Client, **query: Any) -> dict[str, Any]:
    """By setting: old, new, how the worker gets it."""
    answer = client.get("/api/config/history/diff", params=query)
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    return {
        f"{each['service']}.{each['key']}": (each["old"], each["new"], each["apply"])
        for each in answer.json()["changes"]
    }


def test_what_was_changed_is_told_and_compared(program: Make) -> None:
    supervised = program(MANIFEST).start()
    for settings in ({"volume_percent": 40}, {"volume_percent": 60, "eleven_api_key": SECRET}):
        assert supervised.put("tts-worker", **settings).status_code == 200
    with supervised.client() as client:
        body = {"service": "tts-worker", "version": 3, "config": {"volume_percent": None}, "reason": "too loud"}
        assert client.patch("/api/config/services/tts-worker", json=body).status_code == 200
        assert supervised.put("router", router_wake_ack_text="Ja?").status_code == 200

        entries = page(client)
        assert [(each["service"], each["key"], each["version"]) for each in entries] == [
            ("router", "router_wake_ack_text", 2),
            ("tts-worker", "volume_percent", 4),
            ("tts-worker", "eleven_api_key", 3),
            ("tts-worker", "volume_percent", 3),
            ("tts-worker", "volume_percent", 2),
        ]
        assert {each["origin"] for each in entries} == {"rest"}
        unset, secret = entries[1:3]
        assert (unset["old_value"], unset["new_value"], unset["new_set"]) == (60, None, False)
        assert (unset["change_reason"], unset["changed_by"]) == ("too loud", entries[0]["changed_by"])
        assert (secret["old_set"], secret["new_value"], secret["is_secret"]) == (False, "********", True)
        assert secret["revision"] == entries[3]["revision"]
        first, rest = page(client, limit=1), page(client, limit=4, before=entries[0]["id"])
        assert [*first, *rest] == entries
        assert page(client, key="volume_percent", end_date=entries[3]["changed_at"]) == entries[3:]

        secret_set = (None, "********", "restart")
        assert difference(client, **{"from": 1}, service="tts-worker") == {"tts-worker.eleven_api_key": secret_set}
        assert difference(client, **{"from": 2, "to": 3}, service="tts-worker") == {
            "tts-worker.volume_percent": (40, 60, "live"),
            "tts-worker.eleven_api_key": secret_set,
        }
        # All services, from the moment of the first change.
        assert set(difference(client, **{"from": entries[-1]["changed_at"]})) == {
            "tts-worker.volume_percent",
            "tts-worker.eleven_api_key",
            "router.router_wake_ack_text",
        }
        refused = client.get("/api/config/history/diff", params={"service": "router", "from": 7})
        assert refused.status_code == 422
        assert refused.json()["detail"] == "from: router has no version 7 yet; its newest is 2."

        # What it told, it tells after the next start.
        assert supervised.stop() == 0
    supervised.start()
    with supervised.client() as client:
        assert page(client) == entries
    assert supervised.stop() == 0
