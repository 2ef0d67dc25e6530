"""The history's own actor: origins, marks, and what differs between two points, out of a real store."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.database import DatabaseActor, HistoryActor, StoreUnavailable, UnknownService
from schemas.history import Difference, NotReached, Point
from schemas.records import (
    ABSENT,
    SECRET_MARK,
    AccessEntry,
    HistoryChange,
    HistoryEntry,
    HistoryQuery,
    Origin,
    SealedSecret,
    SecretChange,
)
from schemas.types import Revision, ServiceName, Version
from tests.actors.database.support import ROUTER, STT, TTS, Database, History, change, new, request, stored

KEY = "eleven_api_key"


async def write(
    database: Database,
    service: ServiceName,
    config: dict[str, Any],
    *,
    origin: Origin = "rest",
    secrets: Sequence[SecretChange] = (),
) -> datetime:
    """Commit this as the service's next version, with the history that it makes; the time of it."""
    row = await stored(database, service)
    changes = tuple(
        HistoryChange(key, row.config.get(key, ABSENT), config.get(key, ABSENT))
        for key in {**row.config, **config}
        if row.config.get(key, ABSENT) != config.get(key, ABSENT)
    )
    asked = request(change(service, row.version, config, history=changes, secrets=tuple(secrets)))
    committed = await database.ask(DatabaseActor.commit, msgspec.structs.replace(asked, origin=origin))
    return committed.committed_at


def version(number: int) -> Point:
    return Point(version=Version(number))


def revision(number: int) -> Point:
    return Point(revision=Revision(number))


def shown(found: Difference) -> dict[tuple[str, str], tuple[Any, Any]]:
    """By service and key: old and new, `ABSENT` where not set."""
    return {
        (each.service, each.key): (
            ABSENT if each.old_is_default else each.old,
            ABSENT if each.new_is_default else each.new,
        )
        for each in found.keys
    }


async def differing(history: History, service: ServiceName | None, old: Point, to: Point | None = None) -> Any:
    return shown(await history.ask(HistoryActor.difference, service, old, to or Point()))


