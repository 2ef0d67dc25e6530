"""A group of commits is one statement: what it must not change, and what happens where it is refused."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.database import DatabaseActor, StoreUnavailable, UnknownService, VersionMismatch
from actors.database._store import Store
from actors.database._thread import ConnectionThread, Done
from schemas.records import (
    ABSENT,
    SECRET_MARK,
    CommitRequest,
    Committed,
    HistoryChange,
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
    change,
    log_commits,
    new,
    pages_of_last_commit,
    request,
    rows,
)

DEADLINE = 30
MANY = tuple(ServiceName(f"service-{number:02}") for number in range(64))


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(path)
    with closing(made.open()):
        yield made


def outside(path: Path, *statements: str) -> None:
    """Write as another program does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)


def simple(service: ServiceName, expected: int, value: Any) -> CommitRequest:
    return request(
        change(
            service,
            expected,
            {"a": value},
            on_the_wire=ANY_CHECKSUM,
            history=(HistoryChange("a", ABSENT, value),),
            items=(ItemRow("a", value, "string", "simple", "words"),),
        )
    )


def secret(service: ServiceName, expected: int, sealed: SealedSecret | None) -> CommitRequest:
    return request(change(service, expected, {}, secrets=(SecretChange("token", sealed),)))


# -- one statement


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 33, 64])
def test_a_group_of_any_size_is_one_transaction_and_one_after_the_other(store: Store, path: Path, size: int) -> None:
    group = MANY[:size]
    before = store.ensure(new(*MANY))
    _, transactions = log_commits(path)
    outcomes = store.commit([simple(service, 1, number) for number, service in enumerate(group)])
    assert log_commits(path)[1] == transactions + 1
    assert [each.revision for each in outcomes if isinstance(each, Committed)] == [
        before.revision + number for number in range(1, size + 1)
    ]
    found = rows(path, "SELECT service, revision, request_id FROM access_log WHERE action = 'write' ORDER BY id")
    assert [row[:2] for row in found] == [(name, before.revision + n) for n, name in enumerate(group, start=1)]
    assert rows(path, "SELECT service, revision, new_value_json FROM config_history ORDER BY id") == [
        (name, before.revision + n, str(n - 1)) for n, name in enumerate(group, start=1)
    ]
    assert {row[0] for row in rows(path, "SELECT count(*) FROM config_items")} == {size}


def test_a_group_may_have_two_versions_of_one_service(store: Store) -> None:
    store.ensure(new(STT))
    outcomes = store.commit([simple(STT, 1, "first"), simple(STT, 2, "second"), simple(STT, 2, "late")])
    assert [type(each) for each in outcomes] == [Committed, Committed, VersionMismatch]
    assert (store.load().services[STT].version, store.load().services[STT].config) == (3, {"a": "second"})


def test_a_commit_writes_few_pages(store: Store, path: Path) -> None:
    """The rows of service, store, history, item and access, and one index: what nobody queries has no page."""
    store.ensure(new(STT))
    store.commit([simple(STT, 1, 1)])
    store.commit([simple(STT, 2, 2)])
    assert pages_of_last_commit(path) == 6


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(old=JSON, value=JSON, words=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8))
def test_values_come_through_as_they_were_written(store: Store, path: Path, old: Any, value: Any, words: str) -> None:
    """SQLite takes the rows out of JSON arrays: byte for byte what `orjson` made of each value."""
    version = store.ensure(new(STT)).services[STT].version
    item = ItemRow("a", value, "string", "simple", words, words, (value, old))
    asked = change(STT, version, {"a": value}, history=(HistoryChange("a", old, value),), items=(item,))
    (outcome,) = store.commit([request(asked)])
    assert isinstance(outcome, Committed)
    text, old_text = orjson.dumps(value).decode(), orjson.dumps(old).decode()
    assert rows(path, "SELECT value_json, description, help_text, examples FROM config_items") == [
        (text, words, words, f"[{text},{old_text}]")
    ]
    newest = "SELECT old_value_json, new_value_json FROM config_history ORDER BY id DESC LIMIT 1"
    assert rows(path, newest) == [(old_text, text)]
    assert rows(path, "SELECT config_json FROM service_configs") == [(f'{{"a":{text}}}',)]


