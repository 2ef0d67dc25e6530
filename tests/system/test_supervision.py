"""How the real program keeps its workers: order, policies, probes, limits, what the owner asks for."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import psutil
from tars_config import control
from tars_config.keys import load_public_keys

from tests.support import eventually, needs, wait_until
from tests.system.program import Program
from tests.system.test_worker_life import worker

Make = Callable[..., Program]

NONE = '{ kind = "none" }'
SLEEPS = "import time\nprint('up')\ntime.sleep(600)\n"
WELL = (
    '{ kind = "exec", command = ["test", "!", "-e", "ill"], interval = 0.1, failure_threshold = 1, start_period = 0 }'
)
NOTIFIES = (
    "import contextlib, os, socket, time\n"
    "def tell(text):\n"
    "    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:\n"
    "        one.sendto(text, os.environ['NOTIFY_SOCKET'])\n"
    "while not os.path.exists('go'): tell(b'STATUS=loading the model'); time.sleep(0.05)\n"
    "tell(b'READY=1')\n"
    "while not os.path.exists('hang'): tell(b'WATCHDOG=1'); time.sleep(0.05)\n"
    "os.unlink('hang')\n"
    "time.sleep(600)\n"
)


def service(program: Program, name: str) -> dict[str, Any]:
    with program.client() as client:
        answer = client.get(f"/api/services/{name}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def ask(program: Program, name: str, verb: str, **body: Any) -> httpx.Response:
    with program.client() as client:
        return client.post(f"/api/services/{name}/{verb}", json={"wait_s": 15, **body})


def until(program: Program, name: str, *states: str, words: str = "") -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        found = service(program, name)
        return found if found["state"] in states and words in found["reason"] else None

    found = wait_until(there, what=f"{name} {states} {words}")
    assert found is not None
    return found


def test_what_the_owner_stopped_stays_stopped(program: Make) -> None:
    manifest = worker("router", SLEEPS, readiness=NONE) + worker("stt-worker", SLEEPS, readiness=NONE)
    supervised = program(manifest).start()
    answer = ask(supervised, "router", "stop", reason="it is night")
    assert (answer.status_code, answer.json()["done"]) == (200, True)
    found = service(supervised, "router")
    assert (found["state"], found["wanted"], found["pid"]) == ("stopped", False, None)
    assert "it is night" in found["reason"]
    assert (found["ends"][0]["signal"], found["ends"][0]["last_lines"]) == ("SIGTERM", ["up"])
    # A change starts nothing, nor does the next life of the supervisor, however the one before ended.
    supervised.kill()
    supervised.start()
    assert service(supervised, "router")["wanted"] is False
    assert supervised.stop() == 0
    supervised.start()
    assert service(supervised, "router")["state"] == "stopped"
    assert set(supervised.workers()) == {"stt-worker", "embedded-broker"}
    answer = ask(supervised, "router", "start")
    assert (answer.status_code, service(supervised, "router")["state"]) == (200, "ready")
    assert supervised.stop() == 0
    supervised.start()
    until(supervised, "router", "ready")
    assert supervised.stop() == 0


def test_a_stop_that_came_to_the_disk_alone(program: Make) -> None:
    """Killed between the note and the end of the worker: the next one ends it."""
    supervised = program(worker("router", SLEEPS, readiness=NONE)).start()
    supervised.kill()
    (supervised.folder / "data" / "stopped").mkdir()
    (supervised.folder / "data" / "stopped" / "router").touch()
    supervised.start()
    until(supervised, "router", "stopped")
    assert set(supervised.workers()) == {"embedded-broker"}
    assert supervised.stop() == 0


def test_in_order_and_not_too_many_at_a_time(program: Make) -> None:
    waits = (
        "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nprint('up')\ntime.sleep(600)\n"
    )
    ready = '{ kind = "log-line", pattern = "^up$" }'

    def one(name: str, **more: str) -> str:
        return worker(name, waits, readiness=ready, **more).replace(
            json.dumps(waits), json.dumps(waits) + f', "{name}"'
        )

    supervised = program(
        "[supervisor]\nconcurrent_starts = 1\n"
        + one("router", start_after='["stt-worker"]')
        + one("stt-worker")
        + one("tts-worker")
        + one("memory-worker", start_after='{ router = "started" }')
    )
    supervised.serve()
    until(supervised, "stt-worker", "starting")
    wait_until(lambda: "turn" in service(supervised, "tts-worker")["reason"], what="that the other waits for its turn")
    found = service(supervised, "router")
    assert (found["state"], found["waits_for"]) == ("waiting", ["stt-worker"])
    assert service(supervised, "memory-worker")["waits_for"] == ["router"]
    for name in ("stt-worker", "tts-worker", "router", "memory-worker"):
        (supervised.folder / name).touch()
    order = [until(supervised, name, "ready")["ready_at"] for name in ("stt-worker", "router")]
    assert order == sorted(order)
    until(supervised, "memory-worker", "ready")
    until(supervised, "tts-worker", "ready")
    # The order of ends is the reverse; a restart with dependants takes those along, and nobody else.
    before = supervised.workers()
    answer = ask(supervised, "stt-worker", "restart", dependants=True)
    assert (answer.status_code, answer.json()["trouble"]) == (200, {})
    after = supervised.workers()
    assert {name for name in before if before[name] != after[name]} == {"stt-worker", "router", "memory-worker"}
    assert supervised.stop() == 0
    told = [event["event"] for event in supervised.log()]
    order = [
        next(
            number
            for number, text in enumerate(told)
            if text.startswith(f"{name}: {what}") and number > told.index("stopping")
        )
        for name, what in (
            ("memory-worker", "ended"),
            ("router", "asked to end"),
            ("router", "ended"),
            ("stt-worker", "asked"),
        )
    ]
    assert order == sorted(order)


def test_who_ends_and_how_often(program: Make) -> None:
    quick = "{ first = 0.01, max = 0.02 }"
    supervised = program(
        worker("router", "raise SystemExit(3)", backoff=quick, intensity='{ restarts = 2, window = "1 h" }')
        + worker("stt-worker", "print('done')", restart='"on-failure"')
        + worker("tts-worker", "raise SystemExit(5)", restart='"never"')
        + worker("memory-worker", "raise SystemExit(5)", restart='"on-failure"', success_exit_codes="[0, 5]")
        + '[services.llm-worker]\ncommand = ["./no-such-program"]\n'
        + worker("wake-activation", SLEEPS, readiness=NONE, start_after='{ "stt-worker" = "exited-ok" }')
    ).start()
    found = until(supervised, "router", "failed")
    assert found["restarts"] == 2
    assert [(end["exit_code"], end["restarted"]) for end in found["ends"]] == [(3, True), (3, True), (3, False)]
    assert until(supervised, "stt-worker", "exited")["ends"][0]["last_lines"] == ["done"]
    assert until(supervised, "tts-worker", "failed")["reason"] == "exited with 5"
    until(supervised, "memory-worker", "exited")
    missing = until(supervised, "llm-worker", "failed")
    assert (missing["restarts"], missing["ends"]) == (0, [])
    assert "no-such-program" in missing["reason"]
    until(supervised, "wake-activation", "ready")
    # A failed one is tried again when somebody asks, and the answer says how that went.
    answer = ask(supervised, "llm-worker", "start")
    assert answer.status_code == 202
    assert "no-such-program" in answer.json()["trouble"]["llm-worker"]
    program_file = supervised.folder / "no-such-program"
    program_file.write_text("#!/bin/sh\nexec sleep 600\n")
    program_file.chmod(0o755)
    assert supervised.put("llm-worker").status_code == 200  # nothing is different: nothing is tried
    assert service(supervised, "llm-worker")["state"] == "failed"
    assert ask(supervised, "llm-worker", "start", wait_s=0).json()["done"] is False
    until(supervised, "llm-worker", "starting")
    assert supervised.stop() == 0


TELLTALE = "echo not $ELEVEN_API_KEY; false"


def test_what_a_probe_prints_shows_no_secret(program: Make) -> None:
    asks = f'{{ kind = "exec", command = ["/bin/sh", "-c", "{TELLTALE}"], interval = 0.1, failure_threshold = 1 }}'
    asks = asks.replace(" }", ", start_period = 0 }")
    supervised = program(worker("tts-worker", SLEEPS, readiness=NONE, liveness=asks), ELEVEN_API_KEY="canary-4711-0815")
    supervised.serve()
    found = wait_until(
        lambda: (known := service(supervised, "tts-worker"))["ends"] and known, what="an ill worker's end"
    )
    assert "not ********" in found["ends"][0]["reason"]
    assert "canary" not in json.dumps(found)
    assert "canary" not in supervised.stderr
    assert supervised.stop() == 0


def test_an_ill_worker_is_restarted(short: Path, program: Make) -> None:
    """By its liveness probe, by its watchdog; after a restart of the supervisor, too."""
    supervised = program(
        worker("router", NOTIFIES, readiness='{ kind = "notify" }', watchdog="1.5", cwd='"router"')
        + worker(
            "stt-worker",
            SLEEPS,
            readiness=NONE,
            liveness=WELL,
        ),
        RUNTIME_DIRECTORY=str(short),
    )
    folder = supervised.folder / "router"
    folder.mkdir()
    supervised.serve()
    until(supervised, "router", "starting", words="loading the model")
    (folder / "go").touch()
    first = until(supervised, "router", "ready")
    (folder / "hang").touch()
    wait_until(lambda: service(supervised, "router")["restarts"] == 1, what="the watchdog")
    end = service(supervised, "router")["ends"][0]
    assert end["signal"] == "SIGABRT"
    assert "watchdog" in end["reason"]
    second = until(supervised, "router", "ready")
    assert second["pid"] != first["pid"]
    supervised.kill()
    supervised.start()
    assert until(supervised, "router", "ready")["pid"] == second["pid"]
    (folder / "hang").touch()
    wait_until(lambda: service(supervised, "router")["restarts"] == 1, what="the watchdog, once more")
    (supervised.folder / "ill").touch()
    wait_until(lambda: service(supervised, "stt-worker")["restarts"] > 0, what="the liveness probe")
    (supervised.folder / "ill").unlink()
    assert "liveness probe failed" in service(supervised, "stt-worker")["ends"][0]["reason"]
    assert supervised.stop() == 0


def test_more_memory_than_it_may_have(program: Make) -> None:
    greedy = "import time\nprint('up')\nkept = bytearray(b'x') * (64 << 20)\ntime.sleep(600)\n"
    supervised = program(worker("router", greedy, readiness=NONE, memory_limit='"32 MiB"')).start()
    found = wait_until(
        lambda: (seen := service(supervised, "router"))["ends"] and seen, timeout=30, what="the end of the greedy one"
    )
    assert found
    end = found["ends"][0]
    assert end["memory"] > 32 << 20
    assert "memory" in end["reason"] or end["signal"] == "SIGKILL"
    assert supervised.stop() == 0


def test_limits_hold_from_the_first_line_on(program: Make) -> None:
    shows = (
        "import os, resource, time\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0), oct(os.umask(0)))\n"
        "time.sleep(600)\n"
    )
    supervised = program(
        worker(
            "router", shows, readiness=NONE, rlimits="{ nofile = { soft = 64, hard = 128 } }", nice="5", umask='"027"'
        )
    ).start()
    supervised.until("(64, 128) 5 0o27", service="router")
    assert supervised.stop() == 0


def test_deaf_to_its_signal_with_children(program: Make) -> None:
    deaf = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0: os.setsid()\n"
        "print('up\\n', end='')\n"  # written whole: the two of them may print at once
        "time.sleep(600)\n"
    )
    supervised = program(worker("router", deaf, readiness=NONE, grace="0.2")).start()
    wait_until(lambda: supervised.lines_of("router").count("up") == 2, what="both")
    answer = ask(supervised, "router", "stop")
    assert answer.status_code == 200
    assert {name for _, name in supervised.marked()} == {"embedded-broker"}
    supervised.until("router: killed, since it did not end within 0.2 s")
    # A deadline that is shorter than the grace is told, and what was asked for goes on.
    assert ask(supervised, "router", "start").status_code == 200
    until(supervised, "router", "ready")
    answer = ask(supervised, "router", "stop", wait_s=0)
    assert answer.status_code == 202
    assert "not done within" in answer.json()["trouble"]["router"]
    until(supervised, "router", "stopped")
    assert supervised.stop() == 0


def test_one_after_the_other(program: Make) -> None:
    """A rolling restart of all ends at the first that does not come up; who was stopped stays so."""
    supervised = program(
        worker("router", SLEEPS, readiness=NONE)
        + worker("stt-worker", "import os\nif os.path.exists('broken'): raise SystemExit(1)\n" + SLEEPS, readiness=NONE)
        + worker("tts-worker", SLEEPS, readiness=NONE)
        + worker("memory-worker", SLEEPS, readiness=NONE)
    ).start()
    assert ask(supervised, "memory-worker", "stop").status_code == 200
    before = supervised.workers()
    with supervised.client() as client:
        answer = client.post("/api/services/restart", json={"rolling": True, "wait_s": 20})
    assert (answer.status_code, answer.json()["trouble"]) == (200, {})
    after = supervised.workers()
    assert set(before) == set(after)
    assert {name for name in before if before[name] == after[name]} == {"embedded-broker"}
    (supervised.folder / "broken").touch()
    with supervised.client() as client:
        told = client.post("/api/services/restart", json={"rolling": True, "wait_s": 20}).json()
    # It is ready as soon as it was executed, so it may have been seen as up for a moment.
    assert not told["done"] or until(supervised, "stt-worker", "backing-off")
    (supervised.folder / "broken").unlink()
    assert supervised.stop() == 0


async def test_one_that_somebody_else_runs(program: Make) -> None:
    """Heard on its health topic and by its last will; restarted by its command, or by the signed signal."""
    command = json.dumps(["/bin/sh", "-c", "echo again >> restarts"])
    liveness = '{ kind = "health-topic", failure_threshold = 1 }'
    supervised = program(
        f'[services.kitchen]\nkind = "external"\nmodel = "router"\nrestart_command = {command}\nliveness = {liveness}\n'
        "backoff = { first = 0.05, max = 0.05 }\ngrace = 1\n"
        '[services.hall]\nkind = "external"\nmodel = "router"\n'
    ).start()
    broker, restarts = supervised.broker, supervised.folder / "restarts"
    passwords = supervised.folder / "runtime" / "broker" / "passwords"
    assert service(supervised, "kitchen")["state"] == "external"
    command = [needs("mosquitto_pub"), "-h", broker.host, "-p", str(broker.port), "-l", "-q", "1", "-r"]
    command += ["-u", "kitchen", "-P", (passwords / "kitchen").read_text(), "-i", "kitchen"]
    command += ["-t", "system/health/kitchen", "--will-topic", "system/health/kitchen", "--will-retain"]
    command += ["--will-payload", '{"ok": false, "event": "connection lost"}']
    with subprocess.Popen(command, stdin=subprocess.PIPE) as kitchen:
        assert kitchen.stdin is not None
        kitchen.stdin.write(b'{"ok": true, "event": "cooking"}\n')
        kitchen.stdin.flush()
        await eventually(lambda: service(supervised, "kitchen")["reason"] == "cooking")
        assert service(supervised, "kitchen")["state"] == "ready"
        assert ask(supervised, "kitchen", "restart").status_code == 200
        assert restarts.read_text() == "again\n"
        assert ask(supervised, "kitchen", "stop").status_code == 409
        # It is cut off, and its last will goes out.
        kitchen.kill()
    await eventually(lambda: restarts.read_text().startswith("again\nagain\n"), what="the second restart")
    assert service(supervised, "kitchen")["state"] == "unhealthy"
    async with aiomqtt.Client(broker.host, broker.port, username=broker.user, password=broker.password) as onlooker:
        await onlooker.subscribe("system/control/#", qos=1)
        assert ask(supervised, "hall", "restart", reason="it is slow").status_code == 200
        message = await anext(aiter(onlooker.messages))
    assert str(message.topic) == "system/control/hall"
    told = control.decode(bytes(message.payload))
    control.verify(told, load_public_keys(supervised.folder / "runtime" / "public_keys.pem"))
    assert (told.service, told.command) == ("hall", "restart")
    assert "it is slow" in told.reason
    assert supervised.stop() == 0


def test_nothing_wakes_it_for_nothing(program: Make) -> None:
    """Workers that ask for no watching cost no wake-ups."""
    names = ["router", "stt-worker", "tts-worker", "memory-worker", "llm-worker"]
    supervised = program("".join(worker(name, SLEEPS, readiness=NONE) for name in names)).start()
    assert supervised.process is not None
    process = psutil.Process(supervised.process.pid)

    def switches() -> int:
        return process.num_ctx_switches().voluntary

    def rests() -> bool:
        before = switches()
        time.sleep(1.0)  # what is measured, not a synchronisation
        return switches() - before <= 20

    wait_until(rests, timeout=30, what="rest")
    assert supervised.stop() == 0