async def test_an_entry_tells_where_it_came_from(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    origins: tuple[Origin, ...] = ("rest", "import", "rollback", "restore", "cli", "migration")
    for number, origin in enumerate(origins):
        await write(database, STT if number % 3 else TTS, {"a": number}, origin=origin)
        # Between the commits of the access log stands what is none.
        for _ in range(number):
            await database.ask(DatabaseActor.log_access, AccessEntry("owner", "reveal", success=True))

    async def origins_of(**conditions: Any) -> list[str | None]:
        found = await history.ask(HistoryActor.page, HistoryQuery(**conditions))
        return [each.origin for each in found]

    assert await origins_of() == [*reversed(origins)]
    assert await origins_of(service=TTS) == ["restore", "rest"]
    assert await origins_of(before=5, limit=3) == ["restore", "rollback", "import"]
    assert await origins_of(before=2) == ["rest"]
    assert await origins_of(before=1) == []


async def test_changes_made_together_have_one_origin(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    each = (HistoryChange("a", ABSENT, 1), HistoryChange("b", ABSENT, 2))
    asked = request(change(STT, 1, {"a": 1, "b": 2}, history=each), change(TTS, 1, {"a": 1, "b": 2}, history=each))
    await database.ask(DatabaseActor.commit, msgspec.structs.replace(asked, origin="profile"))
    found = await history.ask(HistoryActor.page, HistoryQuery())
    assert [entry.origin for entry in found] == ["profile"] * 4


async def test_an_origin_that_the_access_log_has_no_more_is_unknown(
    database: Database, history: History, path: Path
) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    for number in range(3):
        await write(database, STT, {"a": number})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER access_log_keeps_rows")
        connection.execute("DELETE FROM access_log WHERE revision < 4")
        connection.commit()
    found = await history.ask(HistoryActor.page, HistoryQuery())
    assert [(entry.new_value, entry.origin) for entry in found] == [(2, "rest"), (1, None), (0, None)]


async def test_a_setting_that_became_a_secret_shows_no_value_of_before(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(TTS))
    await write(database, TTS, {KEY: "in clear"})
    await write(database, TTS, {})
    found = await history.ask(HistoryActor.page, HistoryQuery())
    assert [(each.old_value, each.new_value, each.is_secret) for each in found] == [
        (SECRET_MARK, ABSENT, True),
        (ABSENT, SECRET_MARK, True),
    ]
    difference = await history.ask(HistoryActor.difference, TTS, version(1), version(2))
    assert "in clear" not in repr((found, difference))


async def test_between_versions_revisions_and_moments(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    times = [
        await write(database, STT, {"a": 1, "b": None}),
        await write(database, TTS, {"a": 7}),
        await write(database, STT, {"a": 2}),
        await write(database, STT, {"a": 2, "b": 3}),
    ]
    assert await differing(history, STT, version(1)) == {(STT, "a"): (ABSENT, 2), (STT, "b"): (ABSENT, 3)}
    assert await differing(history, STT, version(2), version(3)) == {
        (STT, "a"): (1, 2),
        (STT, "b"): (None, ABSENT),
    }
    # The other way round, and nothing between a point and itself.
    assert await differing(history, STT, version(4), version(3)) == {(STT, "b"): (3, ABSENT)}
    assert await differing(history, STT, version(4), version(4)) == {}
    # The first revision gave both their rows.
    everything = {(STT, "a"): (ABSENT, 2), (STT, "b"): (ABSENT, 3), (TTS, "a"): (ABSENT, 7)}
    assert await differing(history, None, revision(1)) == everything
    assert await differing(history, None, revision(0), revision(5)) == everything
    assert await differing(history, None, revision(2), revision(3)) == {(TTS, "a"): (ABSENT, 7)}
    assert await differing(history, STT, revision(2), revision(3)) == {}
    # At the moment of a change it was made.
    first, second, third, _ = (Point(moment=each) for each in times)
    assert await differing(history, None, first, second) == {(TTS, "a"): (ABSENT, 7)}
    just_before = Point(moment=times[2] - timedelta(microseconds=1))
    assert await differing(history, STT, just_before, third) == await differing(history, STT, version(2), version(3))
    later = Point(moment=datetime.now(UTC) + timedelta(days=1))
    assert await differing(history, None, revision(1), later) == everything


async def test_the_present_is_told_as_its_revision(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    await write(database, STT, {"a": 1})
    found = await history.ask(HistoryActor.difference, STT, version(1), Point())
    assert (found.old, found.new) == (version(1), revision(2))


async def test_a_secret_that_was_written_differs_as_a_mark(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(TTS))
    sealed = SealedSecret(b"ciphertext-and-tag", b"nonce-nonce!", "master-1")
    for each in (sealed, sealed, None):
        await write(database, TTS, {}, secrets=(SecretChange(KEY, each),))
    await write(database, TTS, {"volume_percent": 3})
    assert await differing(history, TTS, version(1), version(2)) == {(TTS, KEY): (ABSENT, SECRET_MARK)}
    assert await differing(history, TTS, version(2), version(3)) == {(TTS, KEY): (SECRET_MARK, SECRET_MARK)}
    assert await differing(history, TTS, version(3), version(2)) == {(TTS, KEY): (SECRET_MARK, SECRET_MARK)}
    assert await differing(history, TTS, version(3), version(4)) == {(TTS, KEY): (SECRET_MARK, ABSENT)}
    assert await differing(history, TTS, version(1), version(4)) == {}
    assert await differing(history, TTS, version(4)) == {(TTS, "volume_percent"): (ABSENT, 3)}


async def test_a_secret_that_was_written_before_or_after_does_not_differ(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(TTS))
    sealed = SealedSecret(b"ciphertext-and-tag", b"nonce-nonce!", "master-1")
    await write(database, TTS, {}, secrets=(SecretChange(KEY, sealed),))
    await write(database, TTS, {"volume_percent": 3})
    await write(database, TTS, {"volume_percent": 3}, secrets=(SecretChange(KEY, sealed),))
    assert await differing(history, TTS, version(2), version(3)) == {(TTS, "volume_percent"): (ABSENT, 3)}
    assert await differing(history, TTS, version(3), version(4)) == {(TTS, KEY): (SECRET_MARK, SECRET_MARK)}


async def test_a_clock_that_was_set_back_does_not_mix_the_changes_up(
    database: Database, history: History, path: Path
) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    times = [await write(database, STT, {"a": number}) for number in range(4)]
    with closing(sqlite3.connect(path)) as connection:
        # The third was made when the clock said what it had said before the second.
        before = (times[0] + (times[1] - times[0]) / 2).isoformat(timespec="microseconds")
        connection.execute("UPDATE config_history SET changed_at = ? WHERE id = 3", (before,))
        connection.commit()
    # The last one that was made before that moment counts, and all before it were made before it.
    assert await differing(history, STT, Point(moment=times[0]), version(5)) == {(STT, "a"): (0, 3)}
    assert await differing(history, STT, Point(moment=times[1]), version(5)) == {(STT, "a"): (2, 3)}


async def reached(history: History, service: ServiceName | None, point: Point) -> str | None:
    """Why it is not reached; None where it is."""
    try:
        await history.ask(HistoryActor.difference, service, point, Point())
    except NotReached as error:
        return f"{error.side}: {error}"
    return None


async def test_what_has_not_been_yet_is_not_reached(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    await write(database, STT, {"a": 1})
    assert await reached(history, STT, version(2)) is None
    assert await reached(history, STT, version(3)) == "from: stt-worker has no version 3 yet; its newest is 2."
    assert await reached(history, None, revision(3)) == "from: The store has no revision 3 yet; its newest is 2."
    told = await reached(history, None, Point(moment=datetime(2020, 1, 1, tzinfo=UTC)))
    assert told is not None
    assert told.startswith("from: The history goes back to ")
    with pytest.raises(NotReached) as error:
        await history.ask(HistoryActor.difference, STT, Point(), version(9))
    assert error.value.side == "to"


async def test_a_version_that_this_store_never_had_is_not_reached(
    database: Database, history: History, path: Path
) -> None:
    """As after a restore: the versions that the lost store may have had are left out."""
    await database.ask(DatabaseActor.ensure, new(STT))
    await write(database, STT, {"a": 1})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE service_configs SET version = 20")
        connection.commit()
    await write(database, STT, {"a": 2})
    for number in (1, 2, 20, 21):
        assert await reached(history, STT, version(number)) is None
    for number in (3, 19):
        told = await reached(history, STT, version(number))
        assert told == f"from: This store has never had version {number} of stt-worker; name another one."


async def test_a_version_without_a_row_in_the_history_is_like_the_one_before(
    database: Database, history: History
) -> None:
    """Such as one that only a new default has made."""
    await database.ask(DatabaseActor.ensure, new(STT))
    await write(database, STT, {})
    await write(database, STT, {"a": 1})
    await write(database, STT, {"a": 1})
    await write(database, STT, {"a": 2})
    for old, expected in ((1, ABSENT), (2, ABSENT), (3, 1), (4, 1)):
        assert await differing(history, STT, version(old)) == {(STT, "a"): (expected, 2)}


async def test_a_history_that_was_pruned_reaches_back_to_what_is_left(
    database: Database, history: History, path: Path
) -> None:
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    times = [await write(database, STT, {"a": number}) for number in range(5)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM config_history WHERE id < 3")
        connection.commit()
    # The oldest row left made version 4, out of 3.
    assert await differing(history, STT, version(3)) == {(STT, "a"): (1, 4)}
    told = "from: The history of stt-worker goes back to version 3; what was in version 2 is not known."
    assert await reached(history, STT, version(2)) == told
    assert await reached(history, None, revision(3)) is None
    assert await reached(history, None, revision(2)) == (
        "from: The history goes back to revision 3; what was in force at revision 2 is not known."
    )
    assert await reached(history, STT, Point(moment=times[2])) is None
    assert await reached(history, STT, Point(moment=times[1])) is not None
    # The other service has lost nothing: it was never changed, and then for the first time.
    assert await reached(history, TTS, version(1)) is None
    assert await differing(history, TTS, revision(1)) == {}
    await write(database, TTS, {"a": 1})
    assert await differing(history, TTS, revision(1)) == {(TTS, "a"): (ABSENT, 1)}
    assert await reached(history, None, revision(3)) is None
    assert await reached(history, None, Point(moment=times[2])) is None


async def test_a_service_that_the_store_does_not_have(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    with pytest.raises(UnknownService):
        await history.ask(HistoryActor.page, HistoryQuery(service=ROUTER))
    with pytest.raises(UnknownService):
        await history.ask(HistoryActor.difference, ROUTER, version(1), Point())


async def test_a_question_that_makes_no_sense(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    with pytest.raises(ValueError, match="needs a service"):
        await history.ask(HistoryActor.difference, None, version(1), Point())
    with pytest.raises(ValueError, match="offset"):
        await history.ask(HistoryActor.difference, None, Point(moment=datetime(2026, 1, 1)), Point())  # noqa: DTZ001


async def test_without_a_store_it_says_so_and_makes_none(history: History, path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=path.name):
        await history.ask(HistoryActor.page, HistoryQuery())
    assert not path.exists()


async def test_it_reads_while_another_writes_and_writes_nothing(
    database: Database, history: History, path: Path
) -> None:
    """It waits for no lock; and the writer for none of it."""
    await database.ask(DatabaseActor.ensure, new(STT))
    await write(database, STT, {"a": 1})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(1):
            found = await history.ask(HistoryActor.page, HistoryQuery())
        other.execute("ROLLBACK")
    assert [each.new_value for each in found] == [1]


async def test_pages_go_on_while_changes_come(database: Database, history: History) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    for number in range(6):
        await write(database, STT, {"a": number})
    seen: list[HistoryEntry] = []
    before = None
    while page := await history.ask(HistoryActor.page, HistoryQuery(limit=2, before=before)):
        seen += page
        before = page[-1].id
        await write(database, STT, {"a": 10 + len(seen)})
    assert [each.new_value for each in seen] == [5, 4, 3, 2, 1, 0]
