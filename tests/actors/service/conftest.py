"""The rig, closed with the test."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.actors.service.support import Rig, WorkerLog, running, worker_log

MakeRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[MakeRig]:
    """Make rigs with `await make_rig(**options)`, each in the same folder."""
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> Rig:
            return await stack.enter_async_context(running(Rig(tmp_path / "rig", **options)))

        yield make


@pytest.fixture
async def rig(make_rig: MakeRig) -> Rig:
    return await make_rig()


@pytest.fixture
def printed() -> Iterator[WorkerLog]:
    with worker_log() as log:
        yield log
