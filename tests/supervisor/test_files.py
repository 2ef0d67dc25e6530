"""`actors.files` on a real disk."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actors.files import write_atomically


def test_replaces_content_and_mode(tmp_path):
    path = tmp_path / "file"
    os.umask(0o077)
    write_atomically(path, b"one", 0o644)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_atomically(path, b"two" * 100_000)
    assert path.read_bytes() == b"two" * 100_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_replaces_what_a_link_names(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real/file")
    write_atomically(link, b"x")
    assert link.is_symlink()
    assert (tmp_path / "real/file").read_bytes() == b"x"


def test_keeps_the_owner(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 12346)
    write_atomically(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "missing" / "file", b"new")
    path.with_name(".file.tmp").mkdir()
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_readers_and_writers_at_once_see_whole_files(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"0" * 10_000)
    failures: list[BaseException] = []

    def write(letter: bytes) -> None:
        try:
            for _ in range(30):
                write_atomically(path, letter * 10_000)
                content = path.read_bytes()
                assert len(content) == 10_000
                assert len(set(content)) == 1
        except BaseException as error:  # noqa: BLE001 - told in the main thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_whole_files_and_no_litter(tmp_path: Path):
    path = tmp_path / "file"
    script = (
        "import sys, itertools; from pathlib import Path; from actors.files import write_atomically\n"
        "for n in itertools.count(): write_atomically(Path(sys.argv[1]), (b'%09d' % n) * 1000)\n"
    )
    for delay in range(5):
        writer = subprocess.Popen([sys.executable, "-c", script, str(path)])
        try:
            while not path.exists():
                pass
            for _ in range(delay * 200):
                content = path.read_bytes()
                assert len(content) == 9000
        finally:
            writer.kill()
            writer.wait(30)
        content = path.read_bytes()
        assert content == content[:9] * 1000
    assert len(list(tmp_path.iterdir())) <= 2
    write_atomically(path, b"x")
    assert list(tmp_path.iterdir()) == [path]
