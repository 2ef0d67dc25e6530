"""The installer, into a root of its own: what it makes, what it leaves alone, what it takes away."""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.pages import DEPLOY, ROOT

# A Python that makes environments in no time, and writes down what it was asked for.
FAKE = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" "$3/lib" && cp "$0" "$3/bin/python" ;;
"-m pip" | "-m compileall") echo "$*" >>"$(dirname "$0")/../asked" ;;
"--version ") echo "Python 3.11.0" ;;
esac
"""


class Machine:
    """A root folder, and a release that is installed there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.release = folder / "release"
        (self.release / "dist").mkdir(parents=True)
        shutil.copytree(DEPLOY, self.release / "deploy")
        for name in ("tars_config-0.1.0-py3-none-any.whl", "tars_supervisor-0.1.0-py3-none-any.whl"):
            (self.release / "dist" / name).write_bytes(b"one")
        (self.release / "requirements.lock").touch()
        self.python = folder / "python"
        self.python.write_text(FAKE)
        self.python.chmod(0o755)

    def install(self, *options: str, python: str | None = None) -> str:
        done = self.run("--root", str(self.root), "--python", python or str(self.python), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *options: str) -> str:
        done = self.run(*options)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("install: ")
        return done.stderr

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", self.release / "deploy" / "install.sh", *options],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def next_release(self) -> None:
        for wheel in (self.release / "dist").iterdir():
            wheel.write_bytes(wheel.read_bytes() + b"more")

    @property
    def versions(self) -> set[str]:
        return {each.name for each in (self.root / "opt/tars-supervisor/versions").iterdir()}

    @property
    def current(self) -> str:
        return (self.root / "opt/tars-supervisor/current").readlink().name

    def tree(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file with its number, mode and content: what is written anew has another number."""
        return {
            str(path.relative_to(self.root)): (path.lstat().st_ino, path.lstat().st_mode, _content(path))
            for path in self.root.rglob("*")
            # Records of what was shipped, which are written each time.
            if "share" not in path.parts
        }


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return str(path.readlink()).encode()
    return path.read_bytes() if path.is_file() else b""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


SETTINGS = "etc/tars/supervisor.env"
MANIFEST = "etc/tars/services.toml"
UNIT = "etc/systemd/system/tars-supervisor.service"
DROP_IN = f"{UNIT}.d/own-users.conf"


def test_it_is_there_with_the_right_modes(machine: Machine) -> None:
    machine.install()

    def mode(name: str) -> int:
        return stat.S_IMODE((machine.root / name).stat().st_mode)

    assert mode("etc/tars") == mode("var/lib/tars") == mode("run/tars") == 0o700
    assert mode(SETTINGS) == 0o600
    assert mode(MANIFEST) == mode(UNIT) == 0o644
    assert (machine.root / MANIFEST).read_text() == (DEPLOY / "services.tars.toml").read_text()
    unit = (machine.root / UNIT).read_text()
    assert "ExecStart=/opt/tars-supervisor/current/bin/tars-supervisor run\n" in unit
    assert "\nUser=tars\n" in unit
    assert "@" not in unit.replace("# @PREFIX@ and @USER@", "").replace("# /opt", "")
    assert not (machine.root / DROP_IN).exists()
    # Compiled after everything was installed.
    asked = (machine.root / "opt/tars-supervisor/current/asked").read_text().splitlines()
    assert [line.split()[1] for line in asked] == ["pip", "pip", "compileall"]
    assert "--require-hashes" in asked[0]


def test_once_more_changes_nothing(machine: Machine) -> None:
    machine.install()
    before = machine.tree()
    said = machine.install()
    assert machine.tree() == before
    assert "installed already" in said


def test_a_dry_run_does_nothing(machine: Machine) -> None:
    said = machine.install("--dry-run")
    assert list(machine.root.iterdir()) == []
    assert f"install -m 0600 {machine.release}/deploy/supervisor.env" in said
    machine.install()
    before = machine.tree()
    machine.next_release()
    machine.install("--dry-run")
    machine.install("--dry-run", "--uninstall", "--purge")
    assert machine.tree() == before


def test_what_the_owner_has_changed_stays(machine: Machine) -> None:
    machine.install()
    for name in (MANIFEST, UNIT, SETTINGS):
        with (machine.root / name).open("a") as file:
            file.write("# mine\n")
    mine = machine.tree()
    # The same release has nothing new to offer.
    assert ".new" not in machine.install()
    assert machine.tree() == mine
    for shipped in ("services.tars.toml", "tars-supervisor.service", "supervisor.env"):
        with (machine.release / "deploy" / shipped).open("a") as file:
            file.write("# theirs\n")
    said = machine.install()
    for name in (MANIFEST, UNIT):
        assert (machine.root / name).read_text().endswith("# mine\n")
        assert (machine.root / f"{name}.new").read_text().endswith("# theirs\n")
        assert f"look at /{name}.new" in said
    # It holds keys.
    assert (machine.root / SETTINGS).read_text().endswith("# mine\n")
    assert not (machine.root / f"{SETTINGS}.new").exists()
    # Told once.
    assert ".new" not in machine.install()


def test_what_the_owner_has_not_changed_is_renewed(machine: Machine) -> None:
    machine.install()
    with (machine.release / "deploy" / "services.tars.toml").open("a") as file:
        file.write("# theirs\n")
    machine.install()
    assert (machine.root / MANIFEST).read_text().endswith("# theirs\n")
    assert not (machine.root / f"{MANIFEST}.new").exists()


def test_a_release_has_an_environment_of_its_own(machine: Machine) -> None:
    """The one before stays for the way back; what an older supervisor still runs from stays as well."""
    machine.install()
    first = machine.current
    machine.next_release()
    machine.install()
    second = machine.current
    assert first != second
    assert machine.versions == {first, second}
    runs = subprocess.Popen(
        ["sh", "-c", "read line", f"{machine.root}/opt/tars-supervisor/versions/{first}/bin/python"],
        stdin=subprocess.PIPE,
    )
    try:
        machine.next_release()
        machine.install()
        assert machine.versions == {first, second, machine.current}
    finally:
        runs.communicate(b"\n", timeout=30)
    third = machine.current
    machine.next_release()
    machine.install()
    assert machine.versions == {third, machine.current}


def test_one_that_was_interrupted_is_begun_anew(machine: Machine) -> None:
    machine.install()
    version = machine.root / "opt/tars-supervisor/versions" / machine.current
    (version / "complete").unlink()
    (version / "half").touch()
    machine.install()
    assert (version / "complete").exists()
    assert not (version / "half").exists()


def test_a_failed_install_leaves_the_one_before(machine: Machine) -> None:
    machine.install()
    before = machine.current
    machine.next_release()
    machine.python.write_text(FAKE.replace('"-m pip" |', '"-m pip") exit 1 ;;\n'))
    done = machine.run("--root", str(machine.root), "--python", str(machine.python))
    assert done.returncode != 0
    assert machine.current == before


def test_root_gets_the_drop_in_and_loses_it_again(machine: Machine) -> None:
    machine.install("--user", "root")
    assert (machine.root / DROP_IN).read_text() == (DEPLOY / "own-users.conf").read_text()
    assert "\nUser=root\n" in (machine.root / UNIT).read_text()
    machine.install()
    assert not (machine.root / DROP_IN).exists()
    assert "\nUser=tars\n" in (machine.root / UNIT).read_text()


def test_an_uninstall_keeps_what_cannot_be_made_again(machine: Machine) -> None:
    machine.install("--user", "root")
    (machine.root / "var/lib/tars/config.db").touch()
    machine.install("--uninstall")
    left = {name for name in machine.tree() if (machine.root / name).is_file()}
    assert left == {SETTINGS, MANIFEST, "etc/tars/services.schema.json", "var/lib/tars/config.db"}
    machine.install("--uninstall", "--purge")
    assert not [name for name in machine.tree() if "tars" in name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prefix", "opt"], "--prefix"),
        (["--prefix", "/opt/a b"], "--prefix"),
        (["--prefix", "/opt/a,b"], "--prefix"),
        (["--user", "Tars$"], "--user"),
        (["--user"], "--user needs a value"),
        (["--colour"], "--help"),
        (["--purge"], "--uninstall"),
        (["--root", "/nowhere/at/all"], "--root"),
        (["--dry-run", "--python", "/nowhere/python"], "Python 3.11 or newer"),
        (["--dry-run", "--from", "/nowhere/at/all"], "--from"),
    ],
)
def test_a_mistake_is_refused_with_a_sentence(machine: Machine, options: list[str], said: str) -> None:
    assert said in machine.refused(*options)


def test_it_needs_both_wheels(machine: Machine) -> None:
    (machine.release / "dist/tars_config-0.1.0-py3-none-any.whl").unlink()
    said = machine.refused("--dry-run", "--root", str(machine.root), "--python", str(machine.python))
    assert "./taskw build" in said


def test_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        # Not among what `task setup` installs.
        pytest.skip("shellcheck is not installed (Debian: apt install shellcheck)")
    done = subprocess.run([shellcheck, DEPLOY / "install.sh"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Installed with a real Python, from real wheels. Without network: the dependencies are this environment's."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    shutil.rmtree(made.release / "dist")
    for project in (ROOT, ROOT / "client"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made.release / "dist"],
            cwd=project,
            check=True,
            capture_output=True,
            timeout=60,
        )
    made.install(python=sys.executable)
    (site,) = (made.root / "opt/tars-supervisor/current/lib").glob("python3*/site-packages")
    # The name in here is a folder alone: its own .pth files, such as that of the checkout, do not count.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return made


def test_what_is_installed_is_compiled(real: Machine) -> None:
    """Whom it runs as cannot do it later."""
    (site,) = (real.root / "opt/tars-supervisor/current/lib").glob("python3*/site-packages")
    sources = [
        file
        for room in ("supervisor", "actors", "api", "schemas", "tars_config")
        for file in (site / room).rglob("*.py")
    ]
    assert len(sources) > 100
    for source in sources:
        assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


def test_what_is_installed_checks_its_settings(real: Machine) -> None:
    """The program from its place, with manifest and settings as they were installed."""
    program = real.root / "opt/tars-supervisor/current/bin/tars-supervisor"
    environment = {
        "PATH": os.environ["PATH"],
        "ENV_FILE": str(real.root / SETTINGS),
        # The settings name paths of the machine itself.
        "SERVICES_FILE": str(real.root / MANIFEST),
        "CONFIG_DB_PATH": str(real.root / "var/lib/tars/config.db"),
        "RUNTIME_DIRECTORY": str(real.root / "run/tars"),
    }
    run: Callable[..., subprocess.CompletedProcess[str]] = lambda *command: subprocess.run(  # noqa: E731  # twice the same
        command, env=environment, cwd=real.root, capture_output=True, text=True, timeout=60, check=False
    )
    where = run(
        program.with_name("python"),
        "-c",
        "import supervisor, tars_config; print(supervisor.__file__, tars_config.__file__)",
    )
    assert [Path(each).is_relative_to(real.root) for each in where.stdout.split()] == [True, True], where.stderr
    done = run(program, "check")
    assert done.returncode == 0, done.stderr
    assert "No mistakes found; nothing was changed." in done.stdout
    for service in ("stt-worker", "tts-worker", "router", "llm-worker", "memory-worker", "wake-activation"):
        assert service in done.stdout
