"""Starting, stopping, acknowledgements, history, cancellation."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from actors.database import DatabaseActor, HistoryActor
from actors.database import _actor as actor_module
from actors.runtime import ActorDown, AskTimeout, Ending
from schemas.records import ABSENT, Committed, HistoryChange, HistoryEntry, HistoryQuery
from schemas.types import ServiceName, Version
from tests.actors.database.conftest import Starter
from tests.actors.database.support import (
    ROUTER,
    STT,
    TTS,
    Database,
    History,
    change,
    checksum,
    new,
    request,
    rows,
    stored,
)
from tests.support import eventually

DEADLINE = 30


async def test_a_new_store_is_empty_and_keeps_its_epoch(start: Starter) -> None:
    first = await (await start()).ask(DatabaseActor.load)
    assert (first.revision, first.services, first.secrets, first.schema_version) == (0, {}, {}, 1)
    assert str(uuid.UUID(first.config_epoch)) == first.config_epoch
    assert abs(datetime.now(UTC) - first.created_at) < timedelta(minutes=1)
    await start.stop()
    assert await (await start()).ask(DatabaseActor.load) == first


async def test_ensure_makes_what_is_missing_and_touches_nothing_else(database: Database) -> None:
    first = await database.ask(DatabaseActor.ensure, new(STT, TTS))
    assert first.revision == 1
    for service in (STT, TTS):
        made = first.services[service]
        assert (made.config, made.version, made.config_epoch) == ({}, 1, first.config_epoch)
        assert (made.checksum, made.published_version) == (checksum({}), None)

    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    before = await database.ask(DatabaseActor.load)
    # STT is there; TTS has left the manifest; the router is new.
    after = await database.ask(DatabaseActor.ensure, new(STT, ROUTER))
    assert set(after.services) == {STT, TTS, ROUTER}
    assert {name: each for name, each in after.services.items() if name != ROUTER} == before.services
    assert after.revision == before.revision + 1

    assert await database.ask(DatabaseActor.ensure, new(STT, ROUTER)) == after


async def test_an_acknowledgement_is_on_record(start: Starter) -> None:
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    await database.ask(DatabaseActor.acknowledge, [(STT, Version(2)), (TTS, Version(1))])
    # They may come in any order: the highest counts, before it is written and after.
    await database.ask(DatabaseActor.acknowledge, [(STT, Version(1))])
    assert (await stored(database, STT)).published_version == 2
    await database.ask(DatabaseActor.acknowledge, [(STT, Version(1))])
    assert (await stored(database, STT)).published_version == 2

    await database.ask(DatabaseActor.commit, request(change(STT, 2, {"a": 2})))
    await start.stop()
    state = await (await start()).ask(DatabaseActor.load)
    assert {name: (each.version, each.published_version) for name, each in state.services.items()} == {
        STT: (3, 2),
        TTS: (1, 1),
    }


@pytest.mark.parametrize("by", ["stop", "timer"])
async def test_an_acknowledgement_costs_a_commit_nothing_and_is_written_soon(
    start: Starter, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(actor_module, "ACKNOWLEDGE_AFTER", 0.01 if by == "timer" else 3600.0)
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    query = "SELECT service, version FROM publications"

    await database.ask(DatabaseActor.acknowledge, [(STT, Version(1))])
    if by == "stop":
        await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
        assert rows(start.path, query) == []
        await start.stop()
    await eventually(lambda: rows(start.path, query) == [(STT, 1)], what="the acknowledgement")


async def filled(database: Database, history: History) -> tuple[HistoryEntry, ...]:
    """Two services with five changes each, of two keys."""
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    for version in range(1, 6):
        for service in (STT, TTS):
            key = "a" if version % 2 else "b"
            changes = (HistoryChange(key, version, version + 1),)
            await database.ask(
                DatabaseActor.commit, request(change(service, version, {key: version + 1}, history=changes), reason="r")
            )
    return await history.ask(HistoryActor.page, HistoryQuery())


async def test_history_is_newest_first_and_filtered(database: Database, history: History) -> None:
    everything = await filled(database, history)
    assert [entry.service for entry in everything] == [TTS, STT] * 5
    newest = everything[0]
    assert (newest.key, newest.old_value, newest.new_value, newest.version, newest.revision) == ("a", 5, 6, 6, 11)
    assert (newest.changed_by, newest.change_reason, newest.is_secret) == ("owner", "r", False)

    async def ask(**conditions: object) -> tuple[HistoryEntry, ...]:
        return await history.ask(HistoryActor.page, HistoryQuery(**conditions))  # type: ignore[arg-type]  # by name

    assert await ask(service=STT) == everything[1::2]
    assert await ask(service=STT, key="b") == tuple(each for each in everything[1::2] if each.key == "b")
    third, seventh = everything[2], everything[6]
    assert await ask(start=seventh.changed_at, end=third.changed_at) == everything[2:7]
    # Another offset is the same moment.
    elsewhere = seventh.changed_at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert await ask(start=elsewhere) == everything[:7]


async def test_history_comes_in_pages(database: Database, history: History) -> None:
    everything = await filled(database, history)
    pages: list[HistoryEntry] = []
    before = None
    while page := await history.ask(HistoryActor.page, HistoryQuery(limit=3, before=before)):
        pages += page
        before = page[-1].id
    assert tuple(pages) == everything


@pytest.mark.parametrize(
    "query",
    [HistoryQuery(limit=0), HistoryQuery(limit=1001), HistoryQuery(start=datetime(2026, 1, 1))],  # noqa: DTZ001  # meant
)
async def test_a_history_query_out_of_bounds_is_refused(
    database: Database, history: History, query: HistoryQuery
) -> None:
    with pytest.raises(ValueError, match=r"limit|offset"):
        await history.ask(HistoryActor.page, query)


async def test_history_tells_unset_from_null(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    changes = (HistoryChange("a", ABSENT, None), HistoryChange("b", None, ABSENT))
    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": None}, history=changes)))
    found = await history.ask(HistoryActor.page, HistoryQuery())
    assert {entry.key: (entry.old_value, entry.new_value) for entry in found} == {
        "a": (ABSENT, None),
        "b": (None, ABSENT),
    }


async def test_a_cancelled_asker_changes_nothing(database: Database) -> None:
    """Whenever it is cancelled, what was asked is committed or not, and the next one works."""
    await database.ask(DatabaseActor.ensure, new(STT))
    async with asyncio.timeout(DEADLINE):
        for turns in range(60):
            before = await stored(database, STT)
            version = before.version
            asker = asyncio.create_task(
                database.ask(DatabaseActor.commit, request(change(STT, version, {"turns": turns})))
            )
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            asker.cancel()
            (outcome,) = await asyncio.gather(asker, return_exceptions=True)
            assert isinstance(outcome, asyncio.CancelledError | Committed)
            # The message was sent before the cancellation, or never: but it was whole.
            after = await stored(database, STT)
            if after.version == version:
                assert after.config == before.config
            else:
                assert (after.version, after.config) == (version + 1, {"turns": turns})


async def test_a_stop_finishes_what_waits(start: Starter) -> None:
    services = tuple(ServiceName(f"service-{number}") for number in range(20))
    database = await start()
    await database.ask(DatabaseActor.ensure, new(*services))
    asked = [asyncio.create_task(database.ask(DatabaseActor.commit, request(change(each, 1, {})))) for each in services]
    await asyncio.sleep(0)
    await start.stop()
    async with asyncio.timeout(DEADLINE):
        outcomes = await asyncio.gather(*asked)
    assert all(isinstance(each, Committed) for each in outcomes)
    with pytest.raises(ActorDown):
        await database.ask(DatabaseActor.load)
    state = await (await start()).ask(DatabaseActor.load)
    assert {each.version for each in state.services.values()} == {2}


async def test_a_cancelled_actor_answers_what_it_has_begun(start: Starter) -> None:
    """The transaction on the thread is finished and told; what waits behind it never began."""
    first, second = ServiceName("first"), ServiceName("second")
    async with asyncio.timeout(DEADLINE):
        for turns in range(8):
            database = await start()
            versions = {
                name: each.version
                for name, each in (await database.ask(DatabaseActor.ensure, new(first, second))).services.items()
            }
            one = asyncio.create_task(
                database.ask(DatabaseActor.commit, request(change(first, versions[first], {"turns": turns})))
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            two = asyncio.create_task(
                database.ask(DatabaseActor.commit, request(change(second, versions[second], {"turns": turns})))
            )
            start.ref.cancel()
            outcomes = await asyncio.gather(one, two, return_exceptions=True)
            assert (await start.ref.exited).ending is Ending.CANCELLED
            await start.stop()
            state = await (await start()).ask(DatabaseActor.load)
            for service, outcome in zip((first, second), outcomes, strict=True):
                assert isinstance(outcome, Committed | ActorDown)
                committed = isinstance(outcome, Committed)
                assert state.services[service].version == versions[service] + committed
            await start.stop()


async def test_an_asker_who_gives_up_in_the_middle_is_told_so(start: Starter) -> None:
    """A deadline that passes during the transaction is "outcome unknown"; the version tells what became of it."""
    database = await start()
    await database.ask(DatabaseActor.ensure, new(STT))
    outcome: Committed | None = None
    try:
        outcome = await database.within(0.0).ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1})))
    except Exception as error:  # noqa: BLE001  # looked at below
        assert isinstance(error, AskTimeout) or "did not come to" in str(error)  # noqa: PT017
    after = await stored(database, STT)
    assert outcome is None or after.version == 2
    await database.ask(DatabaseActor.commit, request(change(STT, after.version, {"a": 2})))
