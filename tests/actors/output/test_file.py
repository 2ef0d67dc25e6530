"""The file: put aside at its size, nothing torn or lost by that, sound after a crash and a full disk."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.output._file import RotatingFile, Written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stt-worker.log"


@contextlib.contextmanager
def opened(path: Path, size: int = 100, files: int = 3) -> Iterator[RotatingFile]:
    file = RotatingFile(path, size, files)
    yield file
    file.close()


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full at that size: writing beyond fails with EFBIG (setrlimit(2); Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lines(count: int, start: int = 0) -> list[bytes]:
    return [b"line %04d\n" % number for number in range(start, start + count)]  # ten bytes each


def everything(path: Path) -> list[bytes]:
    found = sorted(path.parent.glob(f"{path.name}.*"), key=lambda each: -int(each.suffix[1:]))
    return b"".join(each.read_bytes() for each in [*found, path]).splitlines(keepends=True)


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_rotation_loses_and_tears_nothing_but_the_oldest(path: Path, batch: int) -> None:
    with opened(path) as file:
        for start in range(0, 280, batch):
            given = lines(min(batch, 280 - start), start)
            assert file.write(given) == Written(len(given))
    assert sorted(each.name for each in path.parent.iterdir()) == [f"stt-worker.log{end}" for end in ("", ".1", ".2")]
    assert all(each.stat().st_size <= 100 for each in path.parent.iterdir())
    assert everything(path) == lines(30, 250)


def test_it_is_the_owners_alone_and_goes_on_after_a_restart(path: Path) -> None:
    with opened(path) as file:
        file.write(lines(5))
    with opened(path) as file:
        file.write(lines(7, 5))
    assert everything(path) == lines(12)
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


def test_a_line_that_a_power_cut_tore_does_not_spoil_the_next(path: Path) -> None:
    path.write_bytes(b"whole\nto")
    with opened(path) as file:
        assert file.tail(1000) == [b"whole\n"]
        file.write([b"next\n"])
    assert path.read_bytes() == b"whole\nto\nnext\n"


def test_a_rotation_that_was_interrupted_goes_on(path: Path) -> None:
    with opened(path) as file:
        file.write(lines(30))
    path.with_name(path.name + ".1").unlink()
    with opened(path) as file:
        file.write(lines(20, 30))
    assert everything(path) == [*lines(20, 20), *lines(10, 40)][-30:]


def test_fewer_files_are_kept_at_once_and_others_are_left_alone(path: Path) -> None:
    foreign = [path.with_name(name) for name in ("stt-worker.log.old", "stt-worker-2.log.9", "stt-worker.log.gz")]
    for each in foreign:
        each.touch()
    with opened(path, files=5) as file:
        file.write(lines(50))
    with opened(path, files=1) as file:
        file.write(lines(15, 50))
    assert path.read_bytes() == b"".join(lines(5, 60))
    assert set(path.parent.iterdir()) == {path, *foreign}


def test_no_file_is_written_and_none_is_kept(path: Path) -> None:
    foreign = [path.with_name(name) for name in ("stt-worker.log.old", "stt-worker-2.log.9", "stt-worker.log.0")]
    for each in foreign:
        each.touch()
    with opened(path) as file:
        file.write(lines(25))
        assert set(path.parent.iterdir()) > {path, *foreign}
        file.configure(100, 0)
        assert file.write(lines(5)) == Written(5)
        assert set(path.parent.iterdir()) == set(foreign)
        file.configure(100, 2)
        file.write(lines(5))
        file.configure(100, 0)
        file.write(lines(5))
        assert set(path.parent.iterdir()) == set(foreign)
    with opened(path / "missing" / "x.log", files=0) as file:
        assert file.write(lines(1)) == Written(1)


def test_a_file_that_somebody_removed_is_made_again(path: Path) -> None:
    with opened(path) as file:
        file.write(lines(1))
        path.unlink()
        file.write(lines(1, 1))
    assert path.read_bytes() == b"line 0001\n"


def test_a_full_disk_leaves_whole_lines_and_heals(path: Path) -> None:
    with opened(path, size=10_000) as file:
        file.write(lines(3))
        with largest_file(35):
            written = file.write(lines(5, 3))
        assert (written.lines, written.error and written.error.errno) == (0, errno.EFBIG)
        assert path.read_bytes() == b"".join(lines(3))
        assert file.write(lines(5, 3)) == Written(5)
    assert everything(path) == lines(8)


def test_no_folder_and_no_file_are_told(path: Path) -> None:
    with opened(path / "missing" / "x.log") as file:
        error = file.write(lines(1)).error
        assert error is not None
        assert error.errno == errno.ENOENT
    elsewhere = path.with_name("elsewhere")
    path.symlink_to(elsewhere)
    with opened(path) as file:
        assert file.write(lines(1)).error is not None
    assert not elsewhere.exists()


def test_the_tail_reaches_into_the_file_before(path: Path) -> None:
    with opened(path) as file:
        assert file.tail(1000) == []
        file.write(lines(23))
        assert file.tail(1000) == lines(13, 10)
        assert file.tail(30) == lines(3, 20)
        assert file.tail(35) == lines(3, 20)
        assert file.tail(55) == lines(5, 18)
