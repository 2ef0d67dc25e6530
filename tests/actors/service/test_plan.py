"""A plan is held to its word: what it said is what the change then does, and it does nothing itself."""

import random
from typing import Any

import pytest

from actors.service import ServiceActor
from schemas.changes import ChangeAccepted, ConfigChange, StaleVersion
from schemas.plans import ChangePlan
from schemas.records import SECRET_MARK
from schemas.states import Lifecycle
from tests.actors.service.support import NAME, Rig

VALUES: dict[str, list[Any]] = {
    "volume": [0, 50, 100, 200, None],
    "engine": ["piper", "other", None],
    "api_key": ["one", "two", SECRET_MARK, None],
    "pin": ["1234", SECRET_MARK, None],
}


def change(config: dict[str, Any], *, version: int | None = None) -> ConfigChange:
    return ConfigChange(
        service=NAME,
        config=config,
        merge=True,
        expected_version=version,
        expected_epoch=None,
        changed_by="me",
        origin="rest",
        request_id="r",
    )


async def plan(rig: Rig, config: dict[str, Any], *, version: int | None = None) -> ChangePlan:
    return await rig.service.ask(ServiceActor.plan, change(config, version=version))


async def made(rig: Rig, config: dict[str, Any]) -> ChangeAccepted:
    return await rig.service.ask(ServiceActor.change, change(config))


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_said_is_what_happens(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    await rig.serve()
    await rig.ready()
    for _ in range(12):
        config = {key: dice.choice(values) for key, values in VALUES.items() if dice.random() < 0.4}
        before, shown = rig.state, rig.shown["config"]
        unchanged = before.instance, rig.board.services[NAME].version, shown
        # A secret that is set counts as changed whatever it is: what it says of those is tested below.
        again = {
            key for key in ("api_key", "pin") if config.get(key) not in {None, SECRET_MARK} and shown[key] is not None
        }
        for key in again:
            config[key] = f"{config[key]}-{dice.random()}"
        said = await plan(rig, config)
        assert (rig.state.instance, rig.board.services[NAME].version, rig.shown["config"]) == unchanged
        accepted = await made(rig, config)
        assert {each.key for each in said.changes if each.apply == "live"} == set(accepted.live)
        assert {each.key for each in said.changes if each.apply == "restart"} == set(accepted.restart)
        assert (accepted.revision is None) == (not said.changes)
        after = rig.shown["config"]
        assert {each.key: each.new for each in said.changes} == {each.key: after[each.key] for each in said.changes}
        assert {each.key: each.old for each in said.changes} == {each.key: shown[each.key] for each in said.changes}
        unplanned = [key for key in after if key not in {each.key for each in said.changes}]
        assert {key: after[key] for key in unplanned} == {key: shown[key] for key in unplanned}
        if said.restarts:
            assert [each.service for each in said.restarts] == [NAME]
            await rig.ready()
            assert rig.state.instance != before.instance
        else:
            await made(rig, {})
            assert rig.state.instance == before.instance
    rig_away = (await plan(rig, {"engine": "other" if rig.shown["config"]["engine"] == "piper" else "piper"})).restarts
    assert rig_away[0].last_away_s is not None
    assert rig_away[0].last_away_s > 0


async def test_a_secret_is_not_found_out_by_planning(rig: Rig) -> None:
    await rig.serve()
    await rig.ready()
    before = rig.state.instance
    await made(rig, {"api_key": "the-real-one"})
    await rig.until(Lifecycle.STARTING, instance=before)
    right, wrong = await plan(rig, {"api_key": "the-real-one"}), await plan(rig, {"api_key": "another"})
    assert right == wrong
    (key,) = right.changes
    assert (key.key, key.old, key.new, key.apply, key.is_secret) == (
        "api_key",
        SECRET_MARK,
        SECRET_MARK,
        "restart",
        True,
    )


async def test_what_is_invalid_is_told_with_every_reason(rig: Rig) -> None:
    await rig.serve()
    await rig.ready()
    said = await plan(rig, {"volume": 900, "engine": "none", "colour": "red"})
    assert {error.field for error in said.errors} == {"volume", "engine", "colour"}
    assert (said.changes, said.restarts) == ((), ())


async def test_what_the_environment_sets_cannot_be_planned(make_rig: Any) -> None:
    rig = await make_rig(environment={"VOLUME": "7"})
    await rig.serve()
    (error,) = (await plan(rig, {"volume": 8})).errors
    assert (error.field, error.type) == ("volume", "overridden")


async def test_a_stale_version_is_refused_as_the_change_would_be(rig: Rig) -> None:
    await rig.serve()
    with pytest.raises(StaleVersion):
        await plan(rig, {"volume": 1}, version=9)


async def test_a_worker_that_is_down_restarts_for_nothing(rig: Rig) -> None:
    await rig.serve(("/no/such/program",))
    await rig.until(Lifecycle.FAILED)
    said = await plan(rig, {"engine": "other"})
    assert said.restarts == ()
    assert said.message == "Not saved yet. The worker starts with it."
