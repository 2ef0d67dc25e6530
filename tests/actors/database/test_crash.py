"""Kill -9, and a disk that takes no more: in processes of their own."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.database import DatabaseActor
from schemas.records import StoredService
from tests.actors.database.conftest import Starter
from tests.actors.database.support import change, checksum, request

ROOT = Path(__file__).parents[3]


@contextmanager
def child(path: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.actors.database.child", str(path), what]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_after(path: Path, acknowledgements: int) -> tuple[dict[str, int], int]:
    """Run the child, kill it after so many acknowledgements, and give the last one of each service."""
    acknowledged: dict[str, int] = {}
    revision = 0
    with child(path, "commits") as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            if number == acknowledgements:
                process.kill()
            # What is still in the pipe was acknowledged too; a line may be cut short by the kill.
            if line.startswith("committed ") and line.endswith("\n"):
                _, service, version, its_revision = line.split()
                acknowledged[service] = max(int(version), acknowledged.get(service, 0))
                revision = max(int(its_revision), revision)
    return acknowledged, revision


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nothing_acknowledged_is_lost_in_a_kill(start: Starter, seed: int) -> None:
    chance = random.Random(seed)
    known: dict[str, int] = {}
    epochs = set()
    for _ in range(3):
        acknowledged, revision = kill_after(start.path, chance.randrange(1, 250))
        known |= acknowledged
        database = await start()
        state = await database.ask(DatabaseActor.load)
        epochs.add(state.config_epoch)
        assert state.revision >= revision
        for service in state.services.values():
            holds_together(service)
            assert service.version >= known.get(service.service, 1)
        # It goes on from there, and the next child from that.
        for service in state.services.values():
            content = {"from": service.version}
            committed = await database.ask(
                DatabaseActor.commit,
                request(change(service.service, service.version, content), request_id=f"r-{service.version}"),
            )
            known[service.service] = committed.versions[service.service]
        await start.stop()
    assert len(epochs) == 1


def holds_together(service: StoredService) -> None:
    """A version has the content, checksum and request of the one commit that made it."""
    content = {} if service.version == 1 else {"from": service.version - 1}
    assert service.config == content
    assert service.checksum == checksum(content)
    assert service.request_id == ("" if service.version == 1 else f"r-{service.version - 1}")
    assert (service.published_version or 0) <= service.version


def test_a_disk_that_takes_no_more_refuses_and_recovers(path: Path) -> None:
    with child(path, "full") as process:
        output, _ = process.communicate(timeout=30)
    assert output.splitlines() == ["refused locked 1", "refused locked 1", "small 2", "huge 3 healthy"]
    assert process.returncode == 0
