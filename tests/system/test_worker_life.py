"""Workers of the real program that misbehave: it stays, answers, ends in order, and the others do not notice."""

import base64
import json
import os
import shlex
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable
from typing import Any

import httpx
import psutil

from tests.support import wait_until
from tests.system.program import Program, demo_manifest
from tests.system.test_one_setting import retained

Make = Callable[..., Program]


def worker(name: str, code: str, **options: str) -> str:
    lines = "\n".join(f"{key} = {value}" for key, value in options.items())
    return f"\n[services.{name}]\ncommand = {json.dumps([sys.executable, '-I', '-S', '-u', '-c', code])}\n{lines}\n"


def state(program: Program, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(retained(program, f"system/state/{service}"))
    return found


def test_one_that_floods_keeps_nobody_waiting(program: Make) -> None:
    """The loop is busy with its output, but requests are answered and the good worker takes its settings."""
    wild, tame = demo_manifest({"wake-activation": "wake"}), demo_manifest({"router": "router"})
    command = " ".join(shlex.quote(part) for part in tomllib.loads(wild)["services"]["wake-activation"]["command"])
    script = f"(until test -e flood; do sleep 0.02; done; exec yes spam) & exec {command}"
    lines = [
        f'command = ["/bin/sh", "-c", {json.dumps(script)}]' if "command" in line else line
        for line in wild.splitlines()
    ]
    supervised = program("\n".join([*lines, tame])).start()
    # Nothing here reads the log from now on: it is large.
    (supervised.folder / "flood").touch()
    wait_until(lambda: supervised._err.stat().st_size > 500_000, what="the flood")
    assert httpx.get(f"{supervised.url}/health", timeout=30).status_code == 200
    assert supervised.put("router", router_wake_ack_text="Ja?").status_code == 200
    wait_until(lambda: (state(supervised, "router")["reported"] or {}).get("version") == 2, what="the report")
    assert state(supervised, "wake-activation")["state"] == "ready"
    assert supervised.stop() == 0
    assert supervised.processes() == []


def test_one_that_cannot_live_backs_off_and_is_cured(program: Make) -> None:
    """It ends at once for as long as a setting is wrong; the change that mends it is tried at once."""
    code = (
        "import json, os, sys, time\n"
        "config = json.load(open(os.environ['TARS_CONFIG_SNAPSHOT']))['config']\n"
        "if config['router_wake_ack_text'] != 'well': sys.exit(4)\n"
        "print('alive')\n"
        "time.sleep(600)\n"
    )
    supervised = program(worker("router", code) + demo_manifest({"stt-worker": "stt"})).start()
    wait_until(
        lambda: (found := state(supervised, "router"))["state"] == "backing-off" and found["restarts"] > 1,
        what="backing off",
    )
    assert state(supervised, "router")["reason"] == "exited with 4"
    assert state(supervised, "stt-worker")["restarts"] == 0
    assert supervised.put("router", router_wake_ack_text="well").status_code == 200
    supervised.until("alive", service="router")
    found = state(supervised, "router")
    assert (found["state"], found["desired"]["version"], found["reported"]) == ("starting", 2, None)
    assert supervised.stop() == 0


def test_the_states_of_a_worker_from_outside(program: Make) -> None:
    """Started, killed from outside, back, stopped: each is retained on the broker, with the marks of its versions."""
    supervised = program(demo_manifest({"router": "router"})).start()
    epoch = supervised.get("router")["config_epoch"]
    mark = {"config_epoch": epoch, "version": 1}

    def settled(besides: int | None = None) -> dict[str, Any] | None:
        found = state(supervised, "router")
        at_rest = found["state"] == "ready" and found["published"] == found["reported"] == mark
        return found if at_rest and found["pid"] != besides else None

    first = wait_until(settled, what="the report")
    assert first is not None
    assert first["desired"] == mark
    assert first["instance"] == psutil.Process(first["pid"]).environ()["TARS_INSTANCE"]
    os.kill(first["pid"], signal.SIGKILL)
    second = wait_until(lambda: settled(first["pid"]), what="the next instance's report")
    assert second is not None
    assert (second["state"], second["restarts"], second["reported"]) == ("ready", 1, mark)
    assert second["instance"] != first["instance"]
    # What the instance before had retained is not taken for the next one's.
    report = json.loads(retained(supervised, "system/applied/router"))
    assert report["instance"] == second["instance"]
    assert supervised.stop() == 0


def test_workers_outlive_the_runtime_folder(program: Make) -> None:
    """A login manager removes it at the last logout: a worker that ends comes back, with all it needs."""
    supervised = program(demo_manifest({"router": "router"})).start()
    first = supervised.workers()["router"]
    shutil.rmtree(supervised.folder / "runtime")
    os.kill(first, signal.SIGKILL)
    supervised.until("router: was killed by SIGKILL; it is started again at once")
    wait_until(lambda: (found := state(supervised, "router"))["state"] == "ready" and found["pid"] != first, what="it")
    assert supervised.put("router", router_wake_ack_text="Ja?").status_code == 200
    supervised.until("router_wake_ack_text", service="router")
    wait_until(lambda: (state(supervised, "router")["reported"] or {}).get("version") == 2, what="the report")
    assert supervised.stop() == 0


def test_a_secret_under_another_master_key_shows_in_health(program: Make) -> None:
    supervised = program(demo_manifest({"tts-worker": "tts"})).start()
    assert supervised.put("tts-worker", eleven_api_key="s3cret-of-tts").status_code == 200
    assert supervised.stop() == 0
    env = supervised.folder / ".env"
    key = supervised.variable("CONFIG_MASTER_KEY_BASE64")
    env.write_text(env.read_text().replace(key, base64.b64encode(bytes(32)).decode()))
    supervised.start()
    wait_until(lambda: not supervised.is_well(), what="ill health")
    error = httpx.get(f"{supervised.url}/health", timeout=30).json()["err"]
    assert error.startswith("service tts-worker: the secret tts-worker/eleven_api_key does not open")
    assert supervised.put("tts-worker", eleven_api_key="another-one").status_code == 200
    wait_until(supervised.is_well, what="good health")
    assert supervised.stop() == 0
