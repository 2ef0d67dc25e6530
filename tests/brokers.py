"""Brokers for tests: the embedded one as its real child process, Mosquitto, and either behind one interface.

A folder's conftest.py makes the fixtures known: `from tests.brokers import any_broker, embedded_broker`.
`TEST_BROKERS` chooses what `any_…` stands for, `embedded,mosquitto` if not set; `stock` is amqtt as it comes, which
shows what our gate and engine are for (docs/decisions/0021).
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from actors.broker.config import (
    BrokerConfig,
    BrokerUser,
    Limits,
    Role,
    broker_command,
    hash_password,
    write_config,
)
from schemas.types import ServiceName
from tests.support import Mosquitto, end_process, free_port, wait_until

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Login:
    """A user of a broker, with the password in clear."""

    name: str
    role: Role
    service: str | None = None
    health_topic: str | None = None
    password: str = field(default_factory=lambda: secrets.token_urlsafe(32))


SUPERVISOR = Login("supervisor", Role.SUPERVISOR)
STT = Login("stt", Role.WORKER, service="stt", health_topic="system/health/stt-worker")
TTS = Login("tts", Role.WORKER, service="tts")
READER = Login("reader", Role.READER)
LOGINS = (SUPERVISOR, STT, TTS, READER)


class Broker(Protocol):
    """What the embedded broker and Mosquitto have in common here. Methods block for tens of milliseconds."""

    port: int

    @property
    def pid(self) -> int: ...
    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None:
        """End it in order."""

    def kill(self) -> None:
        """End it at once."""

    def restart(self) -> None:
        """Stop, and start on the same port."""


class EmbeddedBroker:
    """The embedded broker as a child process, on one port for its whole life."""

    def __init__(
        self,
        folder: Path,
        logins: Sequence[Login] = LOGINS,
        *,
        anonymous_read: bool = False,
        limits: Limits | None = None,
        host: str = HOST,
        port: int = 0,
        **config: Any,
    ) -> None:
        self._host = host
        self._other_config = config
        self._folder = folder
        self._logins = tuple(logins)
        self._anonymous_read = anonymous_read
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.port = port

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log lines of this start, or those of one event."""
        if not self._log.exists():
            return []
        text = self._log.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in lines if name in (None, line["event"])]

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert not self.running, "already running"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        self._write_config()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                broker_command(self._config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                # What goes there is an accident; it shall be seen in the test's report.
                stderr=None,
                start_new_session=True,
            )
        wait_until(lambda: self.events("listening") or not self.running, what="the broker's start")
        if not (listening := self.events("listening")):
            pytest.fail(f"the broker did not start: {self.events()}")
        self.port = listening[0]["port"]

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            end_process(self._process)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def restart(self) -> None:
        """Stop, and start on the same port."""
        self.stop()
        self.start()

    def reload(self, logins: Sequence[Login]) -> None:
        """Give it other users, and wait until it knows them."""
        before = len(self.events("reloaded"))
        self._logins = tuple(logins)
        self._write_config()
        self.signal(signal.SIGHUP)
        wait_until(lambda: len(self.events("reloaded")) > before, what="the broker's reload")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Its exit status."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout)

    @property
    def _config(self) -> Path:
        return self._folder / "broker.json"

    @property
    def _log(self) -> Path:
        return self._folder / f"broker-{self._starts}.log"

    def _write_config(self) -> None:
        users = tuple(
            BrokerUser(
                name=login.name,
                password_hash=hash_password(login.password),
                role=login.role,
                service=None if login.service is None else ServiceName(login.service),
                health_topic=login.health_topic,
            )
            for login in self._logins
        )
        write_config(
            self._config,
            BrokerConfig(
                host=self._host,
                port=self.port,
                users=users,
                anonymous_read=self._anonymous_read,
                limits=self._limits,
                **self._other_config,
            ),
        )


class EmbeddedFactory(Protocol):
    def __call__(self, logins: Sequence[Login] = LOGINS, **options: Any) -> EmbeddedBroker: ...


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[EmbeddedFactory]:
    """Start embedded brokers with `embedded_broker(logins, **options)`; they end with the test."""
    started: list[EmbeddedBroker] = []

    def start(logins: Sequence[Login] = LOGINS, **options: Any) -> EmbeddedBroker:
        broker = EmbeddedBroker(tmp_path / f"embedded-{len(started)}", logins, **options)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.stop()


def worker_reads(login: Login) -> list[str]:
    """Of what lies outside `system/` workers have `home/#` here: neither Mosquitto nor amqtt has "everything but"."""
    own = [f"system/{kind}/{login.service}" for kind in ("config", "control")]
    return [*own, "system/health/#", "system/state/#", "home/#"]