# -- refused


def test_who_cannot_be_served_harms_no_neighbour_whatever_it_is(store: Store, path: Path) -> None:
    sealed = SealedSecret(b"ciphertext-and-tag", b"nonce-nonce!", "master-1")
    before = store.ensure(new(STT, TTS, *MANY[:6]))
    several = request(
        change(STT, 1, {"b": 1}, history=(HistoryChange("b", ABSENT, 1),)),
        change(TTS, 1, {}, secrets=(SecretChange("token", sealed),)),
    )
    late = request(
        change(MANY[1], 1, {"c": 1}, secrets=(SecretChange("token", sealed),)),
        change(MANY[2], 7, {"c": 1}),
    )
    outcomes = store.commit(
        [
            simple(MANY[0], 1, "first"),
            several,
            simple(MANY[3], 99, "stale"),
            late,
            simple(ROUTER, 1, "unknown"),
            simple(MANY[4], 1, object()),
            secret(MANY[5], 1, sealed),
            simple(MANY[1], 1, "last"),
        ]
    )
    assert [type(each) for each in outcomes] == [
        Committed,
        Committed,
        VersionMismatch,
        VersionMismatch,
        UnknownService,
        orjson.JSONEncodeError,
        Committed,
        Committed,
    ]
    made = [each for each in outcomes if isinstance(each, Committed)]
    assert [each.revision for each in made] == [before.revision + number for number in range(1, 5)]
    assert made[1].versions == {STT: 2, TTS: 2}
    state = store.load()
    assert state.revision == before.revision + 4
    assert {name for name, each in state.services.items() if each.version == 2} == {
        STT,
        TTS,
        *(MANY[n] for n in (0, 1, 5)),
    }
    assert state.secrets == {TTS: {"token": sealed}, MANY[5]: {"token": sealed}}
    # One access row for each commit, also where it has several changes; each history row tells its own.
    assert rows(path, "SELECT revision, service FROM access_log WHERE action = 'write' ORDER BY id") == list(
        zip((each.revision for each in made), (MANY[0], None, MANY[5], MANY[1]), strict=True)
    )
    history = rows(path, "SELECT service, key, new_value_json, is_secret, revision FROM config_history ORDER BY id")
    assert history == [
        (MANY[0], "a", '"first"', 0, made[0].revision),
        (STT, "b", "1", 0, made[1].revision),
        (TTS, "token", f'"{SECRET_MARK}"', 1, made[1].revision),
        (MANY[5], "token", f'"{SECRET_MARK}"', 1, made[2].revision),
        (MANY[1], "a", '"last"', 0, made[3].revision),
    ]


def test_only_a_refused_group_needs_a_transaction_of_several_statements(store: Store) -> None:
    store.ensure(new(STT))
    traced: list[str] = []
    store._connection.set_trace_callback(traced.append)
    outcomes = [*store.commit([simple(STT, 1, 1)]), *store.commit([simple(STT, 2, 2), simple(STT, 3, 3)])]
    assert [type(each) for each in outcomes] == [Committed] * 3
    assert "BEGIN IMMEDIATE" not in traced

    store.commit([simple(STT, 7, "stale")])
    assert "BEGIN IMMEDIATE" in traced
    traced.clear()
    store.commit([simple(STT, 4, 4)])
    assert "BEGIN IMMEDIATE" not in traced
    store._connection.set_trace_callback(None)


# -- somebody else


def test_a_revision_of_somebody_elses_is_not_given_twice(store: Store, path: Path) -> None:
    before = store.ensure(new(STT, TTS))
    outside(path, "UPDATE store_meta SET revision = revision + 10")
    outcomes = store.commit([simple(STT, 1, 1), simple(TTS, 1, 1)])
    assert [each.revision for each in outcomes if isinstance(each, Committed)] == [
        before.revision + 11,
        before.revision + 12,
    ]
    (outcome,) = store.commit([simple(STT, 2, 2)])
    assert isinstance(outcome, Committed)
    assert outcome.revision == before.revision + 13


