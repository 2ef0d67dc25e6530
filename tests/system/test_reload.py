"""The manifest is changed while the program runs: exactly what the plan says happens, by REST and by SIGHUP."""

import os
import pty
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import psutil

from tests.support import wait_until
from tests.system.program import PROGRAM, Program, demo_manifest

Make = Callable[..., Program]

NEWCOMER = {"tts-worker": "tts"}


OTHER_RULES = """
grace = "1 s"
backoff = { first = "50 ms" }

[services.stt-worker.liveness]
kind = "exec"
command = ["false"]
interval = "100 ms"
failure_threshold = 1
start_period = "0 s"
"""


def reload(program: Program, query: str = "") -> Any:
    with program.client() as client:
        return client.post(f"/api/reload{query}")


def changes(answer: Any) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {each["service"]: each["change"] for each in answer.json()["services"]}


def write(program: Program, text: str) -> None:
    (program.folder / "services.toml").write_text(text)


def ready(program: Program, service: str) -> bool:
    with program.client() as client:
        answer = client.get(f"/api/services/{service}")
    return bool(answer.status_code == 200 and answer.json()["state"] == "ready")


def names(program: Program) -> list[str]:
    with program.client() as client:
        config = client.get("/api/config/services").json()["services"]
        assert [each["service"] for each in client.get("/api/services").json()["services"]] == config
    return list(config)


def test_the_plan_and_exactly_it(program: Make) -> None:
    router, stt = demo_manifest({"router": "router"}), demo_manifest({"stt-worker": "stt"})
    it = program(router + stt).start()
    before = it.workers()
    # Nothing is different, nothing is done.
    assert set(changes(reload(it)).values()) == {"unchanged"}
    # Other rules: nobody is touched, and they are in force.
    write(it, router + stt + OTHER_RULES)
    assert changes(reload(it, "?plan=true")) == {"router": "unchanged", "stt-worker": "policy"}
    assert it.workers() == before
    assert changes(reload(it)) == {"router": "unchanged", "stt-worker": "policy"}
    it.until("its liveness probe failed")
    write(it, router + stt)
    assert changes(reload(it))["stt-worker"] == "policy"
    wait_until(lambda: ready(it, "stt-worker"), what="stt-worker")
    assert it.workers()["router"] == before["router"]
    # One with another command, one that is new.
    before = it.workers()
    write(it, demo_manifest({"router": "router"}, load=0.01) + stt + demo_manifest(NEWCOMER))
    plan = {"router": "restart", "stt-worker": "unchanged", "tts-worker": "added"}
    assert changes(reload(it, "?plan=true")) == plan
    assert it.workers() == before
    assert changes(reload(it)) == plan
    assert names(it) == ["router", "stt-worker", "tts-worker"]
    for name in plan:
        wait_until(lambda name=name: ready(it, name), timeout=30, what=name)  # type: ignore[misc]
    now = it.workers()
    assert now["router"] != before["router"]
    assert {name: now[name] for name in ("stt-worker", "embedded-broker")} == {
        name: before[name] for name in ("stt-worker", "embedded-broker")
    }
    # They are as good as any: their settings, and their login at the broker.
    assert it.put("tts-worker", piper_voice="another").status_code == 200
    wait_until(lambda: ready(it, "tts-worker"), timeout=30, what="tts-worker")
    # One leaves; its settings stay for when it comes back.
    write(it, demo_manifest({"router": "router"}, load=0.01) + stt)
    assert changes(reload(it)) == {"router": "unchanged", "stt-worker": "unchanged", "tts-worker": "removed"}
    assert it.workers() == {name: pid for name, pid in it.workers().items() if name != "tts-worker"}
    assert {name: it.workers()[name] for name in ("router", "stt-worker")} == {
        name: now[name] for name in ("router", "stt-worker")
    }
    assert names(it) == ["router", "stt-worker"]
    with it.client() as client:
        assert client.get("/api/config/services/tts-worker").status_code == 404
    write(it, demo_manifest(NEWCOMER) + demo_manifest({"router": "router"}, load=0.01) + stt)
    assert changes(reload(it))["tts-worker"] == "added"
    assert names(it) == ["tts-worker", "router", "stt-worker"]
    assert it.get("tts-worker")["config"]["piper_voice"] == "another"
    assert it.stop() == 0
    assert it.processes() == []


def test_a_manifest_with_mistakes_changes_nothing(program: Make) -> None:
    it = program(demo_manifest({"router": "router"})).start()
    before = it.workers()
    write(it, '[services.router]\ncomand = ["cat"]\n\n[services.Other]\nkind = "config-only"\n')
    answer = reload(it)
    assert answer.status_code == 422
    messages = [error["message"] for error in answer.json()["errors"]]
    assert any("services.toml:2:" in message and "comand" in message for message in messages)
    assert any("services.toml:4:" in message for message in messages)
    os.kill(it.process.pid, signal.SIGHUP)  # type: ignore[union-attr]
    it.until("the manifest is not reloaded")
    assert it.workers() == before
    write(it, demo_manifest({"router": "router"}) + demo_manifest(NEWCOMER))
    os.kill(it.process.pid, signal.SIGHUP)  # type: ignore[union-attr]
    it.until("the manifest was read again: tts-worker: added")
    wait_until(lambda: "tts-worker" in it.workers(), what="the new worker")
    assert it.workers()["router"] == before["router"]
    assert it.stop() == 0


def test_a_terminal_that_is_closed_ends_it(program: Make) -> None:
    it = program(demo_manifest({"router": "router"}))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", PROGRAM, "run"],
        cwd=it.folder,
        env=it.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while b"ctrl-C ends it" not in said:
        said += os.read(ours, 65536)
    assert "router" in it.workers()
    # What it still says goes nowhere.
    os.close(ours)
    assert process.wait(30) == 0
    wait_until(lambda: not it.processes(), what="the end of its workers")
    assert not any(str(it.folder) == _cwd(each) for each in psutil.process_iter())


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""
