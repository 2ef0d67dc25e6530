"""One managed service: its settings, and the worker that runs with them."""

import asyncio
import logging
import uuid
from collections.abc import Mapping

from actors.bridge import BridgeActor
from actors.cache import CacheActor, CacheEntry
from actors.database import DatabaseActor, StoreUnavailable, UnknownService, VersionMismatch
from actors.process import INSTANCE_VARIABLE, Command, Ended, SpawnFailed, new_instance, record_instance
from actors.runtime import Actor, OutcomeUnknown, Rejected
from actors.service._decision import Decision, InForce, OnWire, decide, on_wire
from actors.service._environment import worker_environment
from actors.service._files import WorkerFolders
from actors.service._surroundings import Surroundings
from actors.service._view import make_view
from actors.service._worker import Worker
from actors.signer import SignerActor, Unsigned
from actors.vault import Unsealable
from schemas.changes import ChangeAccepted, ConfigChange, ReadOnly, StaleVersion
from schemas.manifest import Service
from schemas.messages import AppliedReport, ReportInvalid, StateMessage, VersionMark, read_applied, read_health
from schemas.records import Change, CommitRequest, Committed, SealedSecret, SecretChange, StoredService
from schemas.service_schema import ServiceSchema
from schemas.states import Kind, Lifecycle
from schemas.types import ServiceName, Version

logger = logging.getLogger(__name__)
output = logging.getLogger("worker")

SHORTEST_MASKED = 4
"""Characters from which on a secret's value is struck out of a worker's output; shorter ones would hit everything."""


