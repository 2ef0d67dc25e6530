"""The main job on real parts: a setting is read, changed live, changed with a restart, seen on the broker, and kept."""

import base64
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tars_config import wire

from tests.support import needs, wait_until
from tests.system.program import SIX, Program, demo_manifest

Make = Callable[..., Program]


def retained(program: Program, topic: str) -> bytes:
    """What `mosquitto_sub` shows of this topic to the read-only login."""
    broker = program.broker
    assert broker.user is not None
    assert broker.password is not None
    command = [
        needs("mosquitto_sub"),
        "-h",
        broker.host,
        "-p",
        str(broker.port),
        "-u",
        broker.user,
        "-P",
        broker.password,
    ]
    shown = subprocess.run(
        [*command, "-t", topic, "-C", "1", "-W", "25", "-q", "1"], capture_output=True, timeout=30, check=True
    )
    return shown.stdout


def test_a_setting_from_end_to_end(program: Make) -> None:
    supervised = program(demo_manifest()).start()
    before = supervised.workers()
    assert set(before) == {*SIX, "embedded-broker"}
    for name in SIX:
        assert f"{name}" in supervised.stdout
    assert supervised.token in supervised.stdout

    seen = supervised.get("tts-worker")
    assert seen["config"]["volume_percent"] == 100
    assert seen["version"] == 1

    # Live: the worker prints the new value, and nobody restarts.
    answer = supervised.put("tts-worker", volume_percent=55)
    assert (answer.status_code, answer.json()["version"]) == (200, 2), answer.text
    supervised.until("volume_percent: 100 -> 55", service="tts-worker")
    assert supervised.workers() == before

    # With a restart: that worker, and no other.
    answer = supervised.put("tts-worker", piper_voice="de_DE-thorsten-medium")
    assert (answer.status_code, answer.json()["version"]) == (200, 3), answer.text
    assert "piper_voice" in answer.json()["message"]
    wait_until(lambda: supervised.workers().get("tts-worker") not in {None, before["tts-worker"]}, what="the restart")
    state = wait_until(
        lambda: (found := json.loads(retained(supervised, "system/state/tts-worker")))["state"] == "ready" and found,
        what="the new instance's readiness",
    )
    after = supervised.workers()
    assert {name: pid for name, pid in after.items() if before[name] != pid} == {"tts-worker": after["tts-worker"]}
    assert state["pid"] == after["tts-worker"]
    wait_until(
        lambda: (
            json.loads(retained(supervised, "system/state/tts-worker"))["reported"]
            == {"config_epoch": seen["config_epoch"], "version": 3}
        ),
        what="the reported version",
    )

    # What is retained is signed, and is what GET shows.
    update = wire.decode(retained(supervised, "system/config/tts-worker"))
    key = load_pem_private_key(_env(supervised, "CONFIG_SIGNATURE_PRIVATE_KEY"), password=None)
    wire.verify(update, [key.public_key()])  # type: ignore[list-item]
    assert update.version == 3
    assert update.config["volume_percent"] == 55
    assert update.config["piper_voice"] == "de_DE-thorsten-medium"
    assert "eleven_api_key" not in update.config

    # The end: in order, all of it.
    pids = supervised.workers().values()
    assert supervised.stop(signal.SIGINT) == 0
    assert supervised.processes() == []
    assert not any(psutil.pid_exists(pid) for pid in pids)


def _env(program: Program, name: str) -> bytes:
    text = (program.folder / ".env").read_text()
    if f"{name}_B64=" in text:
        return base64.b64decode(text.split(f"{name}_B64=")[1].splitlines()[0].strip("\"'"))
    value = text.split(f"{name}=")[1]
    quoted = value[1:].split('"')[0] if value.startswith('"') else value.splitlines()[0]
    return quoted.replace("\\n", "\n").encode()


