"""What a worker of the real program gets at its start: contract section 5, and nothing else (environ of /proc)."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.support import environment_of, wait_until
from tests.system.program import Program

Make = Callable[..., Program]

CANARY = "c4nary-that-no-worker-may-see"

MANIFEST = """
[services.tts-worker]
command = ["/bin/sleep", "600"]
environment = { MODEL_FOLDER = "/srv/models", PIPER_VOICE = "from the manifest" }
pass_environment = ["HTTPS_PROXY", "NOT_THERE"]

[services.router]
command = ["/bin/sleep", "600"]
"""

# Everything that somebody may have in the shell from which the program is started.
POLLUTION = {
    "CONFIG_API_TOKENS": f"{CANARY}1:me:admin",
    "REBUILD_TOKEN": f"{CANARY}2",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "LITESTREAM_ACCESS_KEY_ID": CANARY,
    "NOTIFY_SOCKET": "/run/no-such-socket",
    "LD_LIBRARY_PATH": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONUNBUFFERED": "1",
    "TARS_SERVICE": "somebody-elses",
    "TARS_STATE_DIRECTORY": "/nowhere",
    "HTTPS_PROXY": "http://proxy:3128",
    "HTTP_PROXY": "http://not-passed:3128",
    "EDITOR": "vi",
    "TZ": "Europe/Berlin",
    "LC_ALL": "C.UTF-8",
    "VOLUME_PERCENT": "33",  # a setting of tts-worker
    "ROUTER_WAKE_ACK_TEXT": "Ja?",  # one of router
    "ELEVEN_API_KEY": "the-owners-key-of-tts",
}

PROMISED = {
    "TARS_SERVICE",
    "TARS_INSTANCE",
    "TARS_CONFIG_SNAPSHOT",
    "TARS_CONFIG_PUBLIC_KEYS",
    "TARS_STATE_DIRECTORY",
    "MQTT_URL",
    "CREDENTIALS_DIRECTORY",
}
USUAL = {"PATH", "HOME", "LANG", "LC_ALL", "TZ"}


def environments(program: Program) -> dict[str, dict[str, str]]:
    """Of the workers, as the kernel has them: of their start, before any library adds to them."""

    def started() -> dict[str, dict[str, str]] | None:
        found = {}
        for name, pid in program.workers().items():
            if name == "embedded-broker":
                continue
            if psutil.Process(pid).name() != "sleep":
                return None  # not yet what it will be
            found[name] = environment_of(pid)
        return found if len(found) == 2 else None

    found = wait_until(started, what="both workers")
    assert found is not None
    return found


def test_exactly_what_the_contract_says(program: Make) -> None:
    supervised = program(MANIFEST, **POLLUTION)
    (supervised.folder / ".env").write_text("PIPER_VOICE=from-env-file\nROUTER_STREAM_MIN_CHARS=50\n")
    (supervised.folder / ".env").chmod(0o600)
    supervised.launch()
    supervised.until("connected to the broker")
    both = environments(supervised)
    tts, router = both["tts-worker"], both["router"]
    assert set(tts) == PROMISED | USUAL | {
        "MODEL_FOLDER",
        "PIPER_VOICE",
        "HTTPS_PROXY",
        "VOLUME_PERCENT",
        "ELEVEN_API_KEY",
    }
    assert set(router) == PROMISED | USUAL | {"ROUTER_WAKE_ACK_TEXT", "ROUTER_STREAM_MIN_CHARS"}

    assert (tts["VOLUME_PERCENT"], tts["MODEL_FOLDER"], tts["PIPER_VOICE"]) == (
        "33",
        "/srv/models",
        "from the manifest",
    )
    assert router["ROUTER_STREAM_MIN_CHARS"] == "50"  # of `.env`
    for name, environment in both.items():
        assert environment["TARS_SERVICE"] == name
        assert CANARY not in json.dumps(environment)
        for line in (supervised.folder / ".env").read_text().splitlines():
            key, _, value = line.partition("=")
            if key.endswith(("_BASE64", "_KEY", "_B64", "TOKEN")) and key not in tts:
                assert value.strip("\"'") not in json.dumps(environment), key

    # Each path is there, and is its own.
    for name, environment in both.items():
        runtime = supervised.folder / "runtime" / "services" / name
        assert Path(environment["TARS_CONFIG_SNAPSHOT"]) == runtime / "snapshot.json"
        assert json.loads(Path(environment["TARS_CONFIG_SNAPSHOT"]).read_bytes())["service"] == name
        assert Path(environment["CREDENTIALS_DIRECTORY"]).stat().st_mode & 0o777 == 0o700
        assert Path(environment["TARS_STATE_DIRECTORY"]).stat().st_mode & 0o777 == 0o700
        assert "PUBLIC KEY" in Path(environment["TARS_CONFIG_PUBLIC_KEYS"]).read_text()
        instance = (supervised.folder / "runtime" / "instances" / name).read_text()
        assert environment["TARS_INSTANCE"] == instance
        url = urlsplit(environment["MQTT_URL"])
        assert (url.scheme, url.username, url.hostname) == ("mqtt", name, "127.0.0.1")
        assert url.password
    assert urlsplit(tts["MQTT_URL"]).password != urlsplit(router["MQTT_URL"]).password
    assert len({tts["TARS_STATE_DIRECTORY"], router["TARS_STATE_DIRECTORY"]}) == 2
    supervised.stop()
    assert supervised.processes() == []


def test_no_descriptor_of_ours_reaches_a_worker(program: Make) -> None:
    supervised = program(MANIFEST)
    supervised.launch()
    supervised.until("connected to the broker")
    environments(supervised)
    for name, pid in supervised.workers().items():
        if name == "embedded-broker":
            continue
        opened = Path(f"/proc/{pid}/fd")
        # Until it has been linked it has its libraries open.
        wait_until(
            lambda opened=opened: {entry.name for entry in opened.iterdir()} == {"0", "1", "2"},  # type: ignore[misc]
            what="no other descriptors",
        )
        assert str((opened / "0").readlink()) == "/dev/null"
    supervised.stop()
