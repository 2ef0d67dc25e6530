"""Workers with users of their own: each has all that it was promised, and nothing of anybody else's."""

import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import tars_config

from actors.holder.program import SOCKET
from tests.support import wait_until
from tests.system.program import Program, demo_manifest
from tests.system.test_supervision import NONE, SLEEPS, service
from tests.system.test_worker_life import worker

SPEAKER, SPY, LATER = "nobody", "daemon", "games"
LIBRARIES = os.pathsep.join(
    str(Path(module.__file__).parents[1]) for module in (tars_config, orjson) if module.__file__
)

USES_ALL = """
import asyncio, os, pathlib, socket
from tars_config import ConfigLibrary

def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.sendto(text, os.environ["NOTIFY_SOCKET"])

async def main():
    library = ConfigLibrary(os.environ["TARS_SERVICE"])
    await library.initialize()
    values = await library.get_values()
    names = sorted(os.listdir(os.environ["CREDENTIALS_DIRECTORY"]))
    keys = "PUBLIC KEY" in pathlib.Path(os.environ["TARS_CONFIG_PUBLIC_KEYS"]).read_text()
    kept = pathlib.Path(os.environ["TARS_STATE_DIRECTORY"], "kept")
    if not kept.exists():
        kept.touch(mode=0o600)
    kept.read_text()
    print("runs as", os.getuid(), "version", library.version, "secrets", names, len(library.secrets), "keys", keys)
    await library.subscribe_values(lambda new: print("volume", new["volume_percent"]))
    notify(b"READY=1")
    await asyncio.Event().wait()

asyncio.run(main())
"""

# What it is told to try, one after the other, and which of that it could do.
TRIES = """
import json, os, socket, sys, time

def connect(path):
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as one:
            try:
                one.connect(path)
            except OSError as error:
                last = error
            else:
                return
    raise last

def make(path):
    os.close(os.open(path + "/stray", os.O_WRONLY | os.O_CREAT))

how = {
    "read": lambda path: open(path, "rb").read(1),
    "write": lambda path: open(path, "r+b"),
    "list": os.listdir,
    "make in": make,
    "connect": connect,
}
could = []
for verb, path in json.load(open("tries.json")):
    try:
        how[verb](path)
    except OSError:
        pass
    else:
        could.append([verb, path])
print(json.dumps(could))
time.sleep(600)
"""


