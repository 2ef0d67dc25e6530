"""The unit for systemd: the keys that the program stands on, and a root with the capabilities of the drop-in alone."""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.holding import LAST_WORKER
from schemas.manifest import parse_manifest
from supervisor.wiring import REQUEST_GRACE
from tests.deploy.pages import DEPLOY, ROOT
from tests.support import wait_until
from tests.system.program import PROGRAM, Program

UNIT = DEPLOY / "tars-supervisor.service"
DROP_IN = DEPLOY / "own-users.conf"
SINCE_254 = {"RestartSteps", "RestartMaxDelaySec", "DelegateSubgroup"}


def keys(*files: Path) -> dict[tuple[str, str], list[str]]:
    """Section and key to its values, in order, as systemd.syntax(7) has it."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in files:
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith(("#", ";")):
                key, separator, value = line.partition("=")
                assert separator, line
                found.setdefault((section, key), []).append(value)
    return found


REQUIRED = [
    ("Unit", "StartLimitIntervalSec", "0", "a board that nobody looks at would stay down after five failures"),
    ("Service", "Restart", "always", "its own exit codes 0, 1 and 2 are no reason to stay down"),
    ("Service", "KillMode", "process", "else systemd kills the workers with a supervisor that has crashed"),
    ("Service", "Delegate", "yes", "else the workers' cgroups are systemd's to change"),
    ("Service", "DelegateSubgroup", "supervisor", "memory is limited only beside, not in, the supervisor's own cgroup"),
    ("Service", "OOMPolicy", "continue", "else a worker that is killed for its memory stops everything"),
    ("Service", "OOMScoreAdjust", "0", "workers inherit it, and would be spared in place of the system"),
    ("Service", "ExecReload", "/bin/kill -USR2 $MAINPID", "an upgrade is this signal"),
    ("Service", "RuntimeDirectory", "tars", "where the holder is found again"),
    ("Service", "RuntimeDirectoryPreserve", "yes", "without it a crash doubled a worker"),
    ("Service", "RuntimeDirectoryMode", "0700", "the program refuses any other"),
    ("Service", "StateDirectory", "tars", "where the store is"),
    ("Service", "StateDirectoryMode", "0700", "the program refuses any other"),
    ("Service", "EnvironmentFile", "-/etc/default/tars-supervisor", "it may be missing"),
    ("Service", "NoNewPrivileges", "yes", "no worker becomes somebody else"),
    ("Service", "StandardOutput", "null", "the summary shows the first token"),
    ("Service", "StandardError", "journal", "it would follow standard output otherwise"),
    ("Install", "WantedBy", "multi-user.target", "it starts with the board"),
]


@pytest.mark.parametrize(("section", "key", "value", "reason"), REQUIRED, ids=[key for _, key, _, _ in REQUIRED])
def test_required(section: str, key: str, value: str, reason: str) -> None:
    assert keys(UNIT).get((section, key)) == [value], reason


def test_workers_with_users_of_their_own_are_not_locked_out_by_a_start() -> None:
    """systemd sets these modes before each start, and workers live on meanwhile."""
    found = keys(DROP_IN)
    assert found["Service", "StateDirectoryMode"] == found["Service", "RuntimeDirectoryMode"] == ["0711"]


def test_its_type_is_what_the_program_does() -> None:
    """A unit of type notify whose program is silent is killed at its start; one of type exec gets no new main process."""
    speaks = any(
        re.search(r"\bsystemd\.(ready|notify)\(|import .*\b(ready|notify)\b", file.read_text())
        for file in (ROOT / "supervisor").glob("*.py")
        if file.name != "systemd.py"
    )
    assert keys(UNIT)["Service", "Type"] == (["notify"] if speaks else ["exec"])
    # The one that is the service says which process will be; nobody else may.
    assert keys(UNIT).get(("Service", "NotifyAccess")) == (["main"] if speaks else None)


def test_nothing_makes_a_namespace() -> None:
    """A supervisor that is started again would see another system than the workers that ran on, or take their /tmp away."""
    makers = re.compile(
        r"Private\w+|Protect\w+|ReadWritePaths|ReadOnlyPaths|InaccessiblePaths|BindPaths|TemporaryFileSystem"
    )
    makers_too = {
        "DynamicUser",
        "RootDirectory",
        "RootImage",
        "RestrictRealtime",
        "MemoryDenyWriteExecute",
        "DeviceAllow",
    }
    for _, key in keys(UNIT, DROP_IN):
        assert not makers.fullmatch(key), key
        assert key not in makers_too, key


def test_a_stop_has_the_time_that_it_needs() -> None:
    """Of the manifest beside it: requests, the longest grace, then the parts one after the other, and the holder."""
    manifest = parse_manifest((DEPLOY / "services.tars.toml").read_text(), "services.tars.toml", DEPLOY)
    longest = max(service.grace for service in manifest.services)
    (text,) = keys(UNIT)["Service", "TimeoutStopSec"]
    assert text.endswith("min")
    # The store, the cache, the broker and the bridge have up to 15 s each, though they take milliseconds.
    assert float(text.removesuffix("min")) * 60 >= REQUEST_GRACE + longest + 5 + 4 * 15 + LAST_WORKER


def test_placeholders_are_those_that_the_installer_fills() -> None:
    assert set(re.findall(r"@[A-Z]+@", UNIT.read_text())) == {"@PREFIX@", "@USER@"}
    assert keys(UNIT)["Service", "ExecStart"] == ["@PREFIX@/current/bin/tars-supervisor run"]
    assert not re.findall(r"@[A-Z]+@", DROP_IN.read_text())


def test_its_settings_file_names_the_folders_of_the_unit() -> None:
    lines = (DEPLOY / "supervisor.env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert values["CONFIG_DB_PATH"] == "/var/lib/" + keys(UNIT)["Service", "StateDirectory"][0] + "/config.db"
    assert keys(UNIT)["Service", "Environment"] == ["ENV_FILE=/etc/tars/supervisor.env"]
    # What the unit sets would win over the owner's file.
    assert not values.keys() & {value.split("=")[0] for value in keys(UNIT)["Service", "Environment"]}


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The unit as it is installed, in a place where what it names exists."""
    (tmp_path / "current/bin").mkdir(parents=True)
    shutil.copy("/bin/true", tmp_path / "current/bin/tars-supervisor")
    text = UNIT.read_text().replace("@PREFIX@", str(tmp_path)).replace("@USER@", "root")
    (tmp_path / "share").mkdir()
    (tmp_path / "share/operations.md").touch()
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    return unit


