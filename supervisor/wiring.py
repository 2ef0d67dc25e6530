"""Starts everything, sees that it answers, and stops it in reverse. Nobody else starts an actor.

Order of the start: health, store, signer, cache; then what needs to know the store: broker, bridge, services, REST. What goes
wrong up to there refuses the start with a sentence; from then on a part that fails is restarted by its supervisor, and the
process ends only when the topmost of those gives up.
"""

import asyncio
import contextlib
import hashlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from actors.board import Board
from actors.bridge import BridgeActor, BridgeState, Desired
from actors.broker.child import BrokerActor, BrokerDied
from actors.broker.config import BrokerConfig, BrokerUser, Role, hash_password
from actors.broker.credentials import Credentials
from actors.cache import CacheActor, CacheContents, CacheEntry
from actors.database import DatabaseActor, StoreUnavailable
from actors.files import write_atomically
from actors.health import Component, HealthActor, last_will
from actors.runtime import Backoff, ChildSpec, Exit, Handle, Intensity, OutcomeUnknown, Ref, Rejected, Supervisor
from actors.service import OnWire, ServiceActor, Surroundings, on_wire
from actors.signer import SignerActor
from actors.vault import Vault
from api import ApiState, HostRule, Server, Token, Tokens, create_app
from schemas.broker_address import BrokerAddress
from schemas.changes import ChangeAccepted, ConfigChange
from schemas.manifest import Service
from schemas.records import NewService, StoreState
from schemas.states import DatabaseStatus, Kind, Lifecycle
from schemas.states import Role as ApiRole
from schemas.types import Checksum, ServiceName
from supervisor import __version__
from supervisor.boot import Boot, StartRefused
from supervisor.keys import public_pem
from supervisor.logging import Log
from supervisor.summary import Summary

logger = logging.getLogger(__name__)

SUPERVISOR_USER = "tars-supervisor"
VIEWER = "viewer"

SETTLE_SECONDS = 10.0
"""How long the summary waits for workers that are still loading."""

BROKER_BACKOFF = 5.0
"""Seconds between two attempts to bring the embedded broker back, at most."""

REQUEST_GRACE = 5.0
"""Seconds that requests in flight get at the end."""


