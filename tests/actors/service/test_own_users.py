"""The files of a worker with a user of its own: whose they are, and what that user cannot make of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tars_config import wire

from actors.accounts import Account
from actors.service._files import Mark, OlderSnapshot, WorkerFiles, give_tree
from tests.actors.service.test_files import EPOCH, KEY, update

PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
FIRST, SECOND = Account(54321, 54331, (54331,), "first"), Account(54322, 54332, (54332,), "second")


@pytest.fixture
def place() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def files(place: Path) -> WorkerFiles:
    return WorkerFiles(place / "run" / "services" / "svc", place / "data" / "state" / "svc", PEM)


def whose(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, status.st_mode & 0o777


async def fill(files: WorkerFiles, owner: Account | None) -> None:
    await files.create(owner=owner)
    await files.write_snapshot(*update(5))
    await files.write_credentials({"pin": "4711"})


async def test_what_is_whose(files: WorkerFiles, place: Path) -> None:
    await fill(files, FIRST)
    for folder in ("run", "run/services", "data", "data/state"):
        assert whose(place / folder) == (0, 0, 0o711)
    # It cannot put anything into a folder that we write to.
    assert whose(files.runtime) == (0, FIRST.gid, 0o710)
    assert whose(files.credentials) == (0, FIRST.gid, 0o750)
    assert whose(files.credentials / "pin") == (FIRST.uid, FIRST.gid, 0o400)
    assert whose(files.snapshot) == (FIRST.uid, FIRST.gid, 0o600)
    assert whose(files.state) == (FIRST.uid, FIRST.gid, 0o700)
    shutil.rmtree(place / "run")
    await files.write_snapshot(*update(6))
    assert whose(files.runtime) == (0, FIRST.gid, 0o710)
    assert whose(place / "run") == (0, 0, 0o711)


@pytest.mark.parametrize("owner", [FIRST, None])
async def test_what_a_crash_has_left_is_not_written_to(files: WorkerFiles, owner: Account | None) -> None:
    """Between chown(2) and rename(2) it is the worker's already, also of one that is root's from now on."""
    await fill(files, FIRST)
    with (files.credentials / ".pin").open("w") as left:
        os.chown(left.fileno(), FIRST.uid, FIRST.gid)
        await files.create(owner=owner)
        await files.write_credentials({"pin": "0815"})
        assert (files.credentials / "pin").read_text() == "0815"
        assert not os.path.samestat(os.fstat(left.fileno()), (files.credentials / "pin").stat())


async def test_another_user_takes_over(files: WorkerFiles) -> None:
    await fill(files, FIRST)
    inner = files.state / "model" / "cache"
    inner.mkdir(parents=True)
    theirs = [files.state / "model", inner, inner / "file", inner / "link", inner / "pipe"]
    (inner / "file").touch()
    (inner / "link").symlink_to("/etc/hostname")
    os.mkfifo(inner / "pipe")
    (inner / "foreign").touch()
    for path in theirs:
        os.chown(path, FIRST.uid, FIRST.gid, follow_symlinks=False)
    outside = whose(Path("/etc/hostname"))
    again = WorkerFiles(files.runtime, files.state, PEM)
    await fill(again, SECOND)
    assert {whose(path)[:2] for path in (files.state, *theirs)} == {SECOND[:2]}
    # Nothing is given away that was not the first one's.
    assert whose(inner / "foreign")[0] == 0
    assert whose(Path("/etc/hostname")) == outside
    assert whose(files.credentials / "pin")[:2] == SECOND[:2]
    # And to nobody but us.
    ours = WorkerFiles(files.runtime, files.state, PEM)
    await fill(ours, None)
    assert {whose(path)[0] for path in (files.state, *theirs, files.snapshot, files.credentials / "pin")} == {0}
    assert {whose(folder)[2] for folder in (files.runtime, files.credentials, files.state)} == {0o700}


async def test_a_handing_over_that_was_cut_off_is_done_anew(
    files: WorkerFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    await files.create(owner=FIRST)
    for name in ("a", "b", "c"):
        (files.state / name).touch()
        os.chown(files.state / name, *FIRST[:2])
    real, done = os.chown, []

    def fails(path: str, uid: int, gid: int) -> None:
        if done:
            raise OSError(5, "Input/output error", path)
        done.append(path)
        real(path, uid, gid)

    with monkeypatch.context() as patched:
        patched.setattr(os, "chown", fails)
        with pytest.raises(OSError, match="Input/output"):
            give_tree(files.state, *SECOND[:2])
    assert whose(files.state)[0] == FIRST.uid
    give_tree(files.state, *SECOND[:2])
    assert {whose(path)[0] for path in (files.state, *files.state.iterdir())} == {SECOND.uid}


async def test_a_link_in_the_place_of_its_folder_is_not_followed(files: WorkerFiles, place: Path) -> None:
    await files.create(owner=FIRST)
    (place / "elsewhere").mkdir()
    (files.state).rmdir()
    files.state.symlink_to(place / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        give_tree(files.state, *FIRST[:2])
    assert whose(place / "elsewhere")[0] == 0


async def test_a_snapshot_that_its_worker_has_changed_keeps_nothing_from_it(files: WorkerFiles) -> None:
    """A version of its own making would pass for one that was given out, and every later one for an older one."""
    await fill(files, FIRST)
    high, _ = update(10**6)
    forged = wire.decode(high).encode().replace(b'"n":1000000', b'"n":1000001')
    assert forged != high
    files.snapshot.write_bytes(forged)
    await WorkerFiles(files.runtime, files.state, PEM).create(owner=FIRST)
    again = WorkerFiles(files.runtime, files.state, PEM)
    await again.create(owner=FIRST)
    await again.write_snapshot(*update(6))
    assert wire.decode(files.snapshot.read_bytes()).version == 6
    # One that is ours is known again all the same.
    once_more = WorkerFiles(files.runtime, files.state, PEM)
    await once_more.create(owner=FIRST)
    with pytest.raises(OlderSnapshot):
        await once_more.write_snapshot(*update(5))
    assert not once_more.has_snapshot(Mark(EPOCH, 5))


async def test_a_folder_above_that_is_closed_is_named(files: WorkerFiles, place: Path) -> None:
    place.chmod(0o700)
    await files.create(owner=FIRST)
    with pytest.raises(
        OSError, match=f"its user first may not enter {place}, .*chmod o\\+x {place}, .*RUNTIME_DIRECTORY"
    ):
        await files.create(owner=FIRST, credentials={"pin": "0815"})
    assert not (files.credentials / "pin").exists()
    place.chmod(0o711)
    await files.create(owner=FIRST, credentials={"pin": "0815"})
    assert (files.credentials / "pin").exists()
