"""Profiles in the store: what one holds, names, and what the access log tells of it."""

import asyncio
import sqlite3
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing
from pathlib import Path

import pytest

from actors.database import DatabaseActor, StoreUnavailable, UnknownService
from schemas.profiles import (
    MOST_PROFILES,
    Author,
    NewProfile,
    ProfileChange,
    ProfileExists,
    TooManyProfiles,
    UnknownProfile,
)
from schemas.types import ServiceName
from tests.actors.database.conftest import Starter
from tests.actors.database.support import ROUTER, STT, TTS, Database, change, new, request, rows

OWNER = Author("owner", "r-1", "127.0.0.1")
GUEST = Author("guest", "r-2")
KEYS = frozenset({"volume", "voice"})


@pytest.fixture
async def filled(database: Database) -> Database:
    await database.ask(DatabaseActor.ensure, new(STT, TTS))
    await database.ask(DatabaseActor.commit, request(change(TTS, 1, {"volume": 40, "voice": "für", "old": [1, None]})))
    return database


def saving(
    name: str,
    services: Mapping[ServiceName, AbstractSet[str]] | None = None,
    *,
    description: str | None = None,
    replace: bool = False,
    author: Author = OWNER,
) -> NewProfile:
    return NewProfile(
        name=name, description=description, services=services or {TTS: KEYS}, replace=replace, author=author
    )


def changing(name: str, new_name: str | None = None, description: str | None = None) -> ProfileChange:
    return ProfileChange(name=name, new_name=new_name, description=description, author=GUEST)


async def test_a_profile_holds_what_is_set_and_outlives_a_restart(filled: Database, start: Starter) -> None:
    saved = await filled.ask(DatabaseActor.save_profile, saving("Evening", {TTS: KEYS, STT: KEYS}, description="quiet"))
    assert (saved.name, saved.description, saved.services) == ("Evening", "quiet", (TTS, STT))
    assert (saved.created_by, saved.updated_by, saved.created_at) == ("owner", "owner", saved.updated_at)
    await filled.ask(DatabaseActor.commit, request(change(TTS, 2, {"volume": 80})))
    await start.stop()
    again = await start()
    found = await again.ask(DatabaseActor.profile, "Evening")
    assert found.entry == saved
    # Only what may be in a profile is.
    assert found.settings == {TTS: {"volume": 40, "voice": "für"}, STT: {}}
    assert await again.ask(DatabaseActor.profiles) == (saved,)


async def test_a_name_is_taken_once_unless_it_may_be_replaced(filled: Database) -> None:
    first = await filled.ask(DatabaseActor.save_profile, saving("Evening", description="quiet"))
    with pytest.raises(ProfileExists, match="already"):
        await filled.ask(DatabaseActor.save_profile, saving("Evening", author=GUEST))
    await filled.ask(DatabaseActor.commit, request(change(TTS, 2, {"volume": 80})))
    second = await filled.ask(DatabaseActor.save_profile, saving("Evening", replace=True, author=GUEST))
    assert (second.description, second.created_by, second.updated_by) == ("quiet", "owner", "guest")
    assert (second.created_at, second.updated_at > first.updated_at) == (first.created_at, True)
    assert (await filled.ask(DatabaseActor.profile, "Evening")).settings == {TTS: {"volume": 80}}


async def test_of_many_that_save_one_name_one_wins(filled: Database) -> None:
    asked = [filled.ask(DatabaseActor.save_profile, saving("Evening")) for _ in range(5)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(each, ProfileExists) for each in outcomes] == [False, True, True, True, True]


async def test_there_is_room_for_so_many(filled: Database) -> None:
    for number in range(MOST_PROFILES):
        await filled.ask(DatabaseActor.save_profile, saving(f"{number:03}"))
    with pytest.raises(TooManyProfiles, match="delete or replace"):
        await filled.ask(DatabaseActor.save_profile, saving("one more"))
    await filled.ask(DatabaseActor.save_profile, saving("000", replace=True))
    await filled.ask(DatabaseActor.delete_profile, "001", OWNER)
    await filled.ask(DatabaseActor.save_profile, saving("one more"))
    assert len(await filled.ask(DatabaseActor.profiles)) == MOST_PROFILES