def python_for(*users: str) -> str:
    """A Python that these users can run, with our libraries; the test is skipped where there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if candidate is not None and all(_runs(candidate, user) for user in users):
            return candidate
    pytest.skip(f"{', '.join(users)} may run neither {sys.executable} nor a {version} of the system with our libraries")


def _runs(python: str, user: str) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", "import tars_config"],
            user=user,
            group=pwd.getpwnam(user).pw_gid,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": LIBRARIES},
            capture_output=True,
            timeout=60,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own may not be."""
    if os.geteuid() != 0:
        pytest.skip("only root can start workers of other users")
    folder = Path(tempfile.mkdtemp(prefix="tars-users-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def installed(place: Path) -> Iterator[Program]:
    program = Program(place / "installation", "")
    yield program
    program.close()


def manifest(python: str, **users: str) -> str:
    """Of a service that uses all that it is given, one that tries to get at others', and one of ours."""

    def one(name: str, code: str, **options: str) -> str:
        user = f'user = "{users[name]}"\n' if name in users else ""
        lines = "".join(f"{key} = {value}\n" for key, value in options.items())
        return f"[services.{name}]\ncommand = {json.dumps([python, '-u', '-c', code])}\n{user}{lines}"

    return (
        one(
            "tts-worker",
            USES_ALL,
            readiness='{ kind = "notify" }',
            environment=f"{{ PYTHONPATH = {json.dumps(LIBRARIES)} }}",
        )
        + one("stt-worker", TRIES, readiness=NONE, restart='"never"')
        + demo_manifest({"router": "router"})
    )


def tries(program: Program) -> list[list[str]]:
    runtime, data = program.folder / "runtime", program.folder / "data"
    theirs = runtime / "services" / "tts-worker"
    wanted: list[tuple[str, Path]] = [
        *(("list", path) for path in (runtime, data, runtime / "services", data / "state", data / "logs")),
        *(("list", path) for path in (theirs, theirs / "credentials", runtime / "instances", runtime / "broker")),
        ("list", data / "state" / "tts-worker"),
        *(("make in", path) for path in (runtime, data, runtime / "services", data / "state", theirs)),
        ("make in", runtime / "services" / "stt-worker"),
        ("make in", data / "state" / "tts-worker"),
        *(("read", theirs / name) for name in ("snapshot.json", "credentials/eleven_api_key")),
        ("write", theirs / "snapshot.json"),
        ("read", runtime / "services" / "router" / "snapshot.json"),
        ("read", data / "state" / "tts-worker" / "ratchet.json"),
        *(("read", data / name) for name in ("config.db", "config.db-wal", "config.lkg.json", "health+epoch.json")),
        ("read", data / "logs" / "tts-worker.log"),
        *(
            ("read", runtime / "broker" / "passwords" / name)
            for name in ("tts-worker", "stt-worker", "tars-supervisor")
        ),
        ("read", runtime / "instances" / "tts-worker"),
        ("read", program.folder / ".env"),
        *(("connect", path) for path in (runtime / SOCKET, theirs / "notify")),
    ]
    for _, path in wanted:
        assert path.exists(), f"{path}: nothing is shown by what is not there"
    return [[verb, str(path)] for verb, path in [*wanted, *own(program)]]


def own(program: Program) -> list[tuple[str, Path]]:
    """What it may do, so that the others are not refused for another reason."""
    runtime, data = program.folder / "runtime", program.folder / "data"
    mine = runtime / "services" / "stt-worker"
    return [
        ("read", mine / "snapshot.json"),
        ("list", mine / "credentials"),
        ("read", runtime / "public_keys.pem"),
        ("make in", data / "state" / "stt-worker"),
        ("list", data / "state" / "stt-worker"),
    ]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def post(program: Program, path: str) -> Mapping[str, Any]:
    with program.client() as client:
        answer = client.post(path, json={"wait_s": 20} if "reload" not in path else None)
        answer.raise_for_status()
        found: Mapping[str, Any] = answer.json()
        return found


def test_each_has_its_own_and_nothing_of_others(installed: Program) -> None:
    python = python_for(SPEAKER, SPY, LATER)
    uid = pwd.getpwnam(SPEAKER).pw_uid
    installed.folder.joinpath("services.toml").write_text(
        manifest(python, **{"tts-worker": SPEAKER, "stt-worker": SPY})
    )
    installed.folder.joinpath("tries.json").write_text("[]")
    installed.start()
    installed.until(f"runs as {uid} version 1 secrets [] 0 keys True", service="tts-worker")
    assert service(installed, "tts-worker")["state"] == "ready"  # told by its notify socket
    # A secret restarts it, and a live setting comes by the broker.
    assert installed.put("tts-worker", eleven_api_key="canary-4711-0815").status_code == 200
    installed.until(f"runs as {uid} version 2 secrets ['eleven_api_key'] 1 keys True", service="tts-worker")
    wait_until(lambda: service(installed, "tts-worker")["state"] == "ready", what="that it is ready again")
    assert installed.put("tts-worker", volume_percent=33).status_code == 200
    installed.until("volume 33", service="tts-worker")
    state = installed.folder / "data" / "state" / "tts-worker"
    wait_until((state / "ratchet.json").exists, what="its ratchet")
    assert {path.stat().st_uid for path in (state, state / "kept")} == {uid}
    assert mode(state) == 0o700

    # Somebody else, who knows every name, gets no further than to what is its own.
    installed.folder.joinpath("tries.json").write_text(json.dumps(tries(installed)))
    post(installed, "/api/services/stt-worker/restart")
    wait_until(lambda: len(installed.lines_of("stt-worker")) > 1, what="what it could do")
    could = json.loads(installed.lines_of("stt-worker")[-1])
    assert could == [[verb, str(path)] for verb, path in own(installed)]

    # One without a user of its own is as it was.
    wait_until(lambda: service(installed, "router")["state"] == "ready", what="the ordinary one")
    runtime = installed.folder / "runtime"
    assert mode(runtime / "services" / "router") == mode(installed.folder / "data" / "state" / "router") == 0o700

    # The next supervisor adopts them; the live setting still comes, and the notify socket is still its worker's.
    pid = service(installed, "tts-worker")["pid"]
    installed.kill()
    installed.start()
    assert service(installed, "tts-worker")["pid"] == pid
    assert installed.put("tts-worker", volume_percent=34).status_code == 200
    installed.until("volume 34", service="tts-worker")
    assert (runtime / "services" / "tts-worker" / "notify").stat().st_uid == uid

    installed.folder.joinpath("tries.json").write_text("[]")  # it will be root
    # Another user goes on where the one before was; nobody with a user left, and everything is closed.
    later = pwd.getpwnam(LATER).pw_uid
    version = installed.get("tts-worker")["version"]
    installed.folder.joinpath("services.toml").write_text(manifest(python, **{"tts-worker": LATER}))
    post(installed, "/api/reload")
    installed.until(f"runs as {later} version {version} secrets ['eleven_api_key'] 1", service="tts-worker")
    assert {path.stat().st_uid for path in (state, state / "kept")} == {later}
    assert [mode(folder) for folder in (runtime, installed.folder / "data")] == [0o711, 0o711]
    installed.folder.joinpath("services.toml").write_text(manifest(python))
    post(installed, "/api/reload")
    installed.until(f"runs as 0 version {version} secrets ['eleven_api_key'] 1", service="tts-worker")
    assert {path.stat().st_uid for path in (state, state / "kept")} == {0}
    folders = [runtime, runtime / "services", state.parent, state.parent.parent, *(runtime / "services").iterdir()]
    assert {mode(folder) for folder in folders} == {0o700}
    assert installed.stop() == 0
    # What was opened for a manifest is closed by a start with another one, too.
    for folder in (runtime, state.parent.parent):
        folder.chmod(0o711)
    installed.start()
    assert [mode(runtime), mode(state.parent.parent)] == [0o700, 0o700]
    assert installed.stop() == 0


def test_a_folder_above_that_its_user_may_not_enter(place: Path) -> None:
    """Told by check and at the start; the worker is not started without what it needs, and is as soon as that is mended."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    program = Program(
        closed / "installation",
        worker("router", SLEEPS, readiness=NONE, user=f'"{SPEAKER}"', cwd='"/"').replace(
            sys.executable, "/usr/bin/python3"
        )
        + worker("stt-worker", SLEEPS, readiness=NONE),
    )
    try:
        checked = program.launch_command("check")
        assert checked.returncode == 0
        assert (
            f"the worker's user may not enter {closed}, and so reaches nothing in the runtime folder"
            in checked.stderr.decode()
        )
        assert "router (nobody)" in checked.stderr.decode()
        program.start()
        program.until(f"the worker's user may not enter {closed}, and so reaches nothing in the data folder")
        found = service(program, "router")
        assert (found["state"], found["pid"]) == ("backing-off", None)
        assert f"its user {SPEAKER} may not enter {closed}" in found["reason"]
        assert f"chmod o+x {closed}" in found["reason"]
        assert service(program, "stt-worker")["state"] == "ready"
        closed.chmod(0o711)
        assert post(program, "/api/services/router/start")["done"]
        assert service(program, "router")["state"] == "ready"
        assert program.stop() == 0
    finally:
        program.close()


def test_a_user_that_there_is_not(installed: Program) -> None:
    missing = "no-such-user-here"
    with pytest.raises(KeyError):
        grp.getgrnam(missing)
    installed.folder.joinpath("services.toml").write_text(
        worker("router", SLEEPS, readiness=NONE, user=f'"{missing}"') + worker("stt-worker", SLEEPS, readiness=NONE)
    )
    assert f"router: there is no user {missing}; create it" in installed.launch_command("check").stderr.decode()
    installed.start()
    found = service(installed, "router")
    assert (found["state"], f"there is no user {missing}" in found["reason"]) == ("failed", True)
    assert service(installed, "stt-worker")["state"] == "ready"
    assert installed.stop() == 0