def worker_writes(login: Login) -> list[str]:
    health = login.health_topic or f"system/health/{login.service}"
    return [f"system/applied/{login.service}", health, "home/#"]


def mosquitto_for(folder: Path, logins: Sequence[Login] = LOGINS, *, limits: Limits | None = None) -> Mosquitto:
    """A Mosquitto, not started, with the contract's topic rules for `logins`, and those limits that it knows."""
    acl = []
    for login in logins:
        acl.append(f"user {login.name}")
        if login.role is Role.SUPERVISOR:
            acl.append("topic readwrite #")
        elif login.role is Role.READER:
            acl.append("topic read system/#")
        else:
            acl += [f"topic read {topic}" for topic in worker_reads(login)]
            acl += [f"topic write {topic}" for topic in worker_writes(login)]
    extra = []
    if limits is not None:
        extra = [
            f"max_connections {limits.max_connections}",
            f"max_packet_size {limits.max_packet_bytes}",
            f"max_inflight_messages {limits.max_inflight}",
            f"max_queued_messages {limits.max_queued_messages}",
        ]
    users = {login.name: login.password for login in logins}
    return Mosquitto(folder, users=users, acl="\n".join((*acl, "")), extra=extra)


class StockBroker:
    """amqtt by its own command, with the password file and the topic lists of its documentation."""

    def __init__(self, folder: Path, logins: Sequence[Login] = LOGINS, *, limits: Limits | None = None) -> None:
        self._folder = folder
        self._logins = tuple(logins)
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "amqtt.yaml"
        config.write_text(json.dumps(self._config()))  # JSON is YAML
        with (self._folder / "amqtt.log").open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("amqtt"), "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self._accepts() or not self.running, what="amqtt's start")
        assert self.running, (self._folder / "amqtt.log").read_text()

    def stop(self) -> None:
        """It has no end in order for SIGTERM."""
        if self._process is not None:
            end_process(self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait(self, timeout: float) -> int:
        """Its exit status."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def _config(self) -> dict[str, Any]:
        hasher = Argon2Hasher()
        passwords = self._folder / "passwords"
        passwords.write_text("".join(f"{each.name}:{hasher.hash(each.password)}\n" for each in self._logins))
        reads: dict[str, list[str]] = {}
        writes: dict[str, list[str]] = {}
        for login in self._logins:
            if login.role is Role.SUPERVISOR:
                reads[login.name] = writes[login.name] = ["#"]
            elif login.role is Role.READER:
                reads[login.name], writes[login.name] = ["system/#"], ["nothing"]
            else:
                reads[login.name], writes[login.name] = worker_reads(login), worker_writes(login)
        listener: dict[str, Any] = {"type": "tcp", "bind": f"{HOST}:{self.port}"}
        if self._limits is not None:
            listener["max_connections"] = self._limits.max_connections
        return {
            "listeners": {"default": listener},
            "plugins": {
                "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)},
                "amqtt.plugins.topic_checking.TopicAccessControlListPlugin": {"acl": reads, "publish_acl": writes},
            },
        }


KINDS: dict[str, Callable[..., Broker]] = {
    "embedded": EmbeddedBroker,
    "mosquitto": mosquitto_for,
    "stock": StockBroker,
}


def chosen(*wanted: str) -> list[str]:
    """Those of the brokers a test is for that this run is about; stock amqtt stands in for the embedded one."""
    run = os.environ.get("TEST_BROKERS", "embedded,mosquitto").split(",")
    assert set(run) <= KINDS.keys(), f"TEST_BROKERS: known are {', '.join(KINDS)}"
    return [kind for kind in run if ("embedded" if kind == "stock" else kind) in wanted]


class BrokerFactory(Protocol):
    def __call__(self, logins: Sequence[Login] = LOGINS, *, limits: Limits | None = None) -> Broker: ...


@pytest.fixture(params=chosen("embedded", "mosquitto"))
def any_broker_with(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerFactory]:
    """Start brokers of one kind, with the contract's topic rules and those limits that it knows."""
    started: list[Broker] = []

    def start(logins: Sequence[Login] = LOGINS, *, limits: Limits | None = None) -> Broker:
        broker = KINDS[request.param](tmp_path / f"{request.param}-{len(started)}", logins, limits=limits)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
def any_broker(any_broker_with: BrokerFactory) -> Broker:
    """A running broker with `LOGINS` and the contract's topic rules: the embedded one, then Mosquitto."""
    return any_broker_with()


@pytest.fixture(scope="module", params=chosen("embedded", "mosquitto"))
def any_shared_broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The same, one for all tests of a module that leave no messages or sessions in it."""
    broker = KINDS[request.param](tmp_path_factory.mktemp(request.param))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """An embedded broker for all such tests of a module."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("embedded"))
    broker.start()
    yield broker
    broker.stop()
