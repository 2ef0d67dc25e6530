"""Changes of several services together: all or none, one revision, and nobody waits for anybody."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest

from actors.database import DatabaseActor
from actors.database._lookback import Lookback
from actors.runtime import Handle
from actors.service import ServiceActor, change_together
from schemas.changes import ConfigChange, GroupAccepted, GroupRefused, ReadOnly, StaleVersion
from schemas.problems import ConfigInvalid
from schemas.records import HistoryEntry, HistoryQuery
from schemas.states import Kind
from tests.actors.service.support import NAME, Rig
from tests.support import eventually

OTHER, THIRD = "other", "third"


class Services:
    """Three services that are configuration alone."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.handles: dict[str, Handle[ServiceActor]] = {
            NAME: rig.service, OTHER: Handle(OTHER, timeout=20.0), THIRD: Handle(THIRD, timeout=20.0),
        }  # fmt: skip

    async def serve(self) -> None:
        for handle in self.handles.values():
            await self.rig.serve(kind=Kind.CONFIG_ONLY, handle=handle)

    async def together(
        self, changes: dict[str, dict[str, Any]], versions: dict[str, int] | None = None
    ) -> GroupAccepted:
        asked = [self.change(name, config, (versions or {}).get(name)) for name, config in changes.items()]
        return await change_together(self.handles, self.rig.database, asked)

    async def alone(self, name: str, config: dict[str, Any]) -> Any:
        return await self.handles[name].ask(ServiceActor.change, self.change(name, config))

    def change(self, name: str, config: dict[str, Any], version: int | None = None) -> ConfigChange:
        return ConfigChange(
            service=name,
            config=config,
            merge=True,
            expected_version=version,
            expected_epoch=None,
            changed_by="me",
            origin="restore",
            request_id="r",
            reason="together",
        )

    def history(self) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        return Lookback(self.rig.folder / "config.db", lambda _: None).page(HistoryQuery(limit=1000))

    def shown(self, name: str) -> Any:
        view = self.rig.board.services[name]
        return view.version, json.loads(view.short.body)["config"]["volume"]


@pytest.fixture
async def services(rig: Rig) -> Services:
    it = Services(rig)
    await it.serve()
    return it


async def test_one_revision_and_each_service_follows(services: Services) -> None:
    before = (await services.alone(THIRD, {"volume": 1})).revision
    accepted = await services.together({NAME: {"volume": 7}, OTHER: {"volume": 8}})
    assert accepted.revision == before + 1
    assert {name: each.version for name, each in accepted.services.items()} == {NAME: 2, OTHER: 2}
    assert (services.shown(NAME), services.shown(OTHER), services.shown(THIRD)) == ((2, 7), (2, 8), (2, 1))
    await eventually(lambda: services.rig.wanted_version() == 2)
    entries = services.history()
    assert [(each.service, each.revision, each.change_reason) for each in entries][:2] == [
        (OTHER, before + 1, "together"),
        (NAME, before + 1, "together"),
    ]


async def test_what_one_refuses_is_made_of_none(services: Services) -> None:
    with pytest.raises(GroupRefused) as refused:
        await services.together({NAME: {"volume": 7}, OTHER: {"volume": 900}, THIRD: {"colour": "red"}})
    assert {name: type(error) for name, error in refused.value.reasons.items()} == {
        OTHER: ConfigInvalid,
        THIRD: ConfigInvalid,
    }
    assert services.shown(NAME) == (1, 100)


async def test_where_nothing_differs_there_is_no_revision(services: Services) -> None:
    assert (await services.together({NAME: {}, OTHER: {}})).revision is None
    accepted = await services.together({NAME: {}, OTHER: {"volume": 3}})
    assert list(accepted.services) == [OTHER]


async def test_who_names_a_version_is_refused_where_another_was_faster(services: Services) -> None:
    await services.alone(OTHER, {"volume": 5})
    with pytest.raises(GroupRefused) as refused:
        await services.together({NAME: {"volume": 7}, OTHER: {"volume": 8}}, {NAME: 1, OTHER: 1})
    assert isinstance(refused.value.reasons[OTHER], StaleVersion)
    assert (services.shown(NAME), services.shown(OTHER)) == ((1, 100), (2, 5))


async def test_groups_and_single_changes_cross(services: Services) -> None:
    """Each is whole, none is lost, and none waits for another for ever."""
    dice = random.Random(7)
    names = list(services.handles)

    async def one(number: int) -> tuple[str, ...]:
        chosen = dice.sample(names, dice.choice([1, 2, 3]))
        if len(chosen) == 1:
            await services.alone(chosen[0], {"volume": number})
        else:
            # The order in which they are named is no order of locks.
            try:
                await services.together({name: {"volume": number} for name in chosen})
            except ReadOnly:
                return ()
        return tuple(chosen)

    async with asyncio.timeout(60):
        done = [each for each in await asyncio.gather(*(one(number) for number in range(1, 101))) if each]
    # How many groups are refused, since others had the services all the time, is a matter of speed.
    assert {len(each) for each in done} == {1, 2, 3}
    made = Counter(name for each in done for name in each)
    await eventually(lambda: {name: services.shown(name)[0] - 1 for name in names} == dict(made))
    entries = services.history()
    by_revision: dict[int, set[tuple[str, Any]]] = {}
    for entry in entries:
        by_revision.setdefault(entry.revision, set()).add((entry.service, entry.new_value))
    assert all(len({value for _, value in changed}) == 1 for changed in by_revision.values())
    assert Counter(len(changed) for changed in by_revision.values()) == Counter(len(each) for each in done)
    newest = {name: next(entry.new_value for entry in entries if entry.service == name) for name in names}
    assert {name: services.shown(name)[1] for name in names} == newest


async def test_a_caller_that_goes_away_leaves_each_service_with_what_is_on_disk(services: Services) -> None:
    for number in range(20):
        task = asyncio.ensure_future(services.together({NAME: {"volume": number}, OTHER: {"volume": number}}))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    # Whatever became of them: both show the same, and that is what the store has.
    await services.together({THIRD: {"volume": 150}})

    async def stored() -> dict[str, tuple[int, Any]]:
        state = await services.rig.database.ask(DatabaseActor.load)
        return {str(name): (row.version, row.config.get("volume", 100)) for name, row in state.services.items()}

    there = await stored()
    await eventually(lambda: {name: services.shown(name) for name in services.handles} == there)
    assert there[NAME] == there[OTHER]


async def test_an_actor_that_is_gone_changes_nothing_or_follows_when_it_is_back(services: Services) -> None:
    services.rig.crash(OTHER)
    await eventually(lambda: len(services.rig.refs[OTHER]) == 2)
    accepted = await services.together({NAME: {"volume": 9}, OTHER: {"volume": 9}})
    assert accepted.services[OTHER].version == 2
    await eventually(lambda: services.shown(OTHER) == (2, 9))


async def test_the_store_cannot_be_written(make_rig: Any) -> None:
    rig = await make_rig(busy_timeout=0.05)
    it = Services(rig)
    await it.serve()
    with rig.locked(), pytest.raises(ReadOnly):
        await it.together({NAME: {"volume": 7}, OTHER: {"volume": 8}})
    assert (it.shown(NAME), it.shown(OTHER)) == ((1, 100), (1, 100))
    assert (await it.together({NAME: {"volume": 7}, OTHER: {"volume": 8}})).revision is not None
