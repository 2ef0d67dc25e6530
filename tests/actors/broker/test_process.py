"""The child: how it starts, ends, and is told."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from pydantic import ValidationError

from actors.broker.config import (
    BrokerConfig,
    BrokerUser,
    Limits,
    Role,
    broker_command,
    hash_password,
    write_config,
)
from actors.broker.rules import Principal
from actors.broker.settings import Door, load
from schemas.types import ServiceName
from tests.actors.broker.clients import RawClient, client, connect_packet, receive
from tests.brokers import HOST, STT, SUPERVISOR

HASH = hash_password("x")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actors.broker", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def worker(**changes: object) -> BrokerUser:
    return BrokerUser.model_validate(
        {"name": "stt", "password_hash": HASH, "role": "worker", "service": "stt", **changes}
    )


class TestConfig:
    def test_the_child_reads_what_the_supervisor_writes(self, tmp_path):
        path = tmp_path / "broker.json"
        config = BrokerConfig(
            port=1234,
            users=(
                BrokerUser(name="supervisor", password_hash=HASH, role=Role.SUPERVISOR),
                worker(),
                worker(name="other", health_topic="system/health/elsewhere"),
            ),
            anonymous_read=True,
            limits=Limits(max_pending=7),
        )
        write_config(path, config)

        assert path.stat().st_mode & 0o777 == 0o600
        settings = load(path)
        assert (settings.doors, settings.anonymous_read) == ((Door("127.0.0.1", 1234),), True)
        assert settings.limits == Limits(max_pending=7)
        assert {name: account.principal for name, account in settings.accounts.items()} == {
            "supervisor": Principal("supervisor", Role.SUPERVISOR),
            "stt": Principal("stt", Role.WORKER, "stt", "system/health/stt"),
            "other": Principal("other", Role.WORKER, "stt", "system/health/elsewhere"),
        }
        assert {account.password_hash.hex() for account in settings.accounts.values()} == {HASH}

    @pytest.mark.parametrize(
        "changes",
        [
            {"service": None},
            {"role": "reader"},
            {"role": "admin"},
            {"name": ""},
            {"name": "a/b"},
            {"name": "a b"},
            {"password_hash": "x"},
            {"health_topic": "system/health/config-manager"},
            {"health_topic": "system/config/stt"},
            {"health_topic": "system/health/+"},
            {"health_topic": "$SYS/x"},
            {"unknown": 1},
        ],
    )
    def test_inconsistent_users_are_refused(self, changes):
        with pytest.raises(ValidationError):
            worker(**changes)

    @pytest.mark.parametrize("changes", [{"users": (worker(), worker())}, {"port": 65536}, {"limits": {"x": 1}}])
    def test_inconsistent_configurations_are_refused(self, changes):
        with pytest.raises(ValidationError):
            BrokerConfig.model_validate(changes)

    def test_hashes_are_not_shown(self):
        assert HASH not in repr(BrokerConfig(users=(worker(),)))


class TestStart:
    def test_wrong_arguments(self):
        done = run("--port", "1883")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--config FILE" in done.stderr

    @pytest.mark.parametrize(
        "content", [None, "", "[]", "{", '{"users": [{}]}', '{"users": 1}', '{"users": [], "password": "hunter2"}']
    )
    def test_a_file_that_cannot_be_used_is_named_without_its_content(self, tmp_path, content):
        path = tmp_path / "broker.json"
        if content is not None:
            path.write_text(content)
        done = run("--config", str(path))
        (line,) = map(json.loads, done.stdout.splitlines())
        assert (done.returncode, done.stderr, line["event"]) == (1, "", "failed")
        assert str(path) in line["error"]
        assert "hunter2" not in done.stdout

    def test_a_port_that_is_taken(self, tmp_path):
        path = tmp_path / "broker.json"
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            write_config(path, BrokerConfig(port=port))
            done = run("--config", str(path))
        (line,) = map(json.loads, done.stdout.splitlines())
        assert (done.returncode, done.stderr) == (1, "")
        assert line["error"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"

    def test_the_child_imports_neither_pydantic_nor_our_other_parts(self):
        code = "import sys, actors.broker.__main__; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
        loaded = set(done.stdout.split())
        assert "amqtt.broker" in loaded
        assert not loaded & {"pydantic", "aiomqtt", "litestar", "cryptography", "psutil", "schemas", "tars_config"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_in_order_whatever_its_clients_do(embedded_broker, number):
    """Half-open, logged in, in the middle of a packet, with much unread."""
    broker = embedded_broker()
    async with (
        RawClient.dial(broker),
        RawClient.dial(broker) as partial,
        RawClient.dial(broker, receive_buffer=4096) as deaf,
        client(broker, SUPERVISOR) as subscriber,
        RawClient.login(broker, STT) as publisher,
    ):
        partial.send(connect_packet(STT)[:20])
        deaf.send(connect_packet(STT, client_id="stt-deaf"))
        await deaf.packet()
        await deaf.subscribe("home/#", qos=0)
        await subscriber.subscribe("home/last", qos=1)
        for _ in range(64):
            publisher.publish("home/noise", bytes(60_000))
        publisher.publish("home/last", b"", qos=1)
        publisher.send(b"\x30\x50half a packet")
        await receive(subscriber, 1)

        broker.signal(number)
        assert broker.wait(30) == 0
        await publisher.closed()
    assert broker.events()[-1]["event"] == "stopped"
    assert broker.events("library") == broker.events("connection_failed") == []


async def test_it_comes_back_on_its_port_while_clients_reconnect(embedded_broker):
    broker = embedded_broker()
    port = broker.port
    for end in (broker.stop, broker.kill):
        async with RawClient.login(broker, STT) as raw:
            end()
            await raw.closed()
        broker.start()
        assert broker.port == port
        async with RawClient.login(broker, STT):
            pass


async def test_a_reload_that_fails_changes_nothing(embedded_broker, tmp_path):
    broker = embedded_broker([SUPERVISOR])
    (file,) = tmp_path.rglob("broker.json")
    file.write_text("{")
    async with RawClient.login(broker, SUPERVISOR) as raw:
        broker.signal(signal.SIGHUP)
        while not broker.events("reload_failed"):
            await raw.flushed()
    async with RawClient.login(broker, SUPERVISOR):
        pass


async def test_a_log_that_nobody_reads_does_not_stop_it(tmp_path):
    """Its standard output is a full pipe."""
    path = tmp_path / "broker.json"
    write_config(
        path,
        BrokerConfig(
            port=0,
            users=(
                BrokerUser(name="supervisor", password_hash=hash_password(SUPERVISOR.password), role=Role.SUPERVISOR),
            ),
        ),
    )
    read, write = os.pipe()
    process = subprocess.Popen(broker_command(path), stdout=write)
    try:
        with os.fdopen(read, "rb") as log:
            listening = json.loads(log.readline())
            # Fill it, through another open file description: ours says nothing about the child's.
            filler = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(filler, bytes(4096))
            os.close(filler)
            broker = _At(listening["port"])
            for _ in range(20):
                async with RawClient.login(broker, SUPERVISOR) as raw:
                    await raw.flushed()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    finally:
        os.close(write)
        process.kill()
        process.wait(30)


class _At:
    def __init__(self, port: int) -> None:
        self.port = port


def test_a_services_name_is_enough_for_its_topics():
    assert worker(service=ServiceName("tts")).health_topic is None
