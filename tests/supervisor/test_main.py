"""The program itself, as a process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import __version__
from supervisor.folders import open_folders
from supervisor.settings import load_settings

PROGRAM = str(Path(sys.executable).parent / "tars-supervisor")
MANIFEST = (
    '[services.router]\ncommand = ["cat"]\n\n[services.my-own]\nkind = "config-only"\nmodel = "wake-activation"\n'
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "services.toml").write_text(MANIFEST)
    return tmp_path


def call(home: Path, *arguments: str, program: tuple[str, ...] = (PROGRAM,), **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*program, *arguments],
        cwd=home,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(home / "run"), **environ},
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    return done.returncode, out, err


def refusals(err: str) -> list[str]:
    lines = err.splitlines()
    assert all(line.startswith("tars-supervisor: ") for line in lines)
    return [line.removeprefix("tars-supervisor: ") for line in lines]


@pytest.mark.parametrize("program", [(PROGRAM,), (sys.executable, "-m", "supervisor")])
def test_version(home, program):
    assert call(home, "--version", program=program) == (0, f"tars-supervisor {__version__}\n", "")


def test_help_names_every_command(home):
    code, out, _ = call(home, "--help")
    assert code == 0
    assert "run" in out
    assert "check" in out


@pytest.mark.parametrize("arguments", [(), ("chekc",), ("run", "--force"), ("--vers",)])
def test_wrong_arguments(home, arguments):
    code, out, err = call(home, *arguments)
    assert (code, out) == (2, "")
    assert "usage: tars-supervisor" in err


def test_check_says_what_it_found_and_changes_nothing(home):
    code, out, err = call(home, "check", MQTT_URL="mqtt://u:hunter2@h", CONFIG_API_TOKENS="hunter2hunter2:config.read")
    assert code == 0
    for words in (
        f"{home}/data/config.db (not there yet)",
        "the first start makes CONFIG_MASTER_KEY_BASE64",
        "h:1883 as u",
        "127.0.0.1:8081; tokens: 1 config.read",
        "router  process      12 settings",
        "my-own  config-only  6 settings",
        "nothing was changed",
    ):
        assert words in out
    assert "hunter2" not in out + err
    assert "warning: the API token env-1" in err
    assert [path.name for path in home.iterdir()] == ["services.toml"]


@pytest.mark.parametrize("command", ["check", "run"])
def test_every_mistake_is_a_sentence(home, command):
    (home / "services.toml").write_text("[services.router]\ncommand = 'cat'\n\n[services.Bad]\n")
    (home / "data").mkdir()
    (home / "data").chmod(0o755)
    code, out, err = call(home, command, SIGNING_KEY_PATH="missing")
    assert (code, out) == (2, "")
    lines = refusals(err)
    assert len(lines) == 4
    assert "is open to other users (mode 0755)" in lines[0]
    assert lines[1].startswith(f"{home}/services.toml:2: services.router.command: ")
    assert lines[2].startswith(f"{home}/services.toml:4: ")
    assert "SIGNING_KEY_PATH" in lines[3]


@pytest.mark.parametrize("command", ["check", "run"])
def test_mistakes_in_env_are_named_with_their_line(home, command):
    (home / ".env").write_text("# mine\nCONFIG_API_PORT=80801\nMQTT_URL=mqt://h\noops\n")
    code, out, err = call(home, command)
    assert (code, out) == (2, "")
    assert [line.split(" ")[0] for line in refusals(err)] == [f"{home}/.env:{line}:" for line in (4, 3, 2)]


def test_run_is_refused_beside_another_supervisor(home):
    call(home, "check")
    with open_folders(load_settings({"RUNTIME_DIRECTORY": str(home / "run")}, home)):
        code, _, err = call(home, "run", RUNTIME_DIRECTORY=str(home / "elsewhere"))
    assert code == 2
    [line] = refusals(err)
    assert line.startswith(f"another supervisor (pid {os.getpid()}) already uses the data folder {home}/data; ")
    assert not (home / ".env").exists()


def test_run_shows_keys_once_where_they_cannot_be_kept(home):
    code, out, err = call(home, "run", ENV_FILE="/proc/supervisor.env")
    assert (code, out) == (2, "")
    first, empty, *rest = err.splitlines()
    assert first.startswith("tars-supervisor: the keys of this first start cannot be written to /proc/supervisor.env")
    assert empty == ""
    assert rest[0].startswith("CONFIG_MASTER_KEY_BASE64=")
    assert any(line.startswith("CONFIG_API_TOKEN=tars_") for line in rest)


@pytest.mark.parametrize("arguments", [("check",), ("run",)])
@pytest.mark.parametrize("descriptor", ["stdout", "stderr"])
def test_a_reader_that_leaves_is_no_mistake(home, arguments, descriptor):
    read, write = os.pipe()
    os.close(read)
    other = "stderr" if descriptor == "stdout" else "stdout"
    try:
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=home,
            timeout=60,
            check=False,
            # `run` is refused.
            env={"PATH": os.environ["PATH"], **({"LOG_LEVEL": "x"} if arguments == ("run",) else {})},
            **{descriptor: write, other: subprocess.PIPE},
        )
    finally:
        os.close(write)
    assert done.returncode == (2 if arguments == ("run",) else 0)
    assert b"Traceback" not in (done.stdout or b"") + (done.stderr or b"")


def test_closed_descriptors_do_not_become_something_else(home):
    shell = shutil.which("sh")
    assert shell
    script = (
        "import os, supervisor.main as m\n"
        "numbers = lambda: str([os.fstat(n).st_rdev for n in (0, 1, 2)])\n"
        "m._check = lambda: __import__('pathlib').Path('out').write_text(numbers() + '\\n') and 0\n"
        "m.main(['check'])\n"
    )
    subprocess.run([shell, "-c", f'{sys.executable} -c "$0" <&- >&- 2>&-', script], cwd=home, timeout=60, check=True)
    null = Path(os.devnull).stat().st_rdev
    assert (home / "out").read_text() == f"{[null] * 3}\n"
