import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import folders
from supervisor.folders import FoldersRefused, inspect_folders, open_folders
from supervisor.settings import Settings, load_settings

HOLDER = """
import sys
from pathlib import Path
from supervisor.folders import open_folders
from supervisor.settings import load_settings
held = open_folders(load_settings({"RUNTIME_DIRECTORY": sys.argv[2]}, Path(sys.argv[1])))
print("locked", flush=True)
sys.stdin.read()
"""


def settings(cwd: Path, **environ: str) -> Settings:
    return load_settings({"RUNTIME_DIRECTORY": str(cwd / "run"), **environ}, cwd)


def refused(found: Settings) -> list[str]:
    with pytest.raises(FoldersRefused) as error:
        open_folders(found)
    return list(error.value.lines)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_makes_private_folders(tmp_path):
    with open_folders(settings(tmp_path, CONFIG_DB_PATH="a/b/config.db")) as opened:
        assert opened.data == tmp_path / "a/b"
        assert opened.runtime == tmp_path / "run"
        assert [mode(opened.data), mode(opened.runtime)] == [0o700, 0o700]
        assert [mode(path) for path in (*opened.data.iterdir(), *opened.runtime.iterdir())] == [0o600, 0o600]


def test_the_runtime_folder_is_chosen_as_the_contract_says(tmp_path):
    xdg = tmp_path / "xdg"
    xdg.mkdir(mode=0o700)
    both = load_settings({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": str(xdg)}, tmp_path)
    assert folders.plan(both).runtime == Path("/run/a")
    assert folders.plan(load_settings({"XDG_RUNTIME_DIR": str(xdg)}, tmp_path)).runtime == xdg / "tars-supervisor"
    fallen_back = folders.plan(load_settings({"XDG_RUNTIME_DIR": "/nowhere"}, tmp_path))
    assert fallen_back.runtime == tmp_path / "data/run"
    assert "XDG_RUNTIME_DIR names /nowhere" in fallen_back.warnings[0]
    assert folders.plan(load_settings({}, tmp_path)).runtime == tmp_path / "data/run"
    with open_folders(load_settings({}, tmp_path)) as opened:
        assert mode(opened.runtime) == 0o700


@pytest.fixture
def memory() -> Iterator[Path]:
    shm = Path("/dev/shm")
    if folders.filesystem(shm) != "tmpfs" or not os.access(shm, os.W_OK):
        pytest.skip("/dev/shm is not a tmpfs that can be written")
    path = Path(tempfile.mkdtemp(dir=shm))
    yield path
    shutil.rmtree(path)


def test_warns_where_the_runtime_folder_is_not_in_memory(tmp_path, memory):
    assert folders.plan(settings(tmp_path, RUNTIME_DIRECTORY=str(memory / "run"))).warnings == ()
    if folders.filesystem(tmp_path) != "tmpfs":
        [warning] = folders.plan(settings(tmp_path)).warnings
        assert "not in memory" in warning
        assert "RUNTIME_DIRECTORY" in warning


def test_a_folder_open_to_others_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o750)
    expected = (
        f"the data folder {tmp_path}/data is open to other users (mode 0750); run: chmod 700 {tmp_path}/data, "
        "or choose another folder with CONFIG_DB_PATH"
    )
    assert refused(settings(tmp_path)) == [expected]
    assert inspect_folders(settings(tmp_path)) == [expected]


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give folders away")
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 12345, 12345)
    [line] = refused(settings(tmp_path))
    assert line.startswith(f"the runtime folder {tmp_path}/run belongs to user id 12345 and this program runs as 0;")


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "data").touch()
    (tmp_path / "lkg").touch()
    lines = refused(settings(tmp_path, CONFIG_LKG_CACHE_PATH="lkg/x.json"))
    assert [f"{tmp_path}/data cannot be made" in lines[0], f"{tmp_path}/lkg cannot be made" in lines[1]] == [True] * 2
    assert "CONFIG_LKG_CACHE_PATH" in lines[1]


@pytest.mark.parametrize("place", ["/proc/tars/config.db", "/dev/full/config.db"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, place):
    [line] = refused(settings(tmp_path, CONFIG_DB_PATH=place))
    assert "the data folder" in line
    assert line.endswith("make it, or choose another with CONFIG_DB_PATH")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    (tmp_path / "data").mkdir(mode=0o500)
    [line] = refused(settings(tmp_path))
    assert "cannot be written; run: chmod u+rwx" in line


def test_inspecting_sees_what_can_be_seen(tmp_path):
    (tmp_path / "data").touch()
    (tmp_path / "file").touch()
    lines = inspect_folders(settings(tmp_path, RUNTIME_DIRECTORY=str(tmp_path / "file/run")))
    assert "is not a folder; move it away" in lines[0]
    assert f"file/run cannot be made ({tmp_path}/file is not a folder)" in lines[1]


def test_inspecting_changes_nothing(tmp_path):
    assert inspect_folders(settings(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shared", ["data", "runtime"])
def test_two_supervisors_share_no_folder(tmp_path, shared):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "one"), str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        if shared == "data":
            wanted = settings(tmp_path / "one", RUNTIME_DIRECTORY=str(tmp_path / "other"))
            words = f"the data folder {tmp_path}/one/data; stop that one, or choose another folder with CONFIG_DB_PATH"
        else:
            wanted = settings(tmp_path / "two", RUNTIME_DIRECTORY=str(tmp_path / "run"))
            words = f"the runtime folder {tmp_path}/run; stop that one, or choose another folder with RUNTIME_DIRECTORY"
        assert refused(wanted) == [f"another supervisor (pid {holder.pid}) already uses {words}"]
        # However it ends, the folder is free then, and whoever was refused holds nothing.
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
        open_folders(wanted).close()
    finally:
        holder.kill()
        holder.communicate(timeout=30)


def test_a_child_does_not_keep_the_lock(tmp_path):
    opened = open_folders(settings(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        opened.close()
        opened.close()
        open_folders(settings(tmp_path)).close()
    finally:
        child.kill()
        child.communicate(timeout=30)


def test_one_folder_for_both(tmp_path):
    with open_folders(settings(tmp_path, RUNTIME_DIRECTORY=str(tmp_path / "data"))) as opened:
        assert opened.data == opened.runtime


def test_a_lock_that_is_handed_over_is_never_free(tmp_path):
    """Whoever has a descriptor of it has the lock, until the last of them is closed; a foreign one is of no use."""
    found = settings(tmp_path)
    with open_folders(found) as first:
        assert folders.owner(first.data) == os.getpid()
        copies = [os.dup(each) for each in first.locks]
        second = open_folders(found, copies)
        assert set(second.locks) == set(copies)
        first.close()
        assert "already uses" in refused(found)[0]
        third = [os.dup(each) for each in second.locks]
        second.close()
        assert folders.owner(first.data) == os.getpid()
        for each in third:
            os.close(each)
    assert folders.owner(first.data) is None
    with (tmp_path / "other").open("w") as other, open_folders(found, [other.fileno()]) as opened:
        assert other.fileno() not in opened.locks
    assert folders.owner(tmp_path / "nowhere") is None
