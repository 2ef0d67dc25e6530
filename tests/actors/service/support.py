"""A service's actor among real parts: store, signer, cache, bridge, and processes of its own."""

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, Field, SecretStr
from tars_config import wire

from actors.board import Board
from actors.bridge import BridgeActor, Desired, Timing
from actors.cache import CacheActor, CacheContents
from actors.database import DatabaseActor
from actors.events import Events
from actors.health import HealthActor
from actors.holding import Holding
from actors.output import Outputs
from actors.runtime import ChildSpec, Handle, Intensity, Ref, Supervisor
from actors.service import Fleet, ServiceActor, Surroundings, on_wire
from actors.signer import SignerActor
from actors.vault import Vault
from schemas.broker_address import BrokerAddress
from schemas.changes import ChangeAccepted, ConfigChange
from schemas.manifest import Backoff, Service
from schemas.records import NewService
from schemas.service_schema import ServiceSchema
from schemas.states import Kind, Lifecycle
from schemas.status import ServiceStatus
from schemas.types import Checksum, ServiceName
from tests.support import eventually

NAME = ServiceName("svc")
HMAC = b"h" * 32
PUBLIC_PEM = "-----BEGIN PUBLIC KEY-----\n"
CONFIG_TOPIC, STATE_TOPIC = "system/config/svc", "system/state/svc"
HEALTH_TOPIC, APPLIED_TOPIC = "system/health/svc", "system/applied/svc"

# Short where a test would only wait; the defaults are for boards.
QUICK = Timing(first_retry=0.01, quick_retry=0.05, slow_retry=0.1, tick=0.05)


class Model(BaseModel):
    volume: Annotated[int, Field(ge=0, le=200, json_schema_extra={"x-apply": "live"})] = 100
    engine: Literal["piper", "other"] = "piper"
    api_key: SecretStr | None = None
    pin: Annotated[SecretStr | None, Field(json_schema_extra={"x-apply": "live"})] = None


class LouderModel(Model):
    """The next release, with another default."""

    volume: Annotated[int, Field(ge=0, le=200, json_schema_extra={"x-apply": "live"})] = 120


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-u", "-c", text)


SLEEPER = shell("echo up; exec sleep 600")


