"""What these tests share: a loop, a real broker, a supervisor's stand-in, and a watch for leftovers.

This folder has no `__init__.py`, alone of all tests folders: an editable install puts `client/` on the path, where it
would be a second top-level package `tests` and hide the other one.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest
from tars_config.testing import TestSupervisor

DEADLINE_S = 15.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """A task of the library that outlives its test is a fault."""
    yield
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        assert code is None or not {"tars_config", "aiomqtt"} & set(Path(code.co_filename).parts), task


@pytest.fixture
def supervisor(tmp_path: Path) -> TestSupervisor:
    return TestSupervisor(tmp_path, "stt-worker", {"vad_threshold": 0.5, "whisper_model": "base.en", "channels": 1})


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other tasks bring about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Any:
    return eventually


class Mosquitto:
    """A real broker in a folder of its own, on a port of the kernel's choice that it keeps over restarts."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._configure("allow_anonymous true")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def _configure(self, *lines: str) -> None:
        # Started as root it would give that up, and with it the sight of a test's folder.
        text = "\n".join(["user root", f"listener {self.port} 127.0.0.1", *lines]) + "\n"
        (self._directory / "mosquitto.conf").write_text(text)

    def require_password(self, user: str, password: str) -> None:
        """From the next start on, only this login counts."""
        passwords = self._directory / "passwords"
        command = ["mosquitto_passwd", "-b", "-c", passwords, user, password]
        subprocess.run(command, check=True, capture_output=True)
        self._configure("allow_anonymous false", f"password_file {passwords}")

    async def start(self) -> None:
        log = (self._directory / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._program, "-c", self._directory / "mosquitto.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.poll() is None, (self._directory / "mosquitto.log").read_text()
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(DEADLINE_S)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, **options)


@pytest.fixture
def stopped_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Mosquitto is missing: apt install mosquitto")
        pytest.skip("Mosquitto is not installed")
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = Mosquitto(program, directory)
    yield broker
    broker.stop()


@pytest.fixture
async def broker(stopped_broker: Mosquitto) -> Mosquitto:
    await stopped_broker.start()
    return stopped_broker


class Watcher:
    """Sees what workers report, as the supervisor would."""

    def __init__(self) -> None:
        self.seen: dict[str, list[dict[str, Any]]] = {}

    async def run(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            if message.payload and not message.topic.matches("system/config/#"):
                self.seen.setdefault(str(message.topic), []).append(orjson.loads(message.payload))

    def last(self, topic: str) -> dict[str, Any]:
        return self.seen.get(topic, [{}])[-1]


@pytest.fixture
async def watcher(broker: Mosquitto) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    async with broker.client() as client:
        await client.subscribe("system/#", qos=1)
        task = asyncio.create_task(watcher.run(client))
        yield watcher
        task.cancel()
        await asyncio.wait({task})
