"""The broker's files, with a real Mosquitto: who may do what, the way to its passwords, and what a full disk has left."""

import asyncio
import contextlib
import re
import socket
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import aiomqtt
import httpx
import pytest

from tests.deploy.pages import DEPLOY, commands
from tests.support import end_process, free_port, needs, password_line, wait_until
from tests.system.program import Program, demo_manifest

WORKERS = {
    name: service.get("health_topic", f"system/health/{name}")
    for name, service in tomllib.loads((DEPLOY / "services.tars.toml").read_text())["services"].items()
}


class Broker:
    """Mosquitto with the files of `deploy/`, in a folder of its own: only paths, port and user are others."""

    def __init__(self, folder: Path, passwords: str) -> None:
        self._program = needs("mosquitto")
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        text = (DEPLOY / "mosquitto.conf").read_text()
        text = text.replace("listener 1883 ", f"listener {self.port} ").replace("/etc/mosquitto", str(folder))
        text = text.replace("/var/lib/mosquitto", str(folder)).replace("/run/mosquitto", str(folder))
        (folder / "mosquitto.conf").write_text(f"{text}user root\n")
        (folder / "tars.acl").write_text((DEPLOY / "mosquitto.acl").read_text())
        (folder / "tars.passwords").write_text(passwords)
        for private in ("tars.acl", "tars.passwords"):
            (folder / private).chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def launch(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [self._program, "-c", self.folder / "mosquitto.conf"], stdout=log, stderr=log, start_new_session=True
            )
        return self.process

    def start(self) -> "Broker":
        process = self.launch()
        wait_until(lambda: self._accepts() or process.poll() is not None, what="the broker's start")
        assert process.poll() is None, self.log
        return self

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        if self.process is not None:
            end_process(self.process)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[[str], Broker]]:
    made: list[Broker] = []

    def make(passwords: str) -> Broker:
        made.append(Broker(tmp_path / "mosquitto", passwords))
        return made[-1]

    yield make
    for each in made:
        each.stop()


async def test_each_may_do_its_own_and_nothing_else(broker: Callable[[str], Broker]) -> None:
    users = ["tars-supervisor", "viewer", *WORKERS]
    port = broker("".join(f"{password_line(user, user)}\n" for user in users)).start().port

    def client(user: str) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", port, username=user, password=user)

    async with asyncio.timeout(30), client("tars-supervisor") as supervisor, client("viewer") as viewer:
        await supervisor.subscribe("#", qos=1)
        for name, health in WORKERS.items():
            other = "router" if name != "router" else "stt-worker"
            async with client(name) as worker:
                await worker.subscribe("#", qos=1)
                forbidden = [
                    f"system/config/{name}",
                    f"system/control/{name}",
                    f"system/state/{name}",
                    f"system/applied/{other}",
                    WORKERS[other],
                    "system/events",
                    "system/health/config-manager",
                ]
                for topic in [*forbidden, f"system/applied/{name}", health, "assistant/said"]:
                    await worker.publish(topic, name, qos=1)
                for user in (supervisor, viewer):
                    await user.publish("system/events", "secret", qos=1)
                    await user.publish(f"system/config/{other}", "not yours", qos=1)
                    await user.publish(f"system/config/{name}", "yours", qos=1)
                await supervisor.publish("assistant/last", "", qos=1)
                assert set(await until_last(worker)) == {health, "assistant/said", f"system/config/{name}"}
            seen = await until_last(supervisor)
            # Of what was forbidden, the supervisor's own alone: the broker let no other through.
            assert {topic for topic, payloads in seen.items() if name in payloads} == {
                f"system/applied/{name}",
                health,
                "assistant/said",
            }
            assert seen["system/events"] == ["secret"]


async def until_last(client: aiomqtt.Client) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = {}
    async for message in client.messages:
        if str(message.topic) == "assistant/last":
            return seen
        assert isinstance(message.payload, bytes)
        seen.setdefault(str(message.topic), []).append(message.payload.decode())
    raise AssertionError("the broker has closed the connection")


def test_nobody_without_a_password(broker: Callable[[str], Broker]) -> None:
    port = broker(f"{password_line('viewer', 'right')}\n").start().port
    for login in ([], ["-u", "viewer", "-P", "wrong"]):
        done = subprocess.run(
            [needs("mosquitto_sub"), "-p", str(port), *login, "-t", "system/#", "-W", "25"],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 5, done.stderr


def test_every_line_of_the_manifest_has_its_rules() -> None:
    rules = (DEPLOY / "mosquitto.acl").read_text()
    for name, health in WORKERS.items():
        assert re.search(rf"^user {name}\ntopic write {health}$", rules, re.MULTILINE), name


def test_passwords_as_the_page_says(broker: Callable[[str], Broker], tmp_path: Path) -> None:
    """From a first start whose workers are refused to workers that are logged in, by the commands of the page."""
    needs("mosquitto_passwd")
    mosquitto = broker(f"{password_line('tars-supervisor', 'first')}\n").start()
    program = Program(
        tmp_path / "installation",
        demo_manifest({"router": "router"}),
        MQTT_URL=f"mqtt://tars-supervisor:first@127.0.0.1:{mosquitto.port}",
    )
    try:
        program.serve()
        script = commands("passwords")
        script = script.replace("/var/lib/tars/run", program.environment["RUNTIME_DIRECTORY"])
        script = script.replace("/etc/mosquitto", str(mosquitto.folder)).replace(
            "tars-supervisor:SECRET", "tars-supervisor:first"
        )
        script = re.sub(r"^(chown|systemctl) .*$", "", script, flags=re.MULTILINE)
        passwords = tmp_path / "installation" / "runtime" / "broker" / "passwords"
        wait_until((passwords / "router").exists, what="the worker's password")
        subprocess.run(["sh", "-eu", "-c", script], check=True, timeout=30)
        text = (mosquitto.folder / "tars.passwords").read_text()
        assert (passwords / "router").read_text() not in text
        assert {line.split(":")[0] for line in text.splitlines()} >= {"tars-supervisor", "router"}
        mosquitto.stop()
        mosquitto.start()
        with program.client() as client:
            wait_until(lambda: _reported(client) == 1, timeout=30, what="the worker's report")
        wait_until(program.is_well, timeout=30, what="health")
        assert program.stop() == 0
    except httpx.HTTPError as error:
        pytest.fail(f"{error!r}\n{program.stderr[-2000:]}")
    finally:
        program.close()


def _reported(client: httpx.Client) -> object:
    return (client.get("/api/services/router").json()["reported"] or {}).get("version")


def test_what_a_full_disk_has_left(broker: Callable[[str], Broker]) -> None:
    """The page says: it does not start on it; without it, it does."""
    mosquitto = broker(f"{password_line('tars-supervisor', 'x')}\n").start()
    for number in range(10):
        subprocess.run(
            [
                *(needs("mosquitto_pub"), "-p", str(mosquitto.port), "-u", "tars-supervisor", "-P", "x"),
                *("-r", "-q", "1", "-t", f"assistant/{number}", "-m", "x" * 500),
            ],
            check=True,
            timeout=30,
        )
    mosquitto.stop()
    database = mosquitto.folder / "mosquitto.db"
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 2])
    process = mosquitto.launch()
    assert process.wait(30) != 0
    assert "Couldn't open database" in mosquitto.log
    database.unlink()
    mosquitto.start()