def test_a_second_start_finds_everything_as_it_was(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router"})).start()
    supervised.put("router", router_wake_ack_text="Ja?")
    first = supervised.get("router")
    env = (supervised.folder / ".env").read_bytes()
    login = supervised.broker.password
    assert supervised.stop() == 0
    supervised.start()
    assert supervised.get("router") == first
    assert (supervised.folder / ".env").read_bytes() == env
    assert supervised.broker.password == login
    assert "made now" not in supervised.stdout
    assert supervised.stop() == 0


def test_a_worker_that_dies_is_started_again_with_its_settings(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router"})).start()
    supervised.put("router", router_wake_ack_text="Ja?")
    pid = supervised.workers()["router"]
    psutil.Process(pid).kill()
    supervised.until("router: was killed by SIGKILL; it is started again at once")
    wait_until(lambda: supervised.workers().get("router") not in {None, pid}, what="the respawn")
    assert supervised.stop() == 0


def test_a_second_signal_does_not_wait_for_a_stubborn_worker(program: Make, tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)\n"
    )
    manifest = f'[services.router]\ncommand = ["{psutil.Process().exe()}", "{stubborn}"]\ngrace = 600.0\n'
    supervised = program(manifest)
    process = supervised.launch()
    supervised.until("deaf", service="router")
    process.send_signal(signal.SIGTERM)
    supervised.until("stopping")
    process.send_signal(signal.SIGTERM)
    assert supervised.wait() == 0
    assert supervised.processes() == []


def test_a_seventh_service_brings_its_own_model(program: Make) -> None:
    manifest = demo_manifest({"lamp": "lamp"}).replace("[services.lamp]", '[services.lamp]\nmodel = "lamp.schema.json"')
    supervised = program(manifest)
    schema = {
        "type": "object",
        "properties": {
            "brightness": {
                "type": "integer",
                "minimum": 0,
                "maximum": 100,
                "default": 40,
                "title": "Brightness",
                "description": "How bright the lamp is.",
                "x-apply": "live",
                "x-unit": "%",
            }
        },
    }
    (supervised.folder / "lamp.schema.json").write_text(json.dumps(schema))
    supervised.start()
    answer = supervised.put("lamp", brightness=101)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "brightness"
    assert supervised.put("lamp", brightness=7).status_code == 200
    supervised.until("brightness: 40 -> 7", service="lamp")
    assert supervised.stop() == 0


def test_the_environment_overrides_a_setting_and_says_so(program: Make) -> None:
    supervised = program(demo_manifest({"tts-worker": "tts"}), VOLUME_PERCENT="33").start()
    seen = supervised.get("tts-worker")
    assert seen["config"]["volume_percent"] == 33
    field = next(field for field in seen["fields"] if field["key"] == "volume_percent")
    assert (field["source"], field["env_override"]) == ("env", True)
    refused = supervised.put("tts-worker", volume_percent=50)
    assert refused.status_code == 409
    assert "VOLUME_PERCENT" in refused.json()["detail"]
    assert supervised.stop() == 0


def test_a_secret_reaches_the_worker_and_nobody_else(program: Make) -> None:
    supervised = program(demo_manifest({"tts-worker": "tts"})).start()
    secret = "c4nary-7f3e9a1b5d"
    pid = supervised.workers()["tts-worker"]
    assert supervised.put("tts-worker", eleven_api_key=secret).status_code == 200
    wait_until(lambda: supervised.workers().get("tts-worker") not in {None, pid}, what="the restart")
    credential = supervised.folder / "runtime" / "services" / "tts-worker" / "credentials" / "eleven_api_key"
    assert credential.read_text() == secret
    assert credential.stat().st_mode & 0o777 == 0o400
    assert supervised.get("tts-worker")["config"]["eleven_api_key"] == "********"
    assert secret.encode() not in retained(supervised, "system/config/tts-worker")
    assert supervised.put("tts-worker", volume_percent=50).json()["version"] == 3
    assert credential.read_text() == secret
    assert supervised.stop() == 0
    holders = [path for path in supervised.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holders == [credential]


def test_health_tells_what_is_well(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router"})).start()
    health = httpx.get(f"{supervised.url}/health").json()
    assert health["ok"], health
    assert health["lkg_cache_valid"]
    told = json.loads(retained(supervised, "system/health/config-manager"))
    assert told["config_epoch"] == health["config_epoch"]
    with supervised.client() as client:
        parts = client.get("/api/config/health").json()["components"]
    assert all(part["ok"] for part in parts.values())
    assert parts["broker"]["address"].endswith(f":{supervised.broker.port}")
    assert supervised.stop() == 0
