"""Starts everything, sees that it answers, and stops it in reverse. Nobody else starts an actor.

Order of the start: health, store, signer, cache, and meanwhile the import of the web stack; then what needs to know the store:
broker, bridge, services, REST. What goes wrong up to there refuses the start with a sentence; from then on a part that fails is
restarted by its supervisor, and the process ends only when the topmost of those gives up.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from actors.board import Board
from actors.bridge import BridgeActor, BridgeState, Desired
from actors.broker import child as broker
from actors.broker.child import BrokerActor, BrokerDied
from actors.broker.config import BrokerConfig, BrokerUser, Role, hash_password
from actors.broker.credentials import Credentials
from actors.cache import CacheActor, CacheContents, CacheEntry
from actors.database import DatabaseActor, HistoryActor, StoreUnavailable
from actors.events import Events, HealthChanged
from actors.files import PUBLIC_FILE, write_atomically
from actors.health import Component, HealthActor, last_will, of_service
from actors.holder import Held
from actors.holding import Holding
from actors.output import Output, Outputs
from actors.runtime import Backoff, ChildSpec, Exit, Handle, Intensity, OutcomeUnknown, Ref, Rejected, Supervisor
from actors.service import Commands, Fleet, OnWire, Profiles, Restorer, ServiceActor, Surroundings, on_wire, waves
from actors.signer import SignerActor
from actors.vault import Vault
from schemas.broker_address import BrokerAddress
from schemas.changes import ChangeAccepted, ConfigChange
from schemas.history import Difference, Point
from schemas.manifest import Change, Condition, Differences, Manifest, Service
from schemas.plans import ChangePlan
from schemas.records import HistoryEntry, HistoryQuery, NewService, StoreState
from schemas.service_schema import ServiceSchema
from schemas.states import DatabaseStatus, Kind, Lifecycle
from schemas.status import ReloadRefused
from schemas.types import Checksum, ServiceName
from supervisor import __version__
from supervisor.boot import Boot, StartRefused
from supervisor.folders import PUBLIC_KEYS, close_passages
from supervisor.keys import public_pem
from supervisor.logging import Log
from supervisor.reload import Plan, by_name, read_plan
from supervisor.summary import Summary

if TYPE_CHECKING:
    from api import Server

logger = logging.getLogger(__name__)

T = TypeVar("T")

SUPERVISOR_USER = "tars-supervisor"
VIEWER = "viewer"

SETTLE_SECONDS = 10.0
"""How long the summary waits for workers that are still loading."""

BROKER_BACKOFF = 5.0
"""Seconds between two attempts to bring the embedded broker back, at most."""

STRAY_GRACE = 10.0
"""Seconds that a worker has to end whose service is gone from the manifest."""

HISTORY_SECONDS = 15.0
"""For an answer out of the history, those before it included."""

REQUEST_GRACE = 5.0
"""Seconds that requests in flight get at the end."""


class System:
    """The whole program between the first lock and the last. `start`, then `stop`, once each, on one loop."""

    def __init__(self, boot: Boot, listener: socket.socket, log: Log, hurry: asyncio.Event, holding: Holding) -> None:
        """`holding` is attached already, and the caller's to close."""
        self._boot = boot
        self._holding = holding
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
        self._history: Handle[HistoryActor] = Handle("history", timeout=HISTORY_SECONDS)
        self._handles: dict[str, Handle[ServiceActor]] = {name: Handle(name) for name in self._services}
        self._events = Events()
        self._outputs = Outputs(folders.data / "logs")
        self._fleet = Fleet(*_starts(boot.manifest))
        self._commands = Commands(self._board, self._fleet, _kinds(boot.manifest), self._handles)
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
            public_keys=folders.runtime / PUBLIC_KEYS,
            public_pem=public_pem(keys.signing_public),
            health=self._health,
            runtime_folder=folders.runtime,
            data_folder=folders.data,
            holding=holding,
            outputs=self._outputs,
            fleet=self._fleet,
            events=self._events,
            # The embedded broker's gate keeps everybody else from writing there.
            believes_reports=self._embedded,
            hurry=hurry,
        )
        self.serving = asyncio.Event()
        """REST answers."""
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[Any]] = set()
        self._routes: dict[str, Callable[[bytes], object]] = {}
        self._subscribed: set[str] = set()
        self._strays: list[asyncio.Task[None]] = []
        self._core: Ref[Supervisor] | None = None
        self._workers: Ref[Supervisor] | None = None
        self._server: Server | None = None
        holding.on_trouble = self._note_workers

    # -- start

    async def start(self) -> None:
        """Start everything and return once REST answers.

        Raises:
            StartRefused: a sentence for a person.
        """
        try:
            # While SQLite opens the store, which is the disk's time. No worker is started before it is there: six Pythons that
            # start would take the processor from this one.
            web = asyncio.get_running_loop().run_in_executor(None, self._make_server)
            self._core = Supervisor.start(self._core_children())
            await self._core.started
            state = await self._load()
            self._server = await web
            # Only now, since the last will that goes with the connection tells the epoch.
            await self._start_messaging(self._core)
            self._health.tell(HealthActor.announce)
            await self._start_services(state)
        except StoreUnavailable as error:
            raise StartRefused(str(error)) from error
        except BrokerDied as error:
            raise StartRefused(f"{error}; {self._broker_advice()}") from error
        except OSError as error:
            raise StartRefused(
                f"{error.filename or f'a file under {self._boot.folders.data}'} cannot be used ({error.strerror}); "
                "make room, or see that this user may write there"
            ) from error
        # A copy: the server closes what it listens on, and the next one here may want to go on with it.
        await self._server.start([self._listener.dup()])
        self.serving.set()
        for handle in self._handles.values():
            handle.tell(ServiceActor.follow)

    @property
    def boot(self) -> Boot:
        """What it goes by now: a reload has made another manifest of it."""
        return self._boot

    # -- another manifest

    def reload_soon(self) -> None:
        """Do so where nobody waits for the answer: what comes of it is told in the log."""
        self._background(self._reload_for_a_signal())

    async def reload(self, *, only_plan: bool = False) -> Differences:
        """Read the manifest anew, and do what it asks for; or only tell it. One after the other. What was begun goes on,
        whether anybody waits for it or not.

        Raises ReloadRefused: it has mistakes, and nothing happened.
        """
        if only_plan:
            return (await read_plan(self._boot)).differences
        return await asyncio.shield(self._background(self._reload()))

    async def _reload_for_a_signal(self) -> None:
        try:
            await self.reload()
        except ReloadRefused as refused:
            logger.error("the manifest is not reloaded:\n%s", "\n".join(refused.lines))  # noqa: TRY400  # a person's mistake
        except Exception:
            logger.exception("the manifest could not be reloaded")

    def _background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return task

    async def _reload(self) -> Differences:
        await self.serving.wait()
        async with self._reloading:
            plan = await read_plan(self._boot)
            for warning in plan.after.warnings:
                logger.warning("%s", warning)
            if plan.differences.nothing:
                logger.info("the manifest was read again: nothing is different")
            else:
                logger.info("the manifest was read again: %s", plan.text())
                await self._take(plan)
            if self._embedded and self._broker.up and (plan.logins or self._boot.settings.mqtt_tls_certificate):
                await self._broker.within(30.0).ask(BrokerActor.configure, self._broker_config())
            await self._begin(plan.having(Change.ADDED, Change.RESTART))
            return plan.differences

    async def _take(self, plan: Plan) -> None:
        """Go by another manifest, with nobody there of those who are new, gone, or to be restarted."""
        gone = plan.having(Change.REMOVED)
        await self._end(gone + plan.having(Change.RESTART))
        self._boot = plan.after
        close_passages(plan.after.folders, plan.after.manifest)
        self._services = by_name(plan.after)
        self._handles = {name: self._handles.get(name) or Handle(name) for name in self._services}
        self._fleet.configure(*_starts(plan.after.manifest))
        self._commands.configure(_kinds(plan.after.manifest), self._handles)
        for name in plan.having(Change.POLICY):
            await self._handles[name].within(30.0).ask(ServiceActor.configure, self._services[name])
        for name in gone:
            self._forget(name)
        self._contents.remove(gone)
        self._cache.tell(CacheActor.changed)
        self._subscribe()

    async def _end(self, names: list[str]) -> None:
        """End workers and actors of these, those first that depend on others."""
        assert self._workers is not None
        workers: Handle[Supervisor] = Handle("services")
        workers.attach(self._workers)
        for wave in reversed(waves(self._fleet.needs, names)):
            longest = max(self._services[name].grace for name in wave) + 10.0
            ends = [self._handles[name].within(longest).ask(ServiceActor.shut_down) for name in wave]
            await asyncio.gather(*ends, return_exceptions=True)
            for name in wave:
                await workers.within(longest).ask(Supervisor.remove, name)
        for name in names:
            await self._outputs.close_one(name)

    async def _begin(self, names: list[str]) -> None:
        """Start the actors of these, which start their workers."""
        if not names:
            return
        assert self._workers is not None
        workers: Handle[Supervisor] = Handle("services")
        workers.attach(self._workers)
        await self._database.within(60.0).ask(DatabaseActor.ensure, self._new_rows(names))
        failed: list[Exception] = []
        for name in names:
            try:
                await workers.within(60.0).ask(Supervisor.add, self._child(name, {}))
            except Exception as error:  # noqa: BLE001  # of the one that it is about; it is raised below
                logger.error("%s cannot be taken up: %s", name, error)  # noqa: TRY400
                failed.append(error)
                # So that the next reload tries it again.
                left = tuple(each for each in self._boot.manifest.services if each.name != name)
                self._boot = replace(self._boot, manifest=self._boot.manifest.model_copy(update={"services": left}))
        # In the manifest's order.
        for kept in (self._board.services, self._board.statuses):
            _sort(kept, list(self._services))
        if failed:
            raise failed[0]

    def _forget(self, name: str) -> None:
        """Take what is shown of a service that left the manifest away; its row stays in the store."""
        for kept in (self._board.services, self._board.statuses, self._fleet.present):
            kept.pop(name, None)
        self._board.components.pop(of_service(name), None)
        for topic in (f"system/config/{name}", f"system/state/{name}", f"system/applied/{name}"):
            self._bridge.tell(BridgeActor.retain, topic, b"")

    def _core_children(self) -> list[ChildSpec]:
        settings, keys = self._boot.settings, self._boot.keys
        keys_file, pem = self._surroundings.public_keys, self._surroundings.public_pem.encode("ascii")
        # Workers that run may read it at any moment.
        if not keys_file.exists() or keys_file.read_bytes() != pem or keys_file.stat().st_mode & 0o777 != PUBLIC_FILE:
            write_atomically(keys_file, pem, PUBLIC_FILE)
        self._subscribe()
        return [
            # First, so that it hears the others' first words.
            ChildSpec(self._health, lambda: HealthActor.start(self._board, self._publish_health)),
            ChildSpec(
                self._database,
                lambda: DatabaseActor.start(settings.db_path, on_status=self._note_database),
                stop_timeout=15.0,
            ),
            ChildSpec(
                self._history,
                lambda: HistoryActor.start(settings.db_path, self._schema_of),
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
        process = ChildSpec(
            self._broker,
            lambda: BrokerActor.start(
                self._broker_config(),
                folder=folders.runtime / "broker",
                holding=self._holding,
                outputs=self._outputs,
                on_address=self._note_broker,
                on_down=self._note_broker_down,
            ),
            stop_timeout=10.0,
        )
        patient = Intensity(restarts=sys.maxsize)
        return ChildSpec(
            Handle("broker supervisor"),
            lambda: Supervisor.start([process], intensity=patient, backoff=Backoff(maximum=BROKER_BACKOFF)),
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
        new = self._new_rows(schemas)
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

    def _new_rows(self, names: Iterable[str]) -> list[NewService]:
        empty = {name: on_wire(self._boot.schemas[name], {}) for name in names}
        return [NewService(ServiceName(name), Checksum(wire.checksum)) for name, wire in empty.items()]

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
        children = [self._child(name, loaded) for name in self._services]
        self._workers = Supervisor.start(children)
        await self._workers.started
        known = {broker.NAME, *(name for name, service in self._services.items() if service.kind is Kind.PROCESS)}
        self._strays = [
            asyncio.get_running_loop().create_task(self._end_stray(held)) for held in self._holding.others(known)
        ]

    def _child(self, name: str, loaded: dict[str, Any]) -> ChildSpec:
        """`loaded`: see `ServiceActor`, by service; of those that are not in it, the actor reads it itself."""

        def start() -> Ref[ServiceActor]:
            # As the manifest has it at that time.
            return ServiceActor.start(
                self._services[name], self._boot.schemas[name], self._surroundings, loaded.pop(name, None)
            )

        return ChildSpec(self._handles[name], start, stop_timeout=self._services[name].grace + 5.0)

    async def _end_stray(self, held: Held) -> None:
        """End a worker of an earlier supervisor that is no service any more."""
        logger.warning("%s is not in the manifest any more: its process %d is ended", held.service, held.pid)
        await held.stop(STRAY_GRACE)
        held.forget()

    async def settled(self) -> None:
        """Return when every worker is ready, stopped or in trouble, or after `SETTLE_SECONDS`."""
        under_way = {Lifecycle.WAITING, Lifecycle.STARTING, Lifecycle.STOPPING}
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            # Before its first start a worker is "stopped", though it is wanted.
            open_ = [
                status
                for status in self._board.statuses.values()
                if status.state in under_way or (status.wanted and status.state is Lifecycle.STOPPED)
            ]
            if len(self._board.statuses) == len(self._services) and not open_:
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
            states=tuple(self._board.statuses.values()),
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

    async def let_go(self) -> None:
        """Stop as `stop` does, but leave the processes to another supervisor: only the holder has them then."""
        self._holding.leaving = True
        await self.stop()

    async def stop(self) -> None:
        """Stop in reverse: requests in flight finish, workers end together, state is published, the store closes last."""
        leaving = self._holding.leaving
        for task in tuple(self._reloads):
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        # Streams would go on for ever.
        self._events.close()
        if self._server is not None:
            await self._server.stop(REQUEST_GRACE)
        if self._workers is not None and self._workers.is_alive():
            # Who depends on others ends before them.
            for wave in [] if leaving else reversed(waves(self._fleet.needs)):
                ends = [
                    handle.within(self._services[name].grace + 5.0).ask(ServiceActor.shut_down)
                    for name in wave
                    if (handle := self._handles[name]).up
                ]
                await asyncio.gather(*ends, return_exceptions=True)
            await self._workers.stop(block=False)
        if self._core is not None and self._core.is_alive():
            if not leaving:
                with contextlib.suppress(Rejected, OutcomeUnknown):
                    await self._health.within(1.0).ask(HealthActor.farewell)
            await self._core.stop(block=False)
            await self._core.exited.wait()
        for stray in self._strays if leaving else ():
            stray.cancel()
        await asyncio.gather(*self._strays, return_exceptions=leaving)
        await self._outputs.close()

    # -- the broker

    def _broker_advice(self) -> str:
        if self._boot.settings.mqtt_listeners:
            return "mend MQTT_LISTENERS, MQTT_TLS_CERTIFICATE or MQTT_TLS_KEY, or choose another port in MQTT_URL"
        return (
            "stop what uses that port, choose another with MQTT_URL=embedded://127.0.0.1:<port>, "
            "or name a broker of your own with MQTT_URL=mqtt://host"
        )

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
        settings = self._boot.settings
        return BrokerConfig(
            host=self._broker_at.host,
            port=self._broker_at.port,
            listeners=settings.mqtt_listeners,
            certificate=settings.mqtt_tls_certificate,
            private_key=settings.mqtt_tls_key,
            users=tuple(users),
            anonymous_read=settings.mqtt_anonymous_read,
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
        """Pass reports on to whose they are; called again when the manifest has changed."""
        self._routes = routes = {}
        for name, service in self._services.items():
            handle = self._handles[name]
            routes[service.health_topic] = _telling(handle, ServiceActor.health)
            routes[f"system/applied/{name}"] = _telling(handle, ServiceActor.applied)

        apart = {topic for topic in routes if not _covered(topic)}
        for topic_filter in ("system/health/+", "system/applied/+", *sorted(apart)):
            if topic_filter in self._subscribed:
                continue
            self._subscribed.add(topic_filter)
            if not self._bridge.tell(BridgeActor.subscribe, topic_filter, self._received):
                self._desired.subscribe(topic_filter, self._received)

    def _received(self, topic: str, payload: bytes) -> None:
        route = self._routes.get(topic)
        if route is not None:
            route(payload)

    def tell_upgrade(self, trouble: str) -> None:
        """Show how the last upgrade failed; that this version serves on is no illness."""
        self._health.tell(HealthActor.report, "upgrade", True, trouble)

    # -- what parts tell; each runs on the loop and only passes on

    def _schema_of(self, name: str) -> ServiceSchema | None:
        # A reload brings others. The history's thread calls this.
        return self._boot.schemas.get(name)

    def _note_database(self, status: str, reason: str | None) -> None:
        self._health.tell(HealthActor.database, DatabaseStatus(status), reason or "")

    def _note_cache(self, valid: bool, detail: str) -> None:
        self._health.tell(HealthActor.lkg, valid, detail)

    def _note_workers(self, trouble: str) -> None:
        self._health.tell(HealthActor.report, Component.WORKERS, not trouble, trouble)

    def _note_bridge(self, state: BridgeState) -> None:
        reason = "" if state.connected or state.failure is None else state.failure.reason
        self._health.tell(HealthActor.report, Component.BRIDGE, state.connected, reason, state.broker)

    def _note_published(self, token: Any) -> None:
        if token is not None:
            service, epoch, version = token
            handle = self._handles.get(service)
            if handle is not None:
                handle.tell(ServiceActor.published, epoch, version)

    def _publish_health(self, topic: str, payload: bytes) -> None:
        self._events.publish(HealthChanged(self._board.health))
        self._bridge.tell(BridgeActor.retain, topic, payload)

    # -- the API

    def _make_server(self) -> "Server":
        """Import the web stack, and make the server with it. Runs in a thread of its own, and touches no actor."""
        from supervisor._web import make_server  # noqa: PLC0415 - see `start`

        return make_server(
            self._boot,
            self._log,
            board=self._board,
            change=self._change,
            plan=self._plan,
            command=self._commands,
            reload=self.reload,
            history=_LookingBack(self._history),
            restore=Restorer(lambda: self._handles, self._database, self._history, self._schema_of).restore,
            # A reload makes another dictionary of handles.
            profiles=Profiles(lambda: self._handles, self._database, self._schema_of),
            output=self._output,
            events=self._events,
            broker_pid=self._broker_pid if self._embedded else None,
        )

    def _output(self, service: str) -> Output | None:
        return self._outputs.get(service) if service in self._services else None

    def _broker_pid(self) -> int | None:
        held = self._holding.claim(broker.NAME)
        return held.pid if held is not None and held.running else None

    async def _change(self, change: ConfigChange) -> ChangeAccepted:
        return await self._handles[change.service].ask(ServiceActor.change, change)

    async def _plan(self, change: ConfigChange) -> ChangePlan:
        return await self._handles[change.service].ask(ServiceActor.plan, change)


class _LookingBack:
    """What REST asks of the history."""

    def __init__(self, history: Handle[HistoryActor]) -> None:
        self._history = history

    async def page(self, query: HistoryQuery) -> tuple[HistoryEntry, ...]:
        return await self._history.ask(HistoryActor.page, query)

    async def difference(self, service: ServiceName | None, old: Point, new: Point) -> Difference:
        return await self._history.ask(HistoryActor.difference, service, old, new)


def _starts(manifest: Manifest) -> tuple[dict[str, dict[str, Condition]], int]:
    """Who starts after whom, and how many at a time."""
    needs = {
        str(service.name): {str(name): condition for name, condition in service.start_after.items()}
        for service in manifest.services
    }
    return needs, manifest.concurrent_starts or len(os.sched_getaffinity(0))


def _kinds(manifest: Manifest) -> dict[str, Kind]:
    return {str(service.name): service.kind for service in manifest.services}


def _sort(entries: dict[str, Any], names: list[str]) -> None:
    """Put entries into the order of these names, in place; an answer under way may hold the dictionary."""
    found = {name: entries[name] for name in names if name in entries}
    entries.clear()
    entries.update(found)


def _telling(handle: Handle[ServiceActor], method: Callable[[ServiceActor, bytes], None]) -> Callable[[bytes], object]:
    return lambda payload: handle.tell(method, payload)


def _covered(topic: str) -> bool:
    levels = topic.split("/")
    return len(levels) == 3 and levels[0] == "system" and levels[1] in {"health", "applied"}


async def _exit_of(ref: Ref[Supervisor]) -> Exit:
    return await ref.exited