@pytest.mark.parametrize("own_users", [False, True])
def test_systemd_understands_it(filled: Path, own_users: bool) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        # Not among what `task setup` installs.
        pytest.skip("systemd-analyze is not installed (Debian: apt install systemd)")
    if own_users:
        folder = filled.with_name(f"{filled.name}.d")
        folder.mkdir()
        shutil.copy(DROP_IN, folder)
    done = subprocess.run(
        [analyze, "verify", "--man=no", filled],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{filled.parent}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # It only warns of keys that it does not know.
    ours = [line for line in done.stderr.splitlines() if filled.name in line or "own-users" in line]
    unknown = {match[1] for line in ours if (match := re.search(r"Unknown key(?: name)? '(\w+)'", line))}
    assert unknown <= SINCE_254
    assert len([line for line in ours if "Unknown key" not in line]) == 0, done.stderr


class Bounded(Program):
    """The program as systemd runs it with the drop-in: root, with no more capabilities than these."""

    def launch(self) -> "subprocess.Popen[bytes]":
        (capabilities,) = {*keys(DROP_IN)["Service", "CapabilityBoundingSet"]}
        wanted = [f"+{name.removeprefix('CAP_').lower()}" for name in capabilities.split()]
        setpriv = ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={','.join(['-all', *wanted])}"]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*setpriv, PROGRAM, "run"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self.process


@pytest.fixture
def bounded() -> Iterator[Bounded]:
    if os.geteuid() != 0:
        pytest.skip("only root can start workers of other users")
    # Those of pytest are closed to others.
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    script = (
        "id -un; grep -qs lamp $TARS_CONFIG_SNAPSHOT && touch $TARS_STATE_DIRECTORY/x && echo kept; umask; "
        "(setsid sleep 1000 &); trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
    )
    program = Bounded(
        place / "installation",
        f"""
[services.lamp]
command = {json.dumps(["/bin/sh", "-c", script])}
cwd = "/"
model = "router"
user = "nobody"
nice = -1
readiness = {{ kind = "log-line", pattern = "^0077$" }}
""",
    )
    yield program
    program.close()
    shutil.rmtree(place)


def test_root_with_these_capabilities_runs_workers_of_others(bounded: Bounded) -> None:
    """Started as somebody else, ended with all that it left, and found again after a kill."""
    bounded.start()
    bounded.until("ready")
    assert bounded.lines_of("lamp")[:2] == ["nobody", "kept"]
    tree = [Path("/proc", str(process.pid)) for process in bounded.processes()]
    nobody = pwd.getpwnam("nobody").pw_uid
    # The shell, its child, and the one that has left its session; besides, the broker.
    assert [process.stat().st_uid for process in tree].count(nobody) == 3
    bounded.kill()
    # systemd does so at each start, whatever the program made of it.
    for folder in ("data", "runtime"):
        (bounded.folder / folder).chmod(int(keys(DROP_IN)["Service", "StateDirectoryMode"][0], 8))
    bounded.start()
    assert "adopted" in bounded.until("lamp: adopted")
    assert bounded.stop(signal.SIGTERM) == 0
    wait_until(lambda: not any(process.exists() for process in tree), what="the end of the worker's tree")


def test_no_secret_reaches_the_journal(tmp_path: Path) -> None:
    """What the unit throws away is where the summary shows the token; the log does not have it."""
    program = Program(tmp_path / "installation", '[services.lamp]\nkind = "config-only"\nmodel = "router"\n')
    try:
        program.start()
        assert program.token in program.stdout
        login = program.broker.password
        assert login
        assert program.stop() == 0
        assert program.token not in program.stderr
        assert login not in program.stderr
    finally:
        program.close()


def test_the_manifest_beside_it_has_no_users_switched_on() -> None:
    """The unit runs as an ordinary user, who could not start it."""
    manifest = tomllib.loads((DEPLOY / "services.tars.toml").read_text())
    assert not any("user" in service for service in manifest["services"].values())
