import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import _first_run, boot
from supervisor.boot import Boot, StartRefused, examine, prepare

MADE = (
    "CONFIG_MASTER_KEY_BASE64",
    "CONFIG_MASTER_KEY_ID",
    "LKG_HMAC_KEY_BASE64",
    "LKG_HMAC_KEY_ID",
    "CONFIG_SIGNATURE_PRIVATE_KEY",
    "CONFIG_SIGNATURE_PUBLIC_KEY",
    "CONFIG_API_TOKEN",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "services.toml").write_text('[services.router]\ncommand = ["cat"]\n')
    return tmp_path


def start(home: Path, **environ: str) -> Boot:
    return prepare({"RUNTIME_DIRECTORY": str(home / "run"), **environ}, home, search=())


def refused(home: Path, **environ: str) -> StartRefused:
    with pytest.raises(StartRefused) as error:
        start(home, **environ)
    return error.value


def secrets_of(started: Boot) -> tuple[object, ...]:
    keys, settings = started.keys, started.settings
    token = settings.api_tokens[0].token.get_secret_value()
    return keys.master, keys.master_id, keys.hmac, keys.hmac_id, keys.signing_private.private_bytes_raw(), token


def test_first_run_makes_everything_once(home):
    with start(home).folders:
        pass
    text = (home / ".env").read_text()
    (home / ".env").unlink()
    first = start(home)
    first.folders.close()
    assert first.made.variables == MADE
    assert first.made.env_file == home / ".env"
    assert (home / ".env").stat().st_mode & 0o777 == 0o600
    assert [line.split("=")[0] for line in text.splitlines() if line and not line.startswith("#")] == list(MADE)
    assert first.made.admin_token is not None
    token = first.made.admin_token.get_secret_value()
    assert re.fullmatch(r"tars_[A-Za-z0-9_-]{43}", token)
    assert [(each.name, each.role) for each in first.settings.api_tokens] == [("admin", "admin")]
    assert first.settings.api_tokens[0].token == first.made.admin_token
    assert token not in repr(first)
    # The second start takes what the first has written, and so does one whose predecessor crashed before
    # it made the store: there is none here.
    second = start(home)
    second.folders.close()
    assert second.made.variables == ()
    assert second.made.admin_token is None
    assert secrets_of(second) == secrets_of(first)
    assert not (home / "data/config.db").exists()


def test_what_stands_in_env_stays(home):
    before = "# mine\nLOG_LEVEL=debug\nCONFIG_MASTER_KEY_ID=mine\nCONFIG_MASTER_KEY_BASE64=\nPHRASE='no line end'"
    (home / ".env").write_text(before)
    started = start(home)
    started.folders.close()
    after = (home / ".env").read_text()
    assert after.startswith(before + "\n")
    assert started.settings.log_level == "debug"
    assert started.settings.environment["PHRASE"] == "no line end"
    assert started.keys.master_id == "mine"
    assert "CONFIG_MASTER_KEY_ID" not in started.made.variables
    assert (home / ".env").stat().st_mode & 0o777 == 0o600


def test_no_token_is_made_where_one_is_set(home):
    started = start(home, CONFIG_API_TOKENS="a-token-of-the-owner:config.read")
    started.folders.close()
    assert "CONFIG_API_TOKEN" not in started.made.variables
    assert started.made.admin_token is None


def test_nothing_is_made_where_everything_is_set(home):
    start(home).folders.close()
    environ = dict(line.split("=", 1) for line in (home / ".env").read_text().splitlines() if re.match("[A-Z]", line))
    environ = {key: value.strip('"') for key, value in environ.items()}
    (home / ".env").unlink()
    started = start(home, **environ)
    started.folders.close()
    assert started.made.variables == ()
    assert not (home / ".env").exists()


@pytest.mark.parametrize("name", ["config.db", "config.lkg.json", "health+epoch.json"])
@pytest.mark.parametrize("missing", ["CONFIG_MASTER_KEY_BASE64", "LKG_HMAC_KEY_BASE64", "CONFIG_SIGNATURE_PRIVATE_KEY"])
def test_a_key_missing_beside_a_store_is_refused(home, name, missing):
    start(home).folders.close()
    (home / "data" / name).touch()
    env = home / ".env"
    hidden = {missing, "CONFIG_SIGNATURE_PUBLIC_KEY"} if "PRIVATE" in missing else {missing}
    kept = "".join(line for line in env.read_text().splitlines(keepends=True) if line.split("=")[0] not in hidden)
    env.write_text(kept)
    error = refused(home)
    [line] = error.lines
    assert line.startswith(f"{missing} is missing, and {home}/data/{name} exists, which was made with it; ")
    assert line.endswith(f"put the key back into {env} from your copy, or into the environment")
    assert env.read_text() == kept


def test_without_any_token_there_is_a_warning(home):
    start(home).folders.close()
    (home / "data/config.db").touch()
    env = home / ".env"
    env.write_text("".join(line for line in env.read_text().splitlines(keepends=True) if "API_TOKEN" not in line))
    started = start(home)
    started.folders.close()
    assert "there is no API token, so nobody can use the REST API; set CONFIG_API_TOKEN" in started.warnings