@dataclass
class Rig:
    """Everything but the service's actor runs from the start; `serve` starts that."""

    folder: Path
    broker: BrokerAddress | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    database_timeout: float = 30.0
    busy_timeout: float = 2.0
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        self.board = Board()
        self.desired = Desired()
        self.contents = CacheContents()
        self.key = Ed25519PrivateKey.generate()
        self.database: Handle[DatabaseActor] = Handle("database", timeout=self.database_timeout)
        self.signer: Handle[SignerActor] = Handle("signer", timeout=30.0)
        self.cache: Handle[CacheActor] = Handle("cache")
        self.bridge: Handle[BridgeActor] = Handle("bridge")
        self.health: Handle[HealthActor] = Handle("health")
        self.service: Handle[ServiceActor] = Handle("svc", timeout=30.0)
        self.events = Events()
        self.fleet = Fleet({NAME: {}}, places=2)
        self.refs: dict[str, list[Ref[Any]]] = {}
        self.cache_states: list[tuple[bool, str]] = []
        for topic, method in ((HEALTH_TOPIC, ServiceActor.health), (APPLIED_TOPIC, ServiceActor.applied)):
            self.desired.subscribe(topic, lambda _topic, payload, method=method: self.service.tell(method, payload))

    # -- life

    async def open(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.holding = Holding(self.runtime)
        self.holder = await self.holding.open()
        self.outputs = Outputs(self.folder / "logs")
        self.supervisor = Supervisor.start(
            [
                self._child(self.health, lambda: HealthActor.start(self.board, lambda *_: None)),
                self._child(
                    self.database,
                    lambda: DatabaseActor.start(self.folder / "config.db", busy_timeout=self.busy_timeout),
                ),
                self._child(self.signer, lambda: SignerActor.start(self.key)),
                self._child(
                    self.cache,
                    lambda: CacheActor.start(
                        self.lkg, HMAC, self.contents, lambda *state: self.cache_states.append(state)
                    ),
                ),
                self._child(self.bridge, self._start_bridge),
            ],
            intensity=Intensity(restarts=50),
        )
        await self.supervisor.started

    def _child(self, handle: Handle[Any], start: Any) -> ChildSpec:
        def noted() -> Ref[Any]:
            ref: Ref[Any] = start()
            self.refs.setdefault(handle.name, []).append(ref)
            return ref

        return ChildSpec(handle, noted, stop_timeout=30.0)

    def _start_bridge(self) -> Ref[BridgeActor]:
        self.service.tell(ServiceActor.tell_again)
        return BridgeActor.start(
            lambda: self.broker,
            signer=self.signer,
            will=lambda: ("system/health/config-manager", b"{}"),
            on_acknowledged=lambda token: self.service.tell(ServiceActor.published, *token[1:]) if token else None,
            desired=self.desired,
            timing=QUICK,
        )

    async def serve(
        self,
        command: tuple[str, ...] = SLEEPER,
        *,
        model: type[BaseModel] = Model,
        kind: Kind = Kind.PROCESS,
        handle: "Handle[ServiceActor] | None" = None,
        **options: Any,
    ) -> None:
        """Start the service's actor, its row made where there is none. `handle`: of another service than `NAME`."""
        handle = handle or self.service
        name = ServiceName(handle.name)
        schema = ServiceSchema(name, model)
        await self.database.ask(DatabaseActor.ensure, [NewService(name, Checksum(on_wire(schema, {}).checksum))])
        service = Service(
            name=name,
            kind=kind,
            command=command if kind is Kind.PROCESS else (),
            cwd=self.folder,
            model="svc",
            health_topic=f"system/health/{name}",
            **{"grace": 10.0, "backoff": self.backoff, **options},
        )
        around = Surroundings(
            board=self.board,
            database=self.database,
            cache=self.cache,
            contents=self.contents,
            signer=self.signer,
            bridge=self.bridge,
            vault=Vault(b"m" * 32, "default"),
            environment={"PATH": os.environ["PATH"], **self.environment},
            mqtt_url=lambda service: f"mqtt://{service}:broker-password@127.0.0.1:1",
            public_keys=self.runtime / "public_keys.pem",
            public_pem=PUBLIC_PEM,
            health=self.health,
            runtime_folder=self.runtime,
            data_folder=self.folder,
            holding=self.holding,
            outputs=self.outputs,
            fleet=self.fleet,
            events=self.events,
            believes_reports=True,
            hurry=self.hurry,
        )
        root: Handle[Supervisor] = Handle("root", timeout=30.0)
        root.attach(self.supervisor)
        await root.ask(Supervisor.add, self._child(handle, lambda: ServiceActor.start(service, schema, around)))

    async def close(self) -> None:
        async with asyncio.timeout(60):
            self.supervisor.stop(block=False)
            await self.supervisor.exited.wait()
            await self.outputs.close()
            await self.holding.stop()

    def crash(self, name: str) -> None:
        self.refs[name][-1].cancel()

    # -- what is asked

    async def change(
        self, *, version: int | None = None, epoch: str | None = None, request: str = "r", **config: Any
    ) -> ChangeAccepted:
        """A PATCH."""
        change = ConfigChange(
            service=NAME,
            config=config,
            merge=True,
            expected_version=version,
            expected_epoch=epoch,
            changed_by="me",
            origin="rest",
            request_id=request,
        )
        return await self.service.ask(ServiceActor.change, change)

    def report_health(self, ok: bool, event: str = "", **more: Any) -> None:
        self.service.tell(ServiceActor.health, json.dumps({"ok": ok, "event": event, **more}).encode())

    def hear_the_clearing(self) -> None:
        """What the broker does, where there is none."""
        self.service.tell(ServiceActor.health, b"")
        self.service.tell(ServiceActor.applied, b"")

    # -- what is seen

    @property
    def runtime(self) -> Path:
        return self.folder / "runtime"

    @property
    def lkg(self) -> Path:
        return self.folder / "config.lkg.json"

    @property
    def credentials(self) -> Path:
        return self.runtime / "services" / NAME / "credentials"

    @property
    def snapshot_file(self) -> Path:
        return self.runtime / "services" / NAME / "snapshot.json"

    def snapshot(self) -> wire.SignedUpdate:
        update = wire.decode(self.snapshot_file.read_bytes())
        wire.verify(update, [self.key.public_key()])
        return update

    @property
    def state(self) -> ServiceStatus:
        return self.board.statuses[NAME]

    @property
    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.board.services[NAME].full.body)
        return shown

    @property
    def cached_version(self) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            version: int | None = json.loads(self.lkg.read_bytes())["payload"]["versions"].get(NAME)
            return version
        return None

    def wanted_version(self) -> int | None:
        """What the bridge would publish, or has."""
        wanted = self.desired.wanted(CONFIG_TOPIC)
        return None if wanted is None else wanted.content.version  # type: ignore[union-attr]

    async def until(self, *states: Lifecycle, instance: str | None = None) -> ServiceStatus:
        """Wait for one of the states, of another instance than `instance`; one that starts has its process by then."""
        await eventually(
            lambda: (
                self.state.state in states
                and (self.state.state is not Lifecycle.STARTING or self.state.pid is not None)
                and (instance is None or self.state.instance not in {instance, None})
            ),
            what=f"{states}",
        )
        return self.state

    async def ready(self) -> ServiceStatus:
        """Wait for the process, and have it report itself ready."""
        await self.until(Lifecycle.STARTING)
        self.hear_the_clearing()
        self.report_health(True, "ready")
        return await self.until(Lifecycle.READY)

    def write_as_foreigner(self, statement: str, *parameters: Any) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "config.db", timeout=30)) as connection, connection:
            assert connection.execute(statement, parameters).rowcount == 1

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Another program holds the store's write lock."""
        with contextlib.closing(
            sqlite3.connect(self.folder / "config.db", timeout=30, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")


class WorkerLog(logging.Handler):
    """What workers print, as it is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def worker_log() -> Iterator[WorkerLog]:
    logger, handler = logging.getLogger("worker"), WorkerLog()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    await rig.open()
    try:
        yield rig
    finally:
        await rig.close()
