"""The holder that we are attached to: what is told of one that does not do as it is told, or is lost."""

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from actors import holding
from actors.holder import HolderFailed, Spawn
from actors.holding import Holding
from tests.support import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize("how", ["stop", "detach"])
async def test_one_that_hangs_at_the_end_is_told_with_a_reason(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holding, "LAST_WORKER", 0.05)
    held = Holding(folder)
    holder = await held.open()
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        await (held.stop() if how == "stop" else held.detach())
    finally:
        os.kill(holder.pid, signal.SIGKILL)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition("in order: ")[2] for line in told] == ["that took longer than 0.05 s"]


async def test_while_there_is_none_it_is_told_why_nothing_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holding, "ATTACH_AGAIN", (0.01,))
    told: list[str] = []
    held = Holding(folder)
    held.on_trouble = told.append
    holder = await held.open()
    try:
        folder.chmod(0o755)
        os.kill(holder.pid, signal.SIGKILL)
        await eventually(lambda: len(told) > 2, what="that it is tried again")
        with pytest.raises(HolderFailed, match=r"no holder of them: .*must belong to this user alone"):
            await held.spawn(Spawn(service="svc", argv=("/bin/true",), cwd=folder, environment={}))
        folder.chmod(0o700)
        await eventually(lambda: told[-1] == "", what="the next one")
        assert "was killed" in told[0]
        assert all("must belong to this user alone" in line for line in told[1:-1])
        # However often it is tried, the log has it once.
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert errors == told[:2]
        process = await held.spawn(Spawn(service="svc", argv=("/bin/true",), cwd=folder, environment={}))
        async with asyncio.timeout(30):
            assert (await process.ended).clean
        process.forget()
    finally:
        folder.chmod(0o700)
        await held.stop()