class ServiceActor(Actor):
    """Owns one service's settings and its worker. Its mailbox orders the service's changes.

    A change is answered as soon as it is on disk. What follows from it (cache, credential files, snapshot, broker, restart)
    is a message of its own, `follow`, and derived from the row in the store: a crash in between loses nothing, because a
    start does the same for every service. The version check inside the store's transaction is the only lock; what is held
    here is a copy for reading, refreshed whenever the store says otherwise or an outcome is unknown.
    """

    def __init__(
        self,
        service: Service,
        schema: ServiceSchema,
        surroundings: Surroundings,
        loaded: tuple[StoredService, Mapping[str, SealedSecret]] | None = None,
    ) -> None:
        """`loaded`: the row and the secrets, where the caller has just read them; else they are read at the start."""
        super().__init__()
        self._service = service
        self._name = ServiceName(service.name)
        self._schema = schema
        self._with = surroundings
        self._loaded = loaded
        self._overrides = schema.from_environment(surroundings.environment)
        self._overridden = schema.overridden(surroundings.environment)
        self._folders = WorkerFolders(
            runtime=surroundings.runtime_folder / "services" / self._name,
            state=surroundings.data_folder / "state" / self._name,
        )
        self._applied_topic = f"system/applied/{self._name}"
        self._config_topic = f"system/config/{self._name}"
        self._state_topic = f"system/state/{self._name}"
        # Set from the store before the first message; see `_hold`.
        self._row: StoredService
        self._secrets: dict[str, SealedSecret]
        self._wire: OnWire
        self._now: InForce
        self._revision = 0
        self._doubtful = False
        self._followed: tuple[str, int] | None = None
        self._published: VersionMark | None = None
        self._reported: VersionMark | None = None
        # Reports are not believed between a worker's end and the moment our clearing of its topic came back.
        self._deaf: set[str] = set()
        self._masked: tuple[bytes, ...] = ()
        self._worker = Worker(on_change=self._tell_state)
        self._gone = asyncio.Event()
        self._gone.set()

    # -- life

    async def on_start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._folders.create)
        if self._loaded is not None:
            row, secrets = self._loaded
            self._loaded = None
        else:
            row, secrets = await self._read_row()
        self._hold(row, secrets)
        await self._migrate()
        if self._service.kind is Kind.PROCESS:
            self._clear_reports()
        self.defer(self.follow, "started with the supervisor")
        self._tell_state()

    async def on_stop(self) -> None:
        await self.shut_down()

    async def on_failure(self, *_reason: object) -> None:
        # Nobody would take its end, and the next incarnation starts its own.
        self._worker.kill()
        await self._gone.wait()

    # -- asked by the API

    async def change(self, change: ConfigChange) -> ChangeAccepted:
        """Change settings. When this returns the change is on disk.

        Raises:
            StaleVersion: the version or epoch the caller has seen is not the current one.
            ConfigInvalid, OverriddenByEnvironment: see `decide`.
            ReadOnly: the store cannot be written. `OutcomeUnknown`: it may have been; reading tells.
        """
        if self._doubtful:
            await self._refresh()
        row = self._row
        self._check_expected(change, row)
        decision = decide(self._schema, self._now, change)
        if not decision.changes_anything:
            return ChangeAccepted(row.version, row.config_epoch, None, (), (), "Nothing was different.")
        sealed = {
            key: None if value is None else self._with.vault.seal(self._name, key, value)
            for key, value in decision.secrets.items()
        }
        committed = await self._commit(change, decision, sealed, change.expected_version or row.version)
        self._take_over(change, decision, sealed, committed)
        self.defer(self.follow, "a setting that needs a restart was changed" if decision.restart else "")
        return ChangeAccepted(
            self._row.version,
            self._row.config_epoch,
            committed.revision,
            decision.live,
            decision.restart,
            self._sentence(decision),
        )

    # -- told

    async def follow(self, restart_because: str = "") -> None:
        """Bring everything that is derived from the row in step with it, the worker last."""
        row, wire = self._row, self._wire
        mark = (row.config_epoch, row.version)
        if self._followed != mark:
            self._followed = mark
            self._with.cache.tell(
                CacheActor.update,
                self._revision,
                CacheEntry(self._name, wire.canonical, wire.checksum, row.version),
            )
            await self._write_files()
            # After the files: a worker that hears of a version finds its secrets there.
            self._with.bridge.tell(BridgeActor.retain, self._config_topic, self._unsigned(), (self._name, *mark))
            self._tell_state()
        if restart_because and self._service.kind is Kind.PROCESS:
            self.restart(restart_because)

    def restart(self, reason: str) -> None:
        """Have the worker run anew; start it where it does not run."""
        self._worker.wanted = True
        if self._worker.running:
            self._worker.terminate(self._service.stop_grace_s, reason)
        else:
            # Also while it backs off: the change may be the cure. The timer then finds it running.
            self.defer(self.start_worker, reason)

    async def start_worker(self, reason: str) -> None:
        """Spawn the worker, if it is wanted and does not run."""
        if self._worker.running or not self._worker.wanted:
            return
        instance = new_instance()
        command = self._command(instance)
        await self._write_files()
        try:
            # The record is there before the process, so that a crash between the two leaves nothing unknown.
            record_instance(self._with.instances, self._name, instance)
            self._gone.clear()
            self._worker.start(command, instance, on_line=self._line, on_end=self._end, reason=reason)
        except (SpawnFailed, OSError) as error:
            self._gone.set()
            if isinstance(error, OSError):
                raise
            logger.error("%s: %s", self._name, error)  # noqa: TRY400  # a person's mistake has no traceback
            self.later(self._worker.delay(), self.start_worker, "tried again")

    def ended(self, ended: Ended) -> None:
        """Take the worker's end."""
        delay = self._worker.ended(ended)
        self._reported = None
        self._clear_reports()
        if delay is None:
            return
        if self._worker.state is Lifecycle.BACKING_OFF:
            logger.warning("%s: the worker %s; it is started again in %.1f s", self._name, ended, delay)
        if delay:
            self.later(delay, self.start_worker, f"started again after it {ended}")
        else:
            self.defer(self.start_worker, self._worker.reason)

    def health(self, payload: bytes) -> None:
        """Take what came on the worker's health topic."""
        if not payload:
            self._deaf.discard(self._service.health_topic)
            return
        if self._service.health_topic in self._deaf:
            return
        try:
            health = read_health(payload)
        except ReportInvalid as error:
            logger.warning("%s: what the worker reports on %s is %s", self._name, self._service.health_topic, error)
            return
        said = health.err or health.event or ("healthy" if health.ok else "unhealthy")
        self._worker.healthy(health.ok, said)

    def applied(self, payload: bytes) -> None:
        """Take what came on the service's applied topic."""
        if not payload:
            self._deaf.discard(self._applied_topic)
            return
        if self._applied_topic in self._deaf:
            return
        try:
            report = read_applied(payload)
        except ReportInvalid as error:
            logger.warning("%s: what the worker reports on %s is %s", self._name, self._applied_topic, error)
            return
        if self._service.kind is Kind.PROCESS and report.instance not in {None, self._worker.instance}:
            return
        self._take_report(report)

    def published(self, config_epoch: str, version: int) -> None:
        """Take the broker's acknowledgement of a version."""
        mark = VersionMark(config_epoch=config_epoch, version=version)
        if mark == self._published:
            return
        self._published = mark
        if config_epoch == self._row.config_epoch and (self._row.published_version or 0) < version:
            self._with.database.tell(DatabaseActor.acknowledge, ((self._name, Version(version)),))
        self._tell_state()

    async def shut_down(self) -> None:
        """End the worker and wait until it is gone; it is killed after its grace, or when the owner hurries."""
        self._worker.wanted = False
        if not self._worker.running:
            return
        self._worker.terminate(self._service.stop_grace_s, "the supervisor stops")
        hurried = asyncio.ensure_future(self._with.hurry.wait())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({hurried, gone}, return_when=asyncio.FIRST_COMPLETED)
            self._worker.kill()
            await gone
        finally:
            hurried.cancel()
            gone.cancel()

    # -- the store

    def _check_expected(self, change: ConfigChange, row: StoredService) -> None:
        epoch_differs = change.expected_epoch is not None and change.expected_epoch != row.config_epoch
        version_differs = change.expected_version is not None and change.expected_version != row.version
        if epoch_differs or version_differs:
            raise StaleVersion(change.expected_version or row.version, row.version, row.config_epoch, row.request_id)

    async def _commit(
        self,
        change: ConfigChange,
        decision: Decision,
        sealed: Mapping[str, SealedSecret | None],
        expected_version: int,
    ) -> Committed:
        request = CommitRequest(
            changes=(
                Change(
                    service=self._name,
                    config=decision.stored,
                    expected_version=Version(expected_version),
                    expected_epoch=self._row.config_epoch,
                    checksum=decision.wire.checksum,  # type: ignore[arg-type]  # computed, so well-formed
                    history=decision.history,
                    items=decision.items,
                    secrets=tuple(SecretChange(key, value) for key, value in sealed.items()),
                ),
            ),
            changed_by=change.changed_by,
            origin=change.origin,
            request_id=change.request_id,
            reason=change.reason,
            address=change.address,
        )
        try:
            return await self._with.database.ask(DatabaseActor.commit, request)
        except VersionMismatch as error:
            await self._refresh()
            self.defer(self.follow)
            raise StaleVersion(error.expected, error.current, error.config_epoch, error.request_id) from None
        except StoreUnavailable as error:
            raise ReadOnly(error.reason) from None
        except Rejected as error:
            raise ReadOnly(f"The store is not available: {error}") from None
        except OutcomeUnknown:
            self._doubtful = True
            raise

    async def _read_row(self) -> tuple[StoredService, Mapping[str, SealedSecret]]:
        state = await self._with.database.ask(DatabaseActor.load)
        self._revision = state.revision
        row = state.services.get(self._name)
        if row is None:
            raise UnknownService(self._name)
        return row, state.secrets.get(self._name, {})

    async def _refresh(self) -> None:
        try:
            row, secrets = await self._read_row()
        except (StoreUnavailable, Rejected) as error:
            raise ReadOnly(f"The store is not available: {error}") from None
        self._doubtful = False
        self._hold(row, secrets)

    async def _migrate(self) -> None:
        """Make a new version where the same row means another configuration: a release has changed a default."""
        if self._row.checksum == self._wire.checksum:
            return
        change = ConfigChange(
            service=self._name,
            config={},
            merge=True,
            expected_version=self._row.version,
            expected_epoch=self._row.config_epoch,
            changed_by="supervisor",
            origin="migration",
            request_id=uuid.uuid4().hex,
            reason="a default was changed by a new release",
        )
        decision = Decision(self._row.config, self._wire, (), (), {}, (), ())
        committed = await self._commit(change, decision, {}, self._row.version)
        self._take_over(change, decision, {}, committed)

    def _take_over(
        self,
        change: ConfigChange,
        decision: Decision,
        sealed: Mapping[str, SealedSecret | None],
        committed: Committed,
    ) -> None:
        secrets = {**self._secrets, **sealed}
        row = StoredService(
            service=self._name,
            config=decision.stored,
            version=committed.versions[self._name],
            config_epoch=committed.config_epoch,
            checksum=decision.wire.checksum,  # type: ignore[arg-type]  # computed, so well-formed
            updated_at=committed.committed_at,
            updated_by=change.changed_by,
            published_version=self._row.published_version,
            request_id=change.request_id,
        )
        self._revision = committed.revision
        self._hold(row, {key: value for key, value in secrets.items() if value is not None})

    def _hold(self, row: StoredService, secrets: Mapping[str, SealedSecret]) -> None:
        """Take this as the present, and show it to readers."""
        self._row = row
        self._secrets = dict(secrets)
        self._now = InForce(
            stored=row.config,
            overrides=self._overrides,
            overridden=self._overridden,
            secrets=frozenset(secrets),
            reveal=self._reveal,
        )
        self._wire = on_wire(self._schema, row.config)
        self._with.board.services[self._name] = make_view(self._schema, self._now, row, dict(self._with.environment))

    def _reveal(self, key: str) -> str:
        return self._with.vault.open(self._name, key, self._secrets[key])

    # -- what follows

    def _unsigned(self) -> Unsigned:
        return Unsigned(
            service=self._name,
            config_canonical=self._wire.canonical,
            checksum=self._wire.checksum,
            version=self._row.version,
            config_epoch=self._row.config_epoch,
        )

    async def _write_files(self) -> None:
        """Write credentials, then the snapshot: whoever sees the version finds its secrets."""
        if self._service.kind is not Kind.PROCESS:
            return
        values: dict[str, str] = {}
        for key in self._secrets:
            try:
                values[key] = self._reveal(key)
            except Unsealable as error:
                logger.error("%s", error)  # noqa: TRY400  # told as it is; the worker runs without it
        self._masked = tuple(value.encode() for value in values.values() if len(value) >= SHORTEST_MASKED)
        snapshot = await self._with.signer.ask(SignerActor.sign, self._unsigned())

        def write() -> None:
            self._folders.write_credentials(values)
            self._folders.write_snapshot(snapshot)

        await asyncio.get_running_loop().run_in_executor(None, write)

    def _command(self, instance: str) -> Command:
        schema, around = self._schema, self._with
        environment = worker_environment(
            around.environment,
            settings=[schema.fields[key].variable for key in schema.keys],
            passed=self._service.pass_environment,
            declared=self._service.environment,
            given={
                "TARS_SERVICE": self._name,
                INSTANCE_VARIABLE: instance,
                "TARS_CONFIG_SNAPSHOT": str(self._folders.snapshot),
                "TARS_CONFIG_PUBLIC_KEYS": str(around.public_keys),
                "TARS_STATE_DIRECTORY": str(self._folders.state),
                "CREDENTIALS_DIRECTORY": str(self._folders.credentials),
                "MQTT_URL": around.mqtt_url(self._name),
            },
        )
        return Command(self._service.command, self._service.cwd, environment)

    def _take_report(self, report: AppliedReport) -> None:
        if report.ok and report.config_epoch is not None and report.version is not None:
            mark = VersionMark(config_epoch=report.config_epoch, version=report.version)
            if mark != self._reported:
                self._reported = mark
                self._tell_state()
        elif not report.ok:
            logger.warning("%s: the worker could not apply version %s: %s", self._name, report.version, report.error)

    def _clear_reports(self) -> None:
        for topic in (self._service.health_topic, self._applied_topic):
            self._deaf.add(topic)
            self._with.bridge.tell(BridgeActor.retain, topic, b"")

    def _tell_state(self) -> None:
        worker, kind = self._worker, self._service.kind
        state = {Kind.EXTERNAL: Lifecycle.EXTERNAL, Kind.CONFIG_ONLY: Lifecycle.CONFIG_ONLY}.get(kind, worker.state)
        message = StateMessage(
            service=self._name,
            kind=kind,
            state=state,
            since=worker.since,
            reason=worker.reason if kind is Kind.PROCESS else "",
            instance=worker.instance,
            pid=worker.pid,
            restarts=worker.restarts,
            desired=VersionMark(config_epoch=self._row.config_epoch, version=self._row.version),
            published=self._published,
            reported=self._reported,
        )
        self._with.board.states[self._name] = message
        self._with.bridge.tell(BridgeActor.retain, self._state_topic, message.model_dump_json().encode())

    def _line(self, line: bytes) -> None:
        for value in self._masked:
            line = line.replace(value, b"********")
        output.info("%s", line.decode("utf-8", "replace"), extra={"service": self._name, "pid": self._worker.pid})

    def _end(self, ended: Ended) -> None:
        # At the end of the mailbox as any other message; `shut_down` waits for the event, not for its turn.
        self._gone.set()
        if not self.defer(self.ended, ended):
            self._worker.ended(ended)

    def _sentence(self, decision: Decision) -> str:
        if self._service.kind is not Kind.PROCESS:
            return "Saved."
        if decision.restart:
            return f"Saved. The worker restarts for: {', '.join(decision.restart)}."
        if decision.live:
            return f"Saved. Applied while running: {', '.join(decision.live)}."
        return "Saved. What the worker runs with is the same."