async def test_renamed_and_described_anew(filled: Database) -> None:
    for name in ("Evening", "Late"):
        await filled.ask(DatabaseActor.save_profile, saving(name, description="quiet"))
    with pytest.raises(ProfileExists):
        await filled.ask(DatabaseActor.change_profile, changing("Evening", "Late"))
    renamed = await filled.ask(DatabaseActor.change_profile, changing("Evening", "Abend"))
    assert (renamed.name, renamed.description, renamed.created_by, renamed.updated_by) == (
        "Abend",
        "quiet",
        "owner",
        "guest",
    )
    assert (await filled.ask(DatabaseActor.change_profile, changing("Abend", "Abend", ""))).description == ""
    assert [each.name for each in await filled.ask(DatabaseActor.profiles)] == ["Abend", "Late"]
    assert (await filled.ask(DatabaseActor.profile, "Abend")).settings == {TTS: {"volume": 40, "voice": "für"}}


async def test_what_there_is_not(filled: Database) -> None:
    for asked in (
        filled.ask(DatabaseActor.profile, "Evening"),
        filled.ask(DatabaseActor.change_profile, changing("Evening", "Late")),
        filled.ask(DatabaseActor.delete_profile, "Evening", OWNER),
    ):
        with pytest.raises(UnknownProfile, match='no profile "Evening"'):
            await asked
    with pytest.raises(UnknownService):
        await filled.ask(DatabaseActor.save_profile, saving("Evening", {TTS: KEYS, ROUTER: KEYS}))
    assert await filled.ask(DatabaseActor.profiles) == ()


async def test_the_access_log_tells_who_did_what_and_nothing_of_what_was_refused(filled: Database, path: Path) -> None:
    await filled.ask(DatabaseActor.save_profile, saving("Evening"))
    with pytest.raises(ProfileExists):
        await filled.ask(DatabaseActor.save_profile, saving("Evening"))
    await filled.ask(DatabaseActor.save_profile, saving("Evening", replace=True))
    await filled.ask(DatabaseActor.change_profile, changing("Evening", "Late"))
    await filled.ask(DatabaseActor.change_profile, changing("Late", description="dark"))
    await filled.ask(DatabaseActor.delete_profile, "Late", GUEST)
    query = "SELECT user_id, action, reason, request_id, address, success, revision FROM access_log WHERE action LIKE ?"
    assert rows(path, query, "profile-%") == [
        ("owner", "profile-save", "profile Evening", "r-1", "127.0.0.1", 1, None),
        ("owner", "profile-save", "profile Evening replaced", "r-1", "127.0.0.1", 1, None),
        ("guest", "profile-change", "profile Evening renamed to Late", "r-2", None, 1, None),
        ("guest", "profile-change", "profile Late described anew", "r-2", None, 1, None),
        ("guest", "profile-delete", "profile Late", "r-2", None, 1, None),
    ]
    # None of it is a change of a setting: the next commit finds the revision that it expects.
    await filled.ask(DatabaseActor.commit, request(change(TTS, 2, {"volume": 1})))


@pytest.mark.parametrize("text", ["", "7", "[1]", "{", '{"tts-worker": 7}'])
async def test_one_that_somebody_has_spoilt_is_told_and_can_be_deleted(filled: Database, path: Path, text: str) -> None:
    for name in ("Evening", "Late"):
        await filled.ask(DatabaseActor.save_profile, saving(name))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE config_profiles SET config_snapshot_json = ? WHERE profile_name = 'Late'", (text,))
    assert [each.name for each in await filled.ask(DatabaseActor.profiles)] == ["Evening", "Late"]
    with pytest.raises(StoreUnavailable, match="Late"):
        await filled.ask(DatabaseActor.profile, "Late")
    assert (await filled.ask(DatabaseActor.profile, "Evening")).entry.name == "Evening"
    await filled.ask(DatabaseActor.delete_profile, "Late", OWNER)


async def test_a_store_that_another_program_holds_is_no_answer(start: Starter, path: Path) -> None:
    database = await start(busy_timeout=0.0)
    await database.ask(DatabaseActor.ensure, new(TTS))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await database.ask(DatabaseActor.save_profile, saving("Evening"))
        assert await database.ask(DatabaseActor.profiles) == ()
    await database.ask(DatabaseActor.save_profile, saving("Evening"))
