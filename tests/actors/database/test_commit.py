"""Commits: what they write, what they refuse, and how they share a transaction."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.database import DatabaseActor, HistoryActor, UnknownService, VersionMismatch
from schemas.records import (
    ABSENT,
    SECRET_MARK,
    AccessEntry,
    Committed,
    HistoryChange,
    HistoryQuery,
    ItemRow,
    SealedSecret,
    SecretChange,
)
from schemas.types import Epoch, ServiceName
from tests.actors.database.conftest import Starter
from tests.actors.database.support import (
    ANY_CHECKSUM,
    ROUTER,
    STT,
    TTS,
    Database,
    History,
    change,
    checksum,
    log_commits,
    new,
    request,
    rows,
    stored,
)

DEADLINE = 30


async def test_a_commit_is_the_next_version_and_survives_a_restart(start: Starter) -> None:
    database = await start()
    before = await database.ask(DatabaseActor.ensure, new(STT))
    config = {"vad_threshold": 0.25, "ws_url": None, "name": "Küche"}

    committed = await database.ask(
        DatabaseActor.commit, request(change(STT, 1, config), request_id="mine", reason="louder")
    )

    assert committed.versions == {STT: 2}
    assert committed.revision == before.revision + 1
    assert committed.config_epoch == before.config_epoch
    await start.stop()
    after = await (await start()).ask(DatabaseActor.load)
    assert (after.config_epoch, after.revision) == (before.config_epoch, committed.revision)
    found = after.services[STT]
    assert found.config == config
    assert (found.version, found.checksum, found.request_id) == (2, checksum(config), "mine")
    assert (found.updated_at, found.updated_by) == (committed.committed_at, "owner")


async def test_it_writes_items_history_and_one_access_row(database: Database, path: Path) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    item = ItemRow("vad_threshold", 0.3, "float", "simple", "How loud speech is", None, (0.1, 0.5))
    for version, (old, value) in enumerate(((ABSENT, 0.3), (0.3, 0.4)), start=1):
        await database.ask(
            DatabaseActor.commit,
            request(
                change(
                    STT,
                    version,
                    {"vad_threshold": value},
                    history=(HistoryChange("vad_threshold", old, value),),
                    items=(
                        ItemRow(item.key, value, item.type, item.complexity, item.description, None, item.examples),
                    ),
                ),
                reason="why",
            ),
        )

    assert rows(path, "SELECT service, key, value_json, type, complexity, description, examples FROM config_items") == [
        (STT, "vad_threshold", "0.4", "float", "simple", "How loud speech is", "[0.1,0.5]")
    ]
    assert rows(path, "SELECT key, old_value_json, new_value_json, version, change_reason FROM config_history") == [
        ("vad_threshold", None, "0.3", 2, "why"),
        ("vad_threshold", "0.3", "0.4", 3, "why"),
    ]
    assert rows(path, "SELECT user_id, action, service, success, address, detail FROM access_log") == [
        (None, "create", None, 1, None, '{"versions":{"stt-worker":1}}'),
        ("owner", "write", STT, 1, "127.0.0.1", '{"versions":{"stt-worker":2}}'),
        ("owner", "write", STT, 1, "127.0.0.1", '{"versions":{"stt-worker":3}}'),
    ]


async def test_an_item_follows_a_new_description_and_goes_with_its_key(database: Database, path: Path) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    first = ItemRow("a", 1, "integer", "simple", "old words")
    second = ItemRow("a", 1, "integer", "advanced", "new words", "help")
    for version, item in enumerate((first, second, ItemRow("a", ABSENT, "integer", "simple", "")), start=1):
        await database.ask(DatabaseActor.commit, request(change(STT, version, {}, items=(item,))))
        found = rows(path, "SELECT complexity, description, help_text FROM config_items")
        expected = [] if item.value is ABSENT else [(item.complexity, item.description, item.help_text)]
        assert found == expected


async def test_several_services_are_one_revision(database: Database) -> None:
    before = await database.ask(DatabaseActor.ensure, new(STT, TTS))

    committed = await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}), change(TTS, 1, {"b": 2})))

    assert committed.versions == {STT: 2, TTS: 2}
    after = await database.ask(DatabaseActor.load)
    assert after.revision == before.revision + 1
    assert {name: each.config for name, each in after.services.items()} == {STT: {"a": 1}, TTS: {"b": 2}}


async def test_several_services_are_all_or_nothing(database: Database, path: Path) -> None:
    before = await database.ask(DatabaseActor.ensure, new(STT, TTS))

    with pytest.raises(VersionMismatch):
        await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}), change(TTS, 7, {"b": 2})))

    assert await database.ask(DatabaseActor.load) == before
    assert rows(path, "SELECT count(*) FROM access_log WHERE action = 'write'") == [(0,)]


async def test_a_stale_version_is_told_what_is_current(database: Database) -> None:
    before = await database.ask(DatabaseActor.ensure, new(STT))
    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}), request_id="first"))

    with pytest.raises(VersionMismatch, match=r"^Version mismatch: expected 1, current is 2$") as refused:
        await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 2})))

    error = refused.value
    assert (error.service, error.expected, error.current) == (STT, 1, 2)
    assert (error.config_epoch, error.request_id) == (before.config_epoch, "first")
    assert (await stored(database, STT)).config == {"a": 1}


async def test_the_epoch_is_compared_where_given(database: Database) -> None:
    before = await database.ask(DatabaseActor.ensure, new(STT))
    other = Epoch("00000000-0000-4000-8000-000000000000")

    with pytest.raises(VersionMismatch, match="epoch") as refused:
        await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}, epoch=other)))
    assert refused.value.config_epoch == before.config_epoch

    await database.ask(DatabaseActor.commit, request(change(STT, 1, {"a": 1}, epoch=before.config_epoch)))


async def test_an_unknown_service_is_not_made(database: Database) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    with pytest.raises(UnknownService, match="no service 'router'"):
        await database.ask(DatabaseActor.commit, request(change(ROUTER, 1, {})))
    assert set((await database.ask(DatabaseActor.load)).services) == {STT}


async def test_secrets_are_sealed_apart_and_only_marked_elsewhere(
    database: Database, history: History, path: Path
) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    sealed = SealedSecret(b"ciphertext-and-tag", b"nonce-nonce!", "master-1")
    item = ItemRow("api_key", "clear text", "secret", "advanced", "Key of the service", is_secret=True)
    steps: tuple[SealedSecret | None, ...] = (None, sealed, SealedSecret(b"other", b"nonce", "master-2"), None)
    for version, each in enumerate(steps, start=1):
        secrets = (SecretChange("api_key", each),)
        await database.ask(DatabaseActor.commit, request(change(STT, version, {}, secrets=secrets, items=(item,))))
        state = await database.ask(DatabaseActor.load)
        assert state.secrets == ({} if each is None else {STT: {"api_key": each}})

    found = await history.ask(HistoryActor.page, HistoryQuery())
    assert [(entry.old_value, entry.new_value, entry.is_secret) for entry in reversed(found)] == [
        (ABSENT, SECRET_MARK, True),
        (SECRET_MARK, SECRET_MARK, True),
        (SECRET_MARK, ABSENT, True),
    ]
    assert rows(path, "SELECT value_json FROM config_items") == [(f'"{SECRET_MARK}"',)]
    for suffix in ("", "-wal"):
        assert b"clear text" not in path.with_name(path.name + suffix).read_bytes()
    assert "ciphertext" not in repr(sealed)
    assert "nonce" not in repr(sealed)


BAD: tuple[tuple[str, Any], ...] = (
    ("not JSON", lambda: change(STT, 1, {"a": object()}, on_the_wire=ANY_CHECKSUM)),
    ("more than 64 bits", lambda: change(STT, 1, {"a": 2**70}, on_the_wire=ANY_CHECKSUM)),
    ("half a surrogate pair", lambda: change(STT, 1, {"a": "\ud800"}, on_the_wire=ANY_CHECKSUM)),
    ("secret in clear", lambda: change(STT, 1, {"a": 1}, secrets=(SecretChange("a", None),))),
)


@pytest.mark.parametrize("bad", [build for _, build in BAD], ids=[name for name, _ in BAD])
async def test_a_request_that_makes_no_sense_changes_nothing(database: Database, bad: Any) -> None:
    before = await database.ask(DatabaseActor.ensure, new(STT, TTS))
    asked = request(change(TTS, 1, {"b": 1}), bad())
    with pytest.raises((ValueError, TypeError)):
        await database.ask(DatabaseActor.commit, asked)
    assert await database.ask(DatabaseActor.load) == before


async def test_a_request_without_changes_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="at least one change"):
        await database.ask(DatabaseActor.commit, request())


async def test_of_eight_writers_exactly_one_wins_each_round(database: Database) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    async with asyncio.timeout(DEADLINE):
        for version in range(1, 101):
            outcomes = await asyncio.gather(
                *(
                    database.ask(
                        DatabaseActor.commit,
                        request(change(STT, version, {"round": version, "writer": writer}), request_id=f"{writer}"),
                    )
                    for writer in range(8)
                ),
                return_exceptions=True,
            )
            winners = [writer for writer, each in enumerate(outcomes) if isinstance(each, Committed)]
            losers = [each for each in outcomes if isinstance(each, VersionMismatch)]
            assert (len(winners), len(losers)) == (1, 7)
            assert {(each.current, each.request_id) for each in losers} == {(version + 1, f"{winners[0]}")}
            now = await stored(database, STT)
            assert (now.version, now.config) == (version + 1, {"round": version, "writer": winners[0]})


async def test_waiting_requests_share_one_transaction(database: Database, path: Path) -> None:
    services = tuple(ServiceName(f"service-{number}") for number in range(16))
    before = await database.ask(DatabaseActor.ensure, new(*services))
    salt, transactions = log_commits(path)

    committed = await asyncio.gather(
        *(database.ask(DatabaseActor.commit, request(change(each, 1, {"a": 1}))) for each in services)
    )

    # The first may have gone off alone before the others were in the mailbox.
    after_salt, after = log_commits(path)
    assert after_salt == salt
    assert 1 <= after - transactions <= 2
    revisions = [each.revision for each in committed]
    assert sorted(revisions) == list(range(before.revision + 1, before.revision + 17))


async def test_a_bad_request_harms_no_neighbour(database: Database, path: Path) -> None:
    good = tuple(ServiceName(f"service-{number}") for number in range(8))
    before = await database.ask(DatabaseActor.ensure, new(*good))
    requests = []
    for service in good:
        requests.append(request(change(service, 1, {"a": 1})))
        # It has written one service's row, and then finds the other's version wrong.
        requests.append(request(change(service, 2, {"a": 2}), change(good[0], 99, {})))
        requests.append(request(change(service, 2, {"a": object()}, on_the_wire=ANY_CHECKSUM)))

    outcomes = await asyncio.gather(
        *(database.ask(DatabaseActor.commit, each) for each in requests), return_exceptions=True
    )

    kinds = [type(each) for each in outcomes]
    assert kinds == [Committed, VersionMismatch, orjson.JSONEncodeError] * 8
    after = await database.ask(DatabaseActor.load)
    assert after.revision == before.revision + 8
    assert {name: (each.version, each.config) for name, each in after.services.items()} == dict.fromkeys(
        good, (2, {"a": 1})
    )
    assert rows(path, "SELECT count(*) FROM access_log WHERE action = 'write'") == [(8,)]


async def test_those_who_lose_cost_no_fsync(database: Database, path: Path) -> None:
    await database.ask(DatabaseActor.ensure, new(STT))
    before = log_commits(path)
    for _ in range(5):
        with pytest.raises(VersionMismatch):
            await database.ask(DatabaseActor.commit, request(change(STT, 7, {})))
    assert log_commits(path) == before


async def test_the_access_log_takes_other_entries_and_keeps_all(database: Database, path: Path) -> None:
    entry = AccessEntry("owner", "reveal", success=False, service=STT, key="api_key", reason="lost", request_id="r-1")
    before = datetime.now(UTC)
    await asyncio.gather(*(database.ask(DatabaseActor.log_access, entry) for _ in range(5)))

    found = rows(path, "SELECT timestamp, user_id, action, service, key, success, reason, request_id FROM access_log")
    assert len(found) == 5
    assert {row[1:] for row in found} == {("owner", "reveal", STT, "api_key", 0, "lost", "r-1")}
    assert all(before <= datetime.fromisoformat(row[0]) for row in found)
