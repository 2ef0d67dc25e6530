"""Health: what parts say, drawn together, kept on the board, published."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from actors.board import Board
from actors.health import CONNECTION_LOST, HEALTH_TOPIC, Component, HealthActor, last_will
from actors.runtime import Handle
from schemas.states import DatabaseStatus, OperationalMode

KEYS = {
    *("ok", "database_status", "operational_mode", "config_epoch", "schema_version"),
    *("lkg_cache_valid", "litestream_status", "last_backup", "event", "err"),
}


class Published:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, topic: str, payload: bytes) -> None:
        assert topic == HEALTH_TOPIC
        self.messages.append(json.loads(payload))

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]


@contextlib.asynccontextmanager
async def running(board: Board, published: Published) -> AsyncIterator[Handle[HealthActor]]:
    ref = HealthActor.start(board, published)
    await ref.started
    handle: Handle[HealthActor] = Handle("health")
    handle.attach(ref)
    try:
        yield handle
    finally:
        await ref.stop(block=False)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def published() -> Published:
    return Published()


async def test_all_is_well_when_every_part_is(board: Board, published: Published) -> None:
    async with running(board, published) as health:
        await health.ask(HealthActor.database, DatabaseStatus.HEALTHY)
        await health.ask(HealthActor.lkg, True)
        await health.ask(HealthActor.report, Component.BRIDGE, True, "", "mqtt://127.0.0.1:1")
        await health.ask(HealthActor.facts, "an-epoch", 3)
    assert set(published.last) == KEYS
    assert published.last == json.loads(board.health.model_dump_json())
    assert (published.last["ok"], published.last["err"]) == (True, None)
    assert (published.last["config_epoch"], published.last["schema_version"]) == ("an-epoch", 3)
    assert published.last["lkg_cache_valid"]
    assert board.components[Component.BRIDGE].address == "mqtt://127.0.0.1:1"


async def test_who_is_ill_is_named_and_gets_well(board: Board, published: Published) -> None:
    async with running(board, published) as health:
        await health.ask(HealthActor.database, DatabaseStatus.HEALTHY)
        since = board.components[Component.DATABASE].since
        await health.ask(HealthActor.report, Component.BRIDGE, False, "nobody listens")
        await health.ask(HealthActor.database, DatabaseStatus.LOCKED, "the disk is full")
        assert not published.last["ok"]
        assert published.last["err"] == "database: the disk is full; bridge: nobody listens"
        assert published.last["database_status"] == "locked"
        assert published.last["operational_mode"] == "read-only-fallback"
        assert board.components[Component.DATABASE].since > since
        since = board.components[Component.BRIDGE].since
        await health.ask(HealthActor.report, Component.BRIDGE, False, "another reason")
        assert board.components[Component.BRIDGE].since == since  # ill since then, whatever the reason
        await health.ask(HealthActor.database, DatabaseStatus.HEALTHY)
        await health.ask(HealthActor.report, Component.BRIDGE, True)
        assert (published.last["ok"], published.last["operational_mode"]) == (True, OperationalMode.NORMAL)


async def test_a_repeat_is_not_published(board: Board, published: Published) -> None:
    async with running(board, published) as health:
        for _ in range(3):
            await health.ask(HealthActor.report, Component.BRIDGE, False, "nobody listens")
    assert len(published.messages) == 1


async def test_a_change_of_state_is_logged_as_nobodys_request(
    board: Board, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    request: ContextVar[str] = ContextVar("request", default="nobody's")
    seen: list[tuple[str, str]] = []

    def note(record: logging.LogRecord) -> bool:
        seen.append((record.getMessage(), request.get()))
        return True

    caplog.set_level(logging.INFO, "actors.health")
    caplog.handler.addFilter(note)
    request.set("somebody's")
    async with running(board, published) as health:
        await health.ask(HealthActor.database, DatabaseStatus.LOCKED, "the disk is full")
        await health.ask(HealthActor.database, DatabaseStatus.HEALTHY)
        await health.ask(HealthActor.report, Component.BROKER, False, "it was killed")  # told by its supervisor
    caplog.handler.removeFilter(note)
    assert seen == [("database is ill: the disk is full", "nobody's"), ("database is well", "nobody's")]


async def test_another_illness_in_the_same_words_is(board: Board, published: Published) -> None:
    async with running(board, published) as health:
        await health.ask(HealthActor.database, DatabaseStatus.LOCKED, "it cannot be used")
        await health.ask(HealthActor.database, DatabaseStatus.CORRUPTED, "it cannot be used")
    assert published.last["database_status"] == board.health.database_status == "corrupted"


async def test_a_restart_forgets_nothing(board: Board, published: Published) -> None:
    async with running(board, published) as health:
        await health.ask(HealthActor.facts, "an-epoch", 3)
        await health.ask(HealthActor.lkg, True)
        await health.ask(HealthActor.database, DatabaseStatus.CORRUPTED, "damaged")
    async with running(board, published) as health:
        await health.ask(HealthActor.announce)
    assert published.last["database_status"] == "corrupted"
    assert published.last["config_epoch"] == "an-epoch"
    assert published.last["lkg_cache_valid"]
    assert published.last["err"] == "database: damaged"


async def test_first_and_last_words(board: Board, published: Published) -> None:
    async with running(board, published) as health:
        await health.ask(HealthActor.report, Component.BRIDGE, True)
        topic, payload = last_will(board)
        assert topic == HEALTH_TOPIC
        assert json.loads(payload) == {**published.last, "ok": False, "event": CONNECTION_LOST}
        await health.ask(HealthActor.farewell)
    assert (published.last["ok"], published.last["event"], published.last["err"]) == (False, "stopped", None)