def test_a_new_epoch_of_somebody_elses_is_told(store: Store, path: Path) -> None:
    before = store.ensure(new(STT))
    outside(path, "UPDATE store_meta SET config_epoch = 'another'")
    (outcome,) = store.commit([simple(STT, 1, 1)])
    assert isinstance(outcome, Committed)
    assert (outcome.config_epoch, outcome.revision) == (Epoch("another"), before.revision + 1)


def test_somebody_elses_trigger_that_refuses_is_told(store: Store, path: Path) -> None:
    before = store.ensure(new(STT))
    outside(
        path,
        "CREATE TRIGGER no BEFORE UPDATE ON service_configs BEGIN SELECT RAISE(ABORT, 'not while I look'); END",
    )
    (outcome,) = store.commit([simple(STT, 1, 1)])
    assert isinstance(outcome, StoreUnavailable)
    assert "not while I look" in str(outcome)
    assert store.load() == before


def test_a_store_with_the_former_indexes_goes_on(path: Path) -> None:
    """They held every row once, and an existing reader may make them so again."""
    first = Store(path)
    with closing(first.open()) as connection:
        empty = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql LIKE '%WHERE 0'").fetchall()
        assert {"idx_config_history_time", "idx_access_log_time", "idx_access_log_user"} <= {name for name, _ in empty}
        first.ensure(new(STT))
        for name, text in empty:
            outside(path, f"DROP INDEX {name}", text.removesuffix(" WHERE 0"))
        # The connection that was open meanwhile, and one that finds them.
        (outcome,) = first.commit([simple(STT, 1, 1)])
        assert isinstance(outcome, Committed)
    again = Store(path)
    with closing(again.open()) as connection:
        (outcome,) = again.commit([simple(STT, 2, 2)])
        assert isinstance(outcome, Committed)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM access_log INDEXED BY idx_access_log_time").fetchone() == (3,)


WRITER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None) as other:
    print("ready", flush=True)
    for number in range(int(sys.argv[2])):
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE store_meta SET revision = revision + 1")
        other.execute("UPDATE service_configs SET updated_by = 'theirs' WHERE service = 'router'")
        other.execute("COMMIT")
"""


async def test_a_second_writing_process_costs_neither_of_us_anything(start: Starter) -> None:
    """A lone INSERT takes the write lock first, like BEGIN IMMEDIATE: it waits, and never has an old snapshot."""
    theirs, ours = 200, 100
    database = await start(busy_timeout=20.0)
    before = await database.ask(DatabaseActor.ensure, new(STT, TTS, ROUTER))
    command = [sys.executable, "-I", "-c", WRITER, str(start.path), str(theirs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        revisions: list[int] = []
        async with asyncio.timeout(DEADLINE):
            for version in range(1, ours + 1):
                made = await asyncio.gather(
                    *(database.ask(DatabaseActor.commit, simple(each, version, version)) for each in (STT, TTS))
                )
                revisions += (each.revision for each in made)
        await asyncio.to_thread(process.wait, DEADLINE)
    assert process.returncode == 0
    assert revisions == sorted(set(revisions))
    after = await database.ask(DatabaseActor.load)
    assert after.revision == before.revision + theirs + 2 * ours
    assert [after.services[each].version for each in (STT, TTS)] == [ours + 1] * 2


# -- cancellation


async def test_whoever_is_cancelled_waits_for_the_thread_and_the_answer_goes_out() -> None:
    thread = ConnectionThread(lambda: sqlite3.connect(":memory:"))
    (await thread.open()).result()
    may_end = threading.Event()
    answered: list[str] = []

    def work() -> str:
        assert may_end.wait(DEADLINE)
        return "done"

    async def ask() -> Done[str]:
        return await thread.run(work, answered.append)

    async with asyncio.timeout(DEADLINE):
        waiting = asyncio.create_task(ask())
        for _ in range(3):
            await asyncio.sleep(0)
            waiting.cancel()
        assert not waiting.done()
        assert answered == []
        may_end.set()
        done = await waiting
        assert answered == ["done"]
        assert isinstance(done.cancelled, asyncio.CancelledError)
        with pytest.raises(asyncio.CancelledError):
            done.result()
        assert done.work.result() == "done"
        (await thread.close()).result()
