"""The embedded broker's actor: its process is its life, and both come back on the same port."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from actors.broker import child
from actors.broker.child import BrokerActor, BrokerDied
from actors.broker.config import BrokerConfig
from actors.holding import Holding
from actors.output import Outputs
from actors.runtime import ChildSpec, Handle, Ref, Supervisor
from tests.support import eventually


class Place:
    """Where a broker runs, and what it told."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.anonymous_read = False
        self.addresses: list[tuple[str, int]] = []
        self.downs: list[str] = []
        self.refs: list[Ref[BrokerActor]] = []
        self.handle: Handle[BrokerActor] = Handle("broker")
        self.runtime = folder / "runtime"
        self.runtime.mkdir(mode=0o700)
        self.holding: Holding
        self.outputs: Outputs

    async def open(self) -> None:
        self.holding, self.outputs = Holding(self.runtime), Outputs(self.folder / "logs")
        await self.holding.open()

    async def close(self) -> None:
        await self.outputs.close()
        await self.holding.stop()

    def start(self) -> Ref[BrokerActor]:
        config = BrokerConfig(host="127.0.0.1", port=self.port, users=(), anonymous_read=self.anonymous_read)
        ref = BrokerActor.start(
            config,
            folder=self.folder / "runtime" / "broker",
            holding=self.holding,
            outputs=self.outputs,
            on_address=self.note,
            on_down=self.downs.append,
        )
        self.refs.append(ref)
        return ref

    def note(self, host: str, port: int) -> None:
        self.addresses.append((host, port))
        self.port = port

    async def pid(self) -> int:
        pid = await self.handle.ask(BrokerActor.pid)
        assert pid is not None
        return pid


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.open()
    yield place
    await place.close()


@contextlib.asynccontextmanager
async def supervised(place: Place) -> AsyncIterator[None]:
    supervisor = Supervisor.start([ChildSpec(place.handle, place.start, stop_timeout=30.0)])
    await supervisor.started
    try:
        yield
    finally:
        async with asyncio.timeout(30):
            supervisor.stop(block=False)
            await supervisor.exited.wait()


async def refused(place: Place) -> Exception:
    ref = place.start()
    async with asyncio.timeout(30):
        with pytest.raises(BrokerDied) as caught:
            await ref.started
        await ref.exited.wait()
    return caught.value


async def test_it_listens_where_it_says_and_ends_in_order(place: Place) -> None:
    async with supervised(place):
        ((host, port),) = place.addresses
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
        pid = await place.pid()
        environment = psutil.Process(pid).environ()
        assert environment["TARS_INSTANCE"] == (place.runtime / "instances" / "embedded-broker").read_text()
        assert set(environment) - {"LC_CTYPE"} == {"PATH", "PYTHONUNBUFFERED", "TARS_INSTANCE", "TARS_SERVICE"}
    assert not psutil.pid_exists(pid)


async def test_one_that_dies_comes_back_on_its_port(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actors")
    async with supervised(place):
        pid = await place.pid()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(place.addresses) == 2)
        assert place.addresses[0] == place.addresses[1]
        assert await place.pid() != pid
    assert [record.getMessage() for record in caplog.records if record.name.startswith("actors.")] == [
        "broker: the embedded broker was killed by SIGKILL; it is started again at once",
        "broker runs again",
    ]
    assert "Traceback" not in caplog.text
    assert place.holding.claim("embedded-broker") is None


async def test_the_next_supervisor_takes_it_over(place: Place) -> None:
    """A supervisor that dies takes no connection with it; one that would start another broker ends this one."""
    async with asyncio.timeout(30):
        ref = place.start()
        await ref.started
        pid = await ref.proxy().pid()
        reader, writer = await asyncio.open_connection(*place.addresses[0])
        ref.cancel()
        await ref.exited.wait()
        await place.outputs.close()
        place.holding.close()
        await place.open()
        place.port = 0
        ref = place.start()
        await ref.started
        assert await ref.proxy().pid() == pid
        assert place.addresses[0] == place.addresses[1]
        assert not reader.at_eof()
        ref.cancel()
        await ref.exited.wait()
        place.anonymous_read = True
        ref = place.start()
        await ref.started
        assert await ref.proxy().pid() != pid
        await ref.stop(block=False)
        writer.close()
    assert not place.downs


async def test_a_port_that_is_taken_is_told(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.port = taken.getsockname()[1]
        assert str(place.port) in str(await refused(place))


@pytest.mark.parametrize("code", ["raise SystemExit(7)", 'print(\'{"event": "failed", "error": "no luck"}\')'])
async def test_one_that_ends_before_it_listens(place: Place, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(child, "broker_command", lambda _: (sys.executable, "-I", "-S", "-c", code))
    text = str(await refused(place))
    assert "exited with 7 before it listened" in text or "no luck" in text


async def test_one_that_never_listens(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "broker_command", lambda _: ("/bin/sleep", "600"))
    monkeypatch.setattr(BrokerActor, "start_seconds", 0.05)
    assert "does not listen after 0.05 s" in str(await refused(place))


async def test_what_it_logs_is_logged_whatever_its_names(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker's libraries have fields such as `message`, which a log record does not let anybody set."""
    lines = [
        '{"event": "library", "level": "warning", "message": "out of slots", "args": 1, "logger": "amqtt", "time": 1}',
        "not JSON",
        "[1]",
        '{"no": "event"}',
        '{"event": "listening", "host": "127.0.0.1", "port": 7}',
        '{"event": "login refused", "level": "warning", "user": "svc"}',
    ]
    code = f"import time\nfor line in {lines!r}: print(line, flush=True)\ntime.sleep(600)"
    monkeypatch.setattr(child, "broker_command", lambda _: (sys.executable, "-I", "-S", "-c", code))
    with caplog.at_level(logging.DEBUG, logger="broker"):
        async with supervised(place):
            assert place.addresses == [("127.0.0.1", 7)]
            await eventually(lambda: "login refused" in caplog.text)
    told = {record.getMessage(): record for record in caplog.records if record.name == "broker"}
    assert told["out of slots"].__dict__["logger"] == "amqtt"
    assert told["login refused"].__dict__["user"] == "svc"
    assert {"not JSON", "[1]", '{"no":"event"}'} <= told.keys()


async def test_a_stop_after_its_process_has_died(place: Place) -> None:
    """Both at once: the process is gone, and the stop comes before the news of it."""
    ref = place.start()
    await ref.started
    pid = await ref.proxy().pid()
    ref.proxy().pid()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await ref.stop(block=False)
        await ref.exited.wait()
    assert not psutil.pid_exists(pid)
