"""A real database actor on a real file, for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.database import DatabaseActor, HistoryActor
from actors.runtime import Handle, Ref
from tests.actors.database.support import SCHEMAS, Database, History


class Starter:
    """Starts database actors on one file, and stops them at the test's end at the latest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running: list[Ref[DatabaseActor]] = []

    async def __call__(self, **options: Any) -> Database:
        ref = DatabaseActor.start(self.path, **options)
        await ref.started
        self._running.append(ref)
        handle: Database = Handle("database")
        handle.attach(ref)
        return handle

    @property
    def ref(self) -> Ref[DatabaseActor]:
        """The one that was started last."""
        return self._running[-1]

    async def stop(self) -> None:
        """Stop what runs, in order."""
        while self._running:
            ref = self._running.pop()
            await ref.stop(block=False)
            await ref.exited


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.db"


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Starter]:
    starter = Starter(path)
    yield starter
    with anyio.fail_after(30):
        await starter.stop()


@pytest.fixture
async def database(start: Starter) -> Database:
    return await start()


@pytest.fixture
async def history(path: Path) -> AsyncIterator[History]:
    """The history's actor on the same file, which knows the models of `support.SCHEMAS`."""
    ref = HistoryActor.start(path, SCHEMAS.get)
    await ref.started
    handle: History = Handle("history")
    handle.attach(ref)
    yield handle
    with anyio.fail_after(20):
        await ref.stop(block=False)
        await ref.exited