@pytest.mark.parametrize("place", ["/proc/supervisor.env", "/proc/missing/x.env"])
def test_keys_that_cannot_be_kept_are_shown_once(home, place):
    error = refused(home, ENV_FILE=place)
    assert f"cannot be written to {place} (" in error.lines[0]
    assert "put the lines below there" in error.lines[0]
    assert [line.split("=")[0] for line in error.verbatim] == list(MADE)
    # What was shown can be pasted, and starts.
    (home / ".env").write_text("\n".join(error.verbatim))
    (home / ".env").chmod(0o600)
    started = start(home)
    started.folders.close()
    assert started.made.variables == ()


def test_a_refused_start_leaves_nothing_behind(home):
    (home / "services.toml").write_text("[services.router]\ncommandd = []\n")
    error = refused(home, SIGNING_KEY_PATH="nowhere.pem", CONFIG_DB_PATH="services.toml/config.db")
    assert len(error.lines) == 4
    assert f"the data folder {home}/services.toml is not a folder" in error.lines[0]
    assert f"{home}/services.toml:2: " in "".join(error.lines[1:3])
    assert 'did you mean "command"' in " ".join(error.lines)
    assert "SIGNING_KEY_PATH" in error.lines[-1]
    assert [path.name for path in home.iterdir()] == ["services.toml"]


def test_manifests_that_cannot_be_used(home):
    assert "there is no such file" in refused(home, SERVICES_FILE="missing.toml").lines[0]
    (home / "services.toml").write_bytes(b"# one\n\xff\n")
    assert refused(home).lines == (f"{home}/services.toml:2: the text is not UTF-8; save the file as UTF-8",)
    (home / "services.toml").write_text('[services.x]\ncommand = ["cat"]\nmodel = "routr"\n')
    [line] = refused(home).lines
    assert line.startswith(f"{home}/services.toml: x: ")
    assert "router" in line


def test_workers_that_cannot_run_now_are_warned_about(home):
    (home / "services.toml").write_text('[services.router]\ncommand = ["./nope"]\ncwd = "gone"\n')
    warnings = "\n".join(examine({}, home, search=()).warnings)
    assert f"router: {home}/nope is no program that can be run" in warnings
    assert f"router: there is no folder {home}/gone" in warnings


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.2", False), ("::1", False), ("localhost", False), ("::", True)])
def test_listening_beyond_this_machine_is_warned_about(home, host, warned):
    warnings = "\n".join(examine({"CONFIG_API_HOST": host}, home, search=()).warnings)
    assert ("unencrypted" in warnings) is warned


def test_examining_changes_nothing(home):
    findings = examine({"CONFIG_API_TOKEN": "x" * 20}, home, search=())
    assert findings.would_make == ("CONFIG_MASTER_KEY_BASE64", "LKG_HMAC_KEY_BASE64", "CONFIG_SIGNATURE_PRIVATE_KEY")
    assert [path.name for path in home.iterdir()] == ["services.toml"]


def test_two_first_starts_make_one_set_of_keys(home, monkeypatch):
    """The other one made its keys, and ended, between our look at `.env` and our lock."""
    others: list[Boot] = []
    real = boot.open_folders

    def late(settings, locks):
        monkeypatch.setattr(boot, "open_folders", real)
        others.append(start(home))
        others[0].folders.close()
        return real(settings, locks)

    monkeypatch.setattr(boot, "open_folders", late)
    started = start(home)
    started.folders.close()
    assert started.made.variables == ()
    assert secrets_of(started) == secrets_of(others[0])


def test_a_refused_start_gives_the_folders_free(home):
    refused(home, ENV_FILE="/proc/supervisor.env")
    start(home).folders.close()


CRASH = """
import os, sys
from pathlib import Path
from actors import files
from supervisor.boot import prepare
stop_at = int(sys.argv[2])
count = 0
def crashing(real):
    def call(*arguments, **options):
        global count
        count += 1
        if count == stop_at:
            os._exit(9)
        return real(*arguments, **options)
    return call
for name in ("open", "write", "fsync", "fchmod", "ftruncate", "close"):
    setattr(os, name, crashing(getattr(os, name)))
Path.rename = crashing(Path.rename)
home = Path(sys.argv[1])
prepare({"RUNTIME_DIRECTORY": str(home / "run")}, home, search=())
"""


def test_a_crash_at_any_step_leaves_a_state_that_starts(home):
    crashes = 0
    for step in range(1, 100):
        done = subprocess.run([sys.executable, "-c", CRASH, str(home), str(step)], timeout=30, check=False)
        written = (home / ".env").exists()
        started = start(home)
        started.folders.close()
        # All of them, or none.
        assert started.made.variables == (() if written else MADE)
        (home / ".env").unlink()
        if done.returncode == 0:
            break
        crashes += done.returncode == 9
    else:
        pytest.fail("it never came through")
    assert crashes > 10


def test_umask(home):
    start(home).folders.close()
    assert os.umask(0o022) == 0o077


def test_the_existing_file_that_cannot_be_seen_is_no_first_run(home):
    if os.geteuid() == 0:
        (home / "file").touch()
        # Root sees through permissions; a loop of links is hidden from everybody.
        (home / "loop").symlink_to("loop")
        error = refused(home, CONFIG_LKG_CACHE_PATH="loop/x.json")
    else:
        (home / "hidden").mkdir(mode=0)
        error = refused(home, CONFIG_LKG_CACHE_PATH="hidden/x.json")
    assert "cannot be looked at" in " ".join(error.lines)
    assert _first_run.TOKEN_PREFIX not in str(error)
