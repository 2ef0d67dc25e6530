"""The supervisor is killed or replaced: its workers run on, and the next one takes them over with all that they said."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import psutil

from tests.support import wait_until
from tests.system.program import Program, demo_manifest
from tests.system.test_worker_life import state, worker

Make = Callable[..., Program]

RUNS = {"readiness": '{ kind = "none" }'}

STRAY = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        print('astray\\n', end='', flush=True)\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
    "print('here\\n', end='', flush=True)\n"
    "time.sleep(600)\n"
)
"""A worker with a child that has left its session and its parent. Their lines are written whole, so that none cuts another."""

COUNTS = (
    "import os, sys, time\n"
    "n = 0\n"
    "while not os.path.exists('end'):\n"
    "    n += 1\n"
    "    print('line', n, flush=True)\n"
    "    time.sleep(0.005)\n"
    "print('last words', flush=True)\n"
    "sys.exit(7)\n"
)


def ready(program: Program, service: str, *besides: int) -> bool:
    found = state(program, service)
    return found["state"] == "ready" and found["pid"] not in besides


def holder_of(program: Program) -> psutil.Process:
    broker = next(process for process, name in program.marked() if name == "embedded-broker")
    holder = broker.parent()
    assert holder is not None
    assert any(part.endswith("program.py") for part in holder.cmdline())
    return holder


def test_workers_and_connections_outlive_it(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router", "stt-worker": "stt"})).start()
    before, url = supervised.workers(), supervised.url
    instances = {name: state(supervised, name)["instance"] for name in ("router", "stt-worker")}
    supervised.kill()
    assert supervised.workers() == before
    # Whoever comes now waits in the backlog of the socket that the holder has.
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(f"{url}/health", timeout=30).status_code))
    asking.start()
    supervised.start()
    asking.join(30)
    assert answers == [200]
    assert supervised.url == url
    assert supervised.workers() == before
    for name, instance in instances.items():
        wait_until(lambda name=name: ready(supervised, name), what=name)  # type: ignore[misc]
        found = state(supervised, name)
        assert (found["instance"], found["restarts"]) == (instance, 0)
    events = [event["event"] for event in supervised.log()]
    assert any("router: adopted, pid" in event for event in events)
    assert not any("router: started" in event for event in events)
    # They are this one's as much as any that it has started: changed, restarted, ended.
    assert supervised.put("router", router_wake_ack_text="Ja?").status_code == 200
    wait_until(lambda: (state(supervised, "router")["reported"] or {}).get("version") == 2, what="the report")
    os.kill(before["stt-worker"], signal.SIGKILL)
    wait_until(lambda: ready(supervised, "stt-worker", before["stt-worker"]), what="the next instance")
    holder = holder_of(supervised)
    assert supervised.stop() == 0
    assert supervised.processes() == []
    wait_until(lambda: not holder.is_running(), what="the holder's end")


def test_the_holders_attachment_comes_before_the_web(program: Make) -> None:
    """Of the imports of a start, the web stack's come when the workers are in hand already."""
    supervised = program(demo_manifest({"router": "router"}), PYTHONPROFILEIMPORTTIME="1").start()
    lines = supervised.stderr.splitlines()

    def first(name: str) -> int:
        return next(
            number for number, line in enumerate(lines) if line.endswith(name) and line.startswith("import time")
        )

    began = next(number for number, line in enumerate(lines) if '"event":"tars-supervisor' in line)
    assert first(" actors.holder") < began < first(" litestar.app")
    assert supervised.stop() == 0


def test_what_was_said_meanwhile_is_told(program: Make) -> None:
    """Output goes on, without a line lost or twice; of one that ended meanwhile, how, and its last words."""
    supervised = program(worker("router", COUNTS, **RUNS)).start()
    supervised.until("line 20", service="router")
    supervised.kill()
    said = supervised.lines_of("router")
    pid = supervised.workers()["router"]
    (supervised.folder / "end").touch()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", what="its end")
    supervised.launch()
    supervised.until("last words", service="router")
    supervised.until("router: exited with 7")
    (supervised.folder / "end").unlink()
    supervised.until("line 3", service="router")
    lines = supervised.lines_of("router")
    said += lines[: lines.index("last words")]
    numbers = [int(line.removeprefix("line ")) for line in said if line.startswith("line ")]
    assert len(numbers) == len(set(numbers))
    # One may have been in its hands when it was killed.
    assert len(set(range(1, numbers[-1] + 1)) - set(numbers)) <= 1
    # The same is on disk.
    kept = [json.loads(line) for line in (supervised.folder / "data" / "logs" / "router.log").read_text().splitlines()]
    messages = [entry["message"] for entry in kept]
    assert len(set(messages[: messages.index("last words")]) ^ {f"line {number}" for number in numbers}) <= 1
    wait_until(lambda: "REST" in supervised.stdout, timeout=60, what="the summary")
    assert supervised.stop() == 0


