"""What a start and `check` say, and do to the folders, where workers have users of their own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.boot import examine, prepare
from supervisor.folders import FoldersRefused, open_folders
from supervisor.report import report
from supervisor.settings import load_settings

USER = 'user = "daemon"\n'
ONE = '[services.router]\ncommand = ["cat"]\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can start workers of other users")
    folder = Path(tempfile.mkdtemp(prefix="users-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def warnings(home: Path, manifest: str, **environ: str) -> list[str]:
    (home / "services.toml").write_text(manifest)
    given = {"RUNTIME_DIRECTORY": "/dev/shm/tars-not-there", "PATH": "/usr/bin:/bin", **environ}
    return [
        line for line in examine(given, home, search=()).warnings if "API token" not in line and "on tmpfs" not in line
    ]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_nothing_is_said_where_all_is_well(place: Path) -> None:
    assert warnings(place, ONE + USER) == []
    assert [path.name for path in place.iterdir()] == ["services.toml"]


def test_folders_that_their_users_may_not_enter_are_named_once_each(place: Path) -> None:
    (place / "data").mkdir(mode=0o700)
    (place / "closed").mkdir(mode=0o700)
    manifest = ONE + USER + '[services.stt-worker]\ncommand = ["cat"]\nuser = "games"\n'
    [line] = warnings(place, manifest, RUNTIME_DIRECTORY=str(place / "closed" / "run"))
    assert line == (
        f"router (daemon), stt-worker (games): the worker's user may not enter {place}/closed, and so reaches nothing in "
        f"the runtime folder {place}/closed/run; run: chmod o+x {place}/closed, or choose another place with RUNTIME_DIRECTORY"
    )
    # The data folder is the supervisor's own to open, with the runtime folder in it.
    assert warnings(place, manifest, RUNTIME_DIRECTORY=str(place / "data" / "run")) == []
    assert warnings(place, ONE, RUNTIME_DIRECTORY=str(place / "closed" / "run")) == []


def test_check_tells_who_has_none(place: Path) -> None:
    (place / "services.toml").write_text(
        ONE + USER + '[services.stt-worker]\ncommand = ["cat"]\n[services.hall]\nkind = "external"\nmodel = "router"\n'
    )
    lines = report(examine({"RUNTIME_DIRECTORY": str(place / "run")}, place, search=()))
    told = next(number for number, line in enumerate(lines) if line.startswith("without a user of its own"))
    assert lines[told + 1] == "  stt-worker"
    (place / "services.toml").write_text(ONE + USER)
    lines = report(examine({"RUNTIME_DIRECTORY": str(place / "run")}, place, search=()))
    assert not any("without a user" in line for line in lines)


def test_files_that_they_come_past_are_named(place: Path) -> None:
    (place / "data").mkdir(mode=0o700)
    for name, file_mode in (("copy.db", 0o644), ("private.db", 0o600)):
        (place / "data" / name).touch()
        (place / "data" / name).chmod(file_mode)
    [line] = warnings(place, ONE + USER)
    assert f"pass through the data folder {place}/data, and can reach copy.db in it; run: chmod go-rwx" in line
    assert warnings(place, ONE) == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('user = "no-such-one"\n', "there is no user no-such-one; create it, or mend `user` in the manifest"),
        ('group = "no-such-one"\n', "there is no group no-such-one; create it, or mend `group` in the manifest"),
        ('user = "daemon"\ncwd = "closed"\n', "daemon may not enter {place}/closed, and cwd is {place}/closed"),
        (
            'readiness = { kind = "exec", command = ["no-such-probe"] }\n',
            "there is no program no-such-probe on the PATH; mend readiness.command, or install it",
        ),
        (
            'liveness = { kind = "exec", command = ["./no-such-probe"] }\n',
            "{place}/no-such-probe is no program that can be run; mend liveness.command, or install it",
        ),
        ('environment = { PATH = "/nowhere" }\n', "there is no program cat on the PATH; mend command, or install it"),
    ],
)
def test_what_a_worker_lacks_is_named(place: Path, keys: str, told: str) -> None:
    (place / "closed").mkdir(mode=0o700)
    [line] = warnings(place, ONE + keys)
    assert line.startswith(f"{place}/services.toml: router: {told.format(place=place)}")


def test_a_program_in_a_folder_that_its_user_may_not_enter(place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    shutil.copy("/bin/true", place / "closed" / "program")
    (place / "program").symlink_to("closed/program")
    [line] = warnings(place, f'[services.router]\ncommand = ["./program"]\n{USER}')
    assert f"daemon may not enter {place}/closed, and command is {place}/program; run: chmod o+x {place}/closed" in line


def test_the_restart_command_of_an_external_one(place: Path) -> None:
    [line] = warnings(place, '[services.router]\nkind = "external"\nrestart_command = ["no-such-program"]\n')
    assert "router: there is no program no-such-program on the PATH; mend restart_command, or install it" in line


def test_a_start_closes_what_no_worker_needs(place: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": str(place / "run")}
    for folder in ("data/state", "run/services"):
        (place / folder).mkdir(parents=True)
        for each in (place / folder, (place / folder).parent):
            each.chmod(0o711)
    all_folders = [place / name for name in ("data", "data/state", "run", "run/services")]
    (place / "services.toml").write_text(ONE + USER)
    with prepare(environ, place, search=()).folders:
        assert {mode(folder) for folder in all_folders} == {0o711}
    (place / "services.toml").write_text(ONE)
    with prepare(environ, place, search=()).folders:
        assert {mode(folder) for folder in all_folders} == {0o700}


@pytest.mark.parametrize("open_mode", [0o751, 0o715, 0o713, 0o755])
def test_a_folder_that_others_can_list_or_change_is_refused(place: Path, open_mode: int) -> None:
    (place / "data").mkdir()
    (place / "data").chmod(open_mode)
    with pytest.raises(FoldersRefused, match="is open to other users"):
        open_folders(load_settings({"RUNTIME_DIRECTORY": str(place / "run")}, place))