class System:
    """The whole program between the first lock and the last. `start`, then `stop`, once each, on one loop."""

    def __init__(self, boot: Boot, listener: socket.socket, log: Log, hurry: asyncio.Event) -> None:
        self._boot = boot
        self._listener = listener
        self._log = log
        self._began = time.monotonic()
        settings, keys, folders = boot.settings, boot.keys, boot.folders
        self._board = Board()
        self._desired = Desired()
        self._contents = CacheContents()
        self._credentials = Credentials(folders.runtime / "broker" / "passwords")
        self._embedded = settings.mqtt.embedded
        self._broker_at = settings.mqtt.address
        self._broker_known = not self._embedded
        self._services: dict[str, Service] = {service.name: service for service in boot.manifest.services}

        self._database: Handle[DatabaseActor] = Handle("database")
        self._signer: Handle[SignerActor] = Handle("signer")
        self._cache: Handle[CacheActor] = Handle("cache")
        self._broker: Handle[BrokerActor] = Handle("broker")
        self._bridge: Handle[BridgeActor] = Handle("bridge")
        self._health: Handle[HealthActor] = Handle("health")
        self._handles: dict[str, Handle[ServiceActor]] = {name: Handle(name) for name in self._services}
        self._surroundings = Surroundings(
            board=self._board,
            database=self._database,
            cache=self._cache,
            contents=self._contents,
            signer=self._signer,
            bridge=self._bridge,
            vault=Vault(keys.master, keys.master_id),
            environment=settings.environment,
            mqtt_url=self._worker_url,
            public_keys=folders.runtime / "public_keys.pem",
            public_pem=public_pem(keys.signing_public),
            health=self._health,
            runtime_folder=folders.runtime,
            data_folder=folders.data,
            hurry=hurry,
        )
        self._core: Ref[Supervisor] | None = None
        self._workers: Ref[Supervisor] | None = None
        self._server: Server | None = None

    # -- start

    async def start(self) -> None:
        """Start everything and return once REST answers.

        Raises:
            StartRefused: a sentence for a person.
        """
        try:
            self._core = Supervisor.start(self._core_children())
            await self._core.started
            state = await self._load()
            # Only now, since the last will that goes with the connection tells the epoch.
            await self._start_messaging(self._core)
            self._health.tell(HealthActor.announce)
            await self._start_services(state)
        except StoreUnavailable as error:
            raise StartRefused(str(error)) from error
        except BrokerDied as error:
            raise StartRefused(
                f"{error}; stop what uses that port, choose another with MQTT_URL=embedded://127.0.0.1:<port>, "
                "or name a broker of your own with MQTT_URL=mqtt://host"
            ) from error
        except OSError as error:
            raise StartRefused(
                f"{error.filename or f'a file under {self._boot.folders.data}'} cannot be used ({error.strerror}); "
                "make room, or see that this user may write there"
            ) from error
        api = self._api_state()
        self._server = Server(create_app(api), api.limits)
        await self._server.start([self._listener])

    def _core_children(self) -> list[ChildSpec]:
        settings, keys = self._boot.settings, self._boot.keys
        self._surroundings.public_keys.write_text(self._surroundings.public_pem, encoding="ascii")
        self._subscribe()
        return [
            # First, so that it hears the others' first words.
            ChildSpec(self._health, lambda: HealthActor.start(self._board, self._publish_health)),
            ChildSpec(
                self._database,
                lambda: DatabaseActor.start(settings.db_path, on_status=self._note_database),
                stop_timeout=15.0,
            ),
            ChildSpec(self._signer, lambda: SignerActor.start(keys.signing_private)),
            ChildSpec(
                self._cache,
                lambda: CacheActor.start(settings.lkg_path, keys.hmac, self._contents, self._note_cache),
                stop_timeout=15.0,
            ),
        ]

    async def _start_messaging(self, core: Ref[Supervisor]) -> None:
        self._say_how_workers_log_in()
        children: Handle[Supervisor] = Handle("core", timeout=30.0)
        children.attach(core)
        if self._embedded:
            await children.ask(Supervisor.add, self._broker_supervisor())
        await children.ask(Supervisor.add, ChildSpec(self._bridge, self._start_bridge))

    def _broker_supervisor(self) -> ChildSpec:
        """A supervisor for the broker alone, which never gives up: without a broker all the rest still does its work."""
        folders = self._boot.folders
        broker = ChildSpec(
            self._broker,
            lambda: BrokerActor.start(
                self._broker_config(),
                folder=folders.runtime / "broker",
                instances=self._surroundings.instances,
                on_address=self._note_broker,
                on_down=self._note_broker_down,
            ),
            stop_timeout=10.0,
        )
        patient = Intensity(restarts=sys.maxsize)
        return ChildSpec(
            Handle("broker supervisor"),
            lambda: Supervisor.start([broker], intensity=patient, backoff=Backoff(maximum=BROKER_BACKOFF)),
            stop_timeout=15.0,
        )

    def _start_bridge(self) -> Ref[BridgeActor]:
        # What waited for the one before it is lost; `Desired` keeps what that one had already taken.
        for handle in self._handles.values():
            handle.tell(ServiceActor.tell_again)
        return BridgeActor.start(
            self._broker_address,
            signer=self._signer,
            will=lambda: last_will(self._board),
            on_state=self._note_bridge,
            on_acknowledged=self._note_published,
            mirrors=[topic.template for topic in self._boot.settings.mqtt_legacy_topics],
            desired=self._desired,
        )

    async def _load(self) -> StoreState:
        """Read the store, give new services their rows, and bring what is derived from it in step."""
        schemas = self._boot.schemas
        empty = {name: on_wire(schema, {}) for name, schema in schemas.items()}
        new = [NewService(ServiceName(name), Checksum(wire.checksum)) for name, wire in empty.items()]
        database = self._database.within(60.0)
        self._refuse_empty_store(await database.ask(DatabaseActor.load))
        state = await database.ask(DatabaseActor.ensure, new)
        self._health.tell(HealthActor.database, DatabaseStatus.HEALTHY)
        self._health.tell(HealthActor.facts, state.config_epoch, state.schema_version)
        wires = {name: on_wire(schemas[name], state.services[ServiceName(name)].config) for name in self._services}
        self._contents.replace(state.config_epoch, state.revision, self._cache_entries(state, wires))
        self._cache.tell(CacheActor.changed)
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._write_epoch_file, state)
        except OSError as error:
            # It is derived, and the next start tries again: no reason not to serve.
            logger.error(  # noqa: TRY400  # the sentence says it
                "%s could not be written: %s", self._boot.settings.epoch_path, error.strerror
            )
        return state

    def _refuse_empty_store(self, state: StoreState) -> None:
        """Settings that were lost are not silently begun anew: not even where an empty database is in their place."""
        settings = self._boot.settings
        traces = [path for path in (settings.lkg_path, settings.epoch_path) if path.exists()]
        if traces and not state.services:
            raise StartRefused(
                f"the store {settings.db_path} is empty, though {traces[0]} shows that there were settings; "
                f"restore it from a backup, or move {traces[0]} away to begin anew with defaults"
            )

    def _cache_entries(self, state: StoreState, wires: Mapping[str, OnWire]) -> list[CacheEntry]:
        return [
            CacheEntry(name, wire.canonical, wire.checksum, state.services[ServiceName(name)].version)
            for name, wire in wires.items()
        ]

    def _write_epoch_file(self, state: StoreState) -> None:
        digests = sorted(f"{name}={schema.digest}" for name, schema in self._boot.schemas.items())
        document = {
            "epoch": state.config_epoch,
            "schema_version": state.schema_version,
            "model_hash": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
            "created": state.created_at,
            "last_rebuild": None,
        }
        path, text = self._boot.settings.epoch_path, orjson.dumps(document, option=orjson.OPT_INDENT_2)
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)

    async def _start_services(self, state: StoreState) -> None:
        # What was read just now is for the first start of each; a later one reads for itself.
        loaded: dict[str, Any] = {
            name: (state.services[ServiceName(name)], state.secrets.get(ServiceName(name), {}))
            for name in self._services
        }

        def start(service: Service) -> Callable[[], Ref[ServiceActor]]:
            return lambda: ServiceActor.start(
                service, self._boot.schemas[service.name], self._surroundings, loaded.pop(service.name, None)
            )

        children = [
            ChildSpec(self._handles[service.name], start(service), stop_timeout=service.stop_grace_s + 5.0)
            for service in self._services.values()
        ]
        self._workers = Supervisor.start(children)
        await self._workers.started

    async def settled(self) -> None:
        """Return when every worker is ready, stopped or in trouble, or after `SETTLE_SECONDS`."""
        # Before its first start a worker is "stopped".
        under_way = {Lifecycle.STOPPED, Lifecycle.STARTING, Lifecycle.STOPPING}
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            states = {state.state for state in self._board.states.values()}
            if len(self._board.states) == len(self._services) and not states & under_way:
                return
            await asyncio.sleep(0.05)

    def summary(self) -> Summary:
        """Give what `run` tells."""
        settings, made = self._boot.settings, self._boot.made
        host, port = self._listener.getsockname()[:2]
        address = self._broker_address()
        kind = "embedded" if self._embedded else "yours"
        return Summary(
            version=__version__,
            address=f"http://{f'[{host}]' if ':' in host else host}:{port}",
            data=str(self._boot.folders.data),
            keys=str(settings.env_file),
            runtime=str(self._boot.folders.runtime),
            broker=f"{address} ({kind})",
            look=self._look_around() if self._embedded else None,
            token=made.admin_token.get_secret_value() if made.admin_token is not None else None,
            states=tuple(self._board.states.values()),
            seconds=time.monotonic() - self._began,
        )

    def _look_around(self) -> str:
        """Give the command that shows what is on the embedded broker, with its read-only login."""
        where = f"-h {self._broker_at.host} -p {self._broker_at.port}"
        return f"mosquitto_sub {where} -u {VIEWER} -P {self._credentials.password(VIEWER)} -t 'system/#' -v"

    # -- end

    async def failed(self) -> Exit:
        """Wait until a topmost supervisor gives up, and tell why."""
        assert self._core is not None
        assert self._workers is not None
        waits = [asyncio.ensure_future(_exit_of(ref)) for ref in (self._core, self._workers)]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """Stop in reverse: requests in flight finish, workers end together, state is published, the store closes last."""
        if self._server is not None:
            await self._server.stop(REQUEST_GRACE)
        if self._workers is not None and self._workers.is_alive():
            ends = [
                handle.within(self._services[name].stop_grace_s + 5.0).ask(ServiceActor.shut_down)
                for name, handle in self._handles.items()
                if handle.up
            ]
            await asyncio.gather(*ends, return_exceptions=True)
            await self._workers.stop(block=False)
        if self._core is not None and self._core.is_alive():
            with contextlib.suppress(Rejected, OutcomeUnknown):
                await self._health.within(1.0).ask(HealthActor.farewell)
            await self._core.stop(block=False)
            await self._core.exited.wait()

    # -- the broker

    def _broker_config(self) -> BrokerConfig:
        users = [BrokerUser(name=SUPERVISOR_USER, password_hash=self._hash(SUPERVISOR_USER), role=Role.SUPERVISOR)]
        users += [
            BrokerUser(
                name=service.name,
                password_hash=self._hash(service.name),
                role=Role.WORKER,
                service=ServiceName(service.name),
                health_topic=service.health_topic,
            )
            for service in self._services.values()
            if service.kind is not Kind.CONFIG_ONLY
        ]
        users.append(BrokerUser(name=VIEWER, password_hash=self._hash(VIEWER), role=Role.READER))
        return BrokerConfig(
            host=self._broker_at.host,
            port=self._broker_at.port,
            users=tuple(users),
            anonymous_read=self._boot.settings.mqtt_anonymous_read,
        )

    def _hash(self, user: str) -> Checksum:
        return hash_password(self._credentials.password(user))

    def _say_how_workers_log_in(self) -> None:
        if not self._embedded and self._broker_at.user is not None:
            logger.warning(
                "the broker at %s wants a login: workers use their service's name and the password in %s; "
                "the broker has to know these, too",
                self._broker_at,
                self._boot.folders.runtime / "broker" / "passwords",
            )

    def _note_broker(self, host: str, port: int) -> None:
        # Workers hold the address, so a port that the kernel chose stays the broker's for good.
        self._broker_at = BrokerAddress(host, port)
        self._broker_known = True
        self._health.tell(HealthActor.report, Component.BROKER, ok=True, address=f"{host}:{port}")

    def _note_broker_down(self, reason: str) -> None:
        self._health.tell(HealthActor.report, Component.BROKER, ok=False, detail=reason)

    def _broker_address(self) -> BrokerAddress | None:
        if not self._broker_known:
            return None
        if not self._embedded:
            return self._broker_at
        return replace(self._broker_at, user=SUPERVISOR_USER, password=self._credentials.password(SUPERVISOR_USER))

    def _worker_url(self, service: str) -> str:
        scheme, _, where = str(self._broker_at).partition("://")
        return f"{scheme}://{service}:{self._credentials.password(service)}@{where}"

    def _subscribe(self) -> None:
        routes: dict[str, Callable[[bytes], object]] = {}
        for name, service in self._services.items():
            handle = self._handles[name]
            routes[service.health_topic] = _telling(handle, ServiceActor.health)
            routes[f"system/applied/{name}"] = _telling(handle, ServiceActor.applied)

        def received(topic: str, payload: bytes) -> None:
            route = routes.get(topic)
            if route is not None:
                route(payload)

        apart = {topic for topic in routes if not _covered(topic)}
        for topic_filter in ("system/health/+", "system/applied/+", *sorted(apart)):
            self._desired.subscribe(topic_filter, received)

    # -- what parts tell; each runs on the loop and only passes on

    def _note_database(self, status: str, reason: str | None) -> None:
        self._health.tell(HealthActor.database, DatabaseStatus(status), reason or "")

    def _note_cache(self, valid: bool, detail: str) -> None:
        self._health.tell(HealthActor.lkg, valid, detail)

    def _note_bridge(self, state: BridgeState) -> None:
        reason = "" if state.connected or state.failure is None else state.failure.reason
        self._health.tell(HealthActor.report, Component.BRIDGE, state.connected, reason, state.broker)

    def _note_published(self, token: Any) -> None:
        if token is not None:
            service, epoch, version = token
            self._handles[service].tell(ServiceActor.published, epoch, version)

    def _publish_health(self, topic: str, payload: bytes) -> None:
        self._bridge.tell(BridgeActor.retain, topic, payload)

    # -- the API

    def _api_state(self) -> ApiState:
        settings = self._boot.settings
        return ApiState(
            board=self._board,
            change=self._change,
            tokens=Tokens(
                Token(name=token.name, role=ApiRole(token.role), secret=token.token.get_secret_value())
                for token in settings.api_tokens
            ),
            csrf_key=HKDF(hashes.SHA256(), 32, salt=None, info=b"tars csrf v1").derive(self._boot.keys.hmac),
            hosts=HostRule.of_this_machine(settings.api_host),
            version=__version__,
            access_log=self._log.access if settings.enable_access_log and self._log.tells_access else None,
        )

    async def _change(self, change: ConfigChange) -> ChangeAccepted:
        return await self._handles[change.service].ask(ServiceActor.change, change)


def _telling(handle: Handle[ServiceActor], method: Callable[[ServiceActor, bytes], None]) -> Callable[[bytes], object]:
    return lambda payload: handle.tell(method, payload)


def _covered(topic: str) -> bool:
    levels = topic.split("/")
    return len(levels) == 3 and levels[0] == "system" and levels[1] in {"health", "applied"}


async def _exit_of(ref: Ref[Supervisor]) -> Exit:
    return await ref.exited
