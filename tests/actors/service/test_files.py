"""The worker's files: whole or not at all, and no snapshot older than what was given out."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tars_config import wire

from actors.service import _files
from actors.service._files import Mark, OlderSnapshot, WorkerFiles
from schemas.states import Lifecycle
from tests.actors.service.support import SLEEPER, Rig
from tests.support import eventually

EPOCH = "7a77eccc-6606-4cda-b273-59fce21ce739"
OTHER = "7a77eccc-6606-4cda-b273-59fce21ce740"
KEY = Ed25519PrivateKey.generate()


def update(version: int, epoch: str = EPOCH) -> tuple[bytes, Mark]:
    config = {"n": version}
    signed = wire.encode_signed(
        KEY,
        service="svc",
        config_canonical=wire.canonical(config),
        config_checksum=wire.checksum(config),
        version=version,
        config_epoch=epoch,
        issued_at=datetime.now(UTC).replace(microsecond=1),
    )
    return signed, Mark(epoch, version)


@pytest.fixture
async def folders(tmp_path: Path) -> WorkerFiles:
    made = WorkerFiles(tmp_path / "runtime" / "svc", tmp_path / "state" / "svc")
    await made.create()
    return made


async def test_everything_is_private(folders: WorkerFiles) -> None:
    await folders.write_snapshot(*update(1))
    await folders.write_credentials({"key": "value"})
    for folder in (folders.runtime, folders.credentials, folders.state):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert folders.snapshot.stat().st_mode & 0o777 == 0o600
    await folders.create()  # once more, as at the next start


async def test_no_snapshot_is_replaced_by_an_older_one_of_its_epoch(folders: WorkerFiles) -> None:
    await folders.write_snapshot(*update(5))
    await folders.write_snapshot(*update(5))
    with pytest.raises(OlderSnapshot, match="version 5 was given out"):
        await folders.write_snapshot(*update(4))
    # Another run of the supervisor knows it from the file.
    again = WorkerFiles(folders.runtime, folders.state)
    assert not again.has_snapshot(Mark(EPOCH, 5))
    with pytest.raises(OlderSnapshot):
        await again.write_snapshot(*update(4))
    assert wire.decode(folders.snapshot.read_bytes()).version == 5
    await again.write_snapshot(*update(1, OTHER))
    assert again.has_snapshot(Mark(OTHER, 1))
    assert wire.decode(folders.snapshot.read_bytes()).config_epoch == OTHER


@pytest.mark.parametrize("rubbish", [b"", b"{", b"\xff" * 100, b"x" * (wire.MAX_MESSAGE_BYTES + 10)])
async def test_rubbish_is_replaced(folders: WorkerFiles, rubbish: bytes) -> None:
    folders.snapshot.write_bytes(rubbish)
    await folders.write_snapshot(*update(1))
    assert wire.decode(folders.snapshot.read_bytes()).version == 1


async def test_a_disk_that_gets_full_leaves_the_old_file(folders: WorkerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a part of the bytes first, and only then refuses."""
    await folders.write_credentials({"key": "the old secret"})

    def full(descriptor: int, data: memoryview, write: object = os.write) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:5])  # type: ignore[operator, no-any-return]

    with monkeypatch.context() as patched:
        patched.setattr(_files.os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            await folders.write_credentials({"key": "the new secret, which is longer"})
    assert (folders.credentials / "key").read_text() == "the old secret"
    assert [path.name for path in folders.credentials.iterdir()] == ["key"]


async def test_a_write_in_small_pieces_is_whole(folders: WorkerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        original = os.write
        patched.setattr(_files.os, "write", lambda descriptor, data: original(descriptor, data[:3]))
        await folders.write_credentials({"key": "longer than three"})
    assert (folders.credentials / "key").read_text() == "longer than three"


async def test_a_store_that_was_put_back_is_told_and_the_worker_keeps_the_newer(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.serve(SLEEPER)
    await rig.ready()
    await rig.change(volume=1)
    await rig.change(volume=2)
    await eventually(lambda: rig.snapshot().version == 3)
    rig.write_as_foreigner(
        "UPDATE service_configs SET version = 2, config_json = ?, checksum = ?",
        '{"volume": 1}',
        wire.checksum({"volume": 1, "engine": "piper"}),
    )
    rig.crash("svc")
    await eventually(lambda: len(rig.refs["svc"]) == 2)
    await rig.until(Lifecycle.READY)
    await eventually(lambda: "version 3 was given out" in caplog.text)
    assert rig.snapshot().version == 3