def test_a_holder_that_is_killed_leaves_nobody_doubled(program: Make) -> None:
    """Its workers, and their strays, are ended and started again, also where nobody was there to see it."""
    supervised = program(worker("router", STRAY, **RUNS)).start()
    supervised.until("astray", service="router")
    strays = {process.pid for process in supervised.processes()}
    holder_of(supervised).kill()
    supervised.until("the holder of workers was killed")
    wait_until(lambda: supervised.lines_of("router").count("astray") == 2, what="the next instance")
    now = {process.pid for process in supervised.processes()}
    assert not now & strays
    wait_until(supervised.is_well, what="its health")
    # And once more with the supervisor away.
    holder = holder_of(supervised)
    supervised.kill()
    holder.kill()
    # Rubbish among the records is no reason not to start.
    (supervised.folder / "runtime" / "instances" / "rubbish").write_bytes(b"\xff\x00")
    supervised.start()
    supervised.until("of a supervisor that was killed")
    supervised.until("astray", service="router")
    assert not now & {process.pid for process in supervised.processes()}
    assert supervised.stop() == 0
    assert supervised.processes() == []


def test_without_a_holder_its_health_says_why(program: Make) -> None:
    supervised = program(worker("router", "import time\nprint('up')\ntime.sleep(600)\n", **RUNS)).start()
    supervised.until("up", service="router")
    runtime = supervised.folder / "runtime"

    def part() -> dict[str, Any]:
        with supervised.client() as client:
            found: dict[str, Any] = client.get("/api/config/health").json()["components"].get("workers", {})
            return found

    # A folder that others may enter is not given to a holder.
    runtime.chmod(0o755)
    holder_of(supervised).kill()
    wait_until(lambda: "must belong to this user alone" in part().get("detail", ""), what="that it is ill")
    assert part()["ok"] is False
    assert "no holder" in httpx.get(f"{supervised.url}/health").json()["err"]
    runtime.chmod(0o700)
    wait_until(supervised.is_well, timeout=30, what="its health")
    assert (part()["ok"], part()["detail"]) == (True, "")
    wait_until(lambda: ready(supervised, "router"), timeout=30, what="the next instance")
    told = [event["event"] for event in supervised.log() if "holder of" in event["event"]]
    assert ["killed" in line for line in told] == [True, False, False]
    assert "must belong to this user alone" in told[1]
    assert supervised.stop() == 0


def test_the_whole_tree_is_gone_before_the_next_and_after_the_end(program: Make) -> None:
    supervised = program(worker("router", STRAY, **RUNS)).start()
    for rounds in range(1, 4):
        wait_until(  # the third start waits for its backoff
            lambda rounds=rounds: supervised.lines_of("router").count("astray") == rounds,  # type: ignore[misc]
            timeout=30,
            what="the stray",
        )
        before = {process.pid: process for process in supervised.processes()}
        leader = wait_until(
            lambda before=before: (pid := state(supervised, "router")["pid"]) in before and pid, what="its pid"
        )  # type: ignore[misc]
        os.kill(leader, signal.SIGKILL)
        wait_until(lambda leader=leader: state(supervised, "router")["pid"] not in {leader, None}, what="the next")  # type: ignore[misc]
        left = set(before) & {process.pid for process in supervised.processes()}
        assert {before[pid].environ()["TARS_SERVICE"] for pid in left} == {"embedded-broker"}
    assert supervised.stop() == 0
    assert supervised.processes() == []


def test_one_that_left_the_manifest_is_ended(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router", "stt-worker": "stt"})).start()
    before = supervised.workers()
    supervised.kill()
    (supervised.folder / "services.toml").write_text(demo_manifest({"router": "router"}))
    supervised.start()
    wait_until(lambda: "stt-worker" not in supervised.workers(), what="the end of stt-worker")
    assert supervised.workers()["router"] == before["router"]
    assert supervised.stop() == 0


def test_a_changed_command_restarts_that_one_alone(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router", "stt-worker": "stt"})).start()
    before = supervised.workers()
    supervised.kill()
    changed = demo_manifest({"router": "router"}, load=0.01) + demo_manifest({"stt-worker": "stt"})
    (supervised.folder / "services.toml").write_text(changed)
    supervised.start()
    supervised.until("router: restarts for its command or environment")
    wait_until(lambda: ready(supervised, "router", before["router"]), what="the next instance")
    assert supervised.workers()["stt-worker"] == before["stt-worker"]
    assert supervised.stop() == 0


def test_a_setting_that_was_saved_and_not_followed(program: Make) -> None:
    """Killed between the commit and the restart that it asks for: the next start sees what the worker was started with."""
    code = "import os, time\nprint(os.environ.get('TARS_INSTANCE') and 'up', flush=True)\ntime.sleep(600)\n"
    supervised = program(worker("tts-worker", code, **RUNS)).start()
    supervised.until("up", service="tts-worker")
    before = supervised.workers()["tts-worker"]
    supervised.kill()
    environment = supervised.folder / ".env"
    environment.write_text(f"{environment.read_text()}\nPIPER_VOICE=another\n")
    supervised.start()
    supervised.until("tts-worker: restarts for piper_voice")
    wait_until(lambda: supervised.workers().get("tts-worker") not in {before, None}, what="the next instance")
    assert supervised.stop() == 0


def test_a_refused_start_harms_no_worker(program: Make) -> None:
    supervised = program(demo_manifest({"router": "router"})).start()
    before = supervised.workers()
    supervised.kill()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        supervised.environment["CONFIG_API_PORT"] = str(port)
        supervised.launch()
        assert supervised.wait() == 2
        assert str(port) in supervised.stderr
        assert supervised.workers() == before
    supervised.environment["CONFIG_API_PORT"] = "0"
    supervised.start()
    assert supervised.workers() == before
    assert supervised.stop() == 0
