"""POST /api/reload."""

import pytest

from schemas.manifest import Change, Difference, Differences
from schemas.types import ServiceName
from tests.api.conftest import READER, Running

PLAN = Differences(
    (
        Difference(ServiceName("router"), Change.RESTART, ("command",)),
        Difference(ServiceName("shared"), Change.UNCHANGED),
        Difference(ServiceName("gone"), Change.REMOVED),
    ),
    concurrent_starts=True,
)


@pytest.mark.parametrize(("query", "only_plan"), [("", False), ("?plan=true", True), ("?plan=0", False)])
async def test_what_is_done(api: Running, query: str, only_plan: bool) -> None:
    api.services.workers.plan = PLAN
    answer = await api.client.post(f"/api/reload{query}")
    assert answer.status_code == 200
    assert api.services.workers.reloads == [only_plan]
    begun = "To be done" if only_plan else "Done"
    assert answer.json() == {
        "done": not only_plan,
        "message": f"{begun}: router is restarted; gone has left; another number of workers starts at a time.",
        "services": [
            {"service": "router", "change": "restart", "keys": ["command"]},
            {"service": "shared", "change": "unchanged", "keys": []},
            {"service": "gone", "change": "removed", "keys": []},
        ],
        "concurrent_starts": True,
    }


async def test_nothing_is_different(api: Running) -> None:
    assert (await api.client.post("/api/reload")).json()["message"] == "Nothing is different."


async def test_every_mistake_is_told_with_its_line(api: Running) -> None:
    lines = ("services.toml:3: services.router.comand: unknown key", "services.toml:7: services.b.command: is missing")
    api.services.workers.mistakes = lines
    answer = await api.client.post("/api/reload")
    assert answer.status_code == 422
    assert [error["message"] for error in answer.json()["errors"]] == list(lines)


async def test_a_wrong_query_reloads_nothing(api: Running) -> None:
    assert (await api.client.post("/api/reload?plan=maybe")).status_code == 422
    assert api.services.workers.reloads == []


async def test_it_takes_the_role_to_write(api: Running) -> None:
    assert (await api.client.post("/api/reload", headers={"X-API-Token": READER})).status_code == 403
    assert api.services.workers.reloads == []
