"""One managed service: its settings, and the worker that runs with them."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from actors.bridge import BridgeActor
from actors.cache import CacheActor, CacheEntry
from actors.database import DatabaseActor
from actors.health import HealthActor, of_service
from actors.process import Ended, SpawnFailed
from actors.runtime import Actor, MailboxFull, OutcomeUnknown, Rejected
from actors.service._decision import Decision
from actors.service._files import Mark, OlderSnapshot, WorkerFiles
from actors.service._log import ServiceLog, in_seconds
from actors.service._runner import Runner
from actors.service._settings import Settings
from actors.service._surroundings import Surroundings
from actors.service._worker import Worker
from actors.signer import SignerActor, Unsigned
from schemas.changes import ChangeAccepted, ConfigChange, ReadOnly
from schemas.manifest import Service
from schemas.messages import ReportInvalid, StateMessage, VersionMark, read_applied, read_health
from schemas.records import SealedSecret, StoredService
from schemas.service_schema import ServiceSchema
from schemas.states import RUNNING_STATES, Kind, Lifecycle
from schemas.types import JSON, ServiceName, Version

logger = logging.getLogger(__name__)

TRY_AGAIN = 1.0
"""Seconds until something is tried again that another part was not ready for."""

SILENT_AFTER = 5.0
"""Seconds after which a worker that has not said anything of itself is said to run without a word."""

VERSIONS_PAUSE = 0.05
"""Seconds for which a state in which only versions have moved waits for more of that: each is published two or three times."""

CLEAR_AGAIN = 5.0
LONGEST_CLEAR_AGAIN = 300.0
"""Seconds until a topic is cleared again whose clearing has not come back: doubling from the first to the longest."""


class ServiceActor(Actor):
    """Owns one service's settings and its worker. Its mailbox orders the service's changes.

    A change is answered as soon as it is on disk. What follows from it (cache, credential files, broker, restart) is done
    by `follow`, which compares what is with what was done and so may come twice, late, or after a crash: a start does the
    same. Nothing that another part refuses or a file system lacks ends this actor, since its end is the worker's.
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
        self._with = surroundings
        self._log = ServiceLog(logger, service.name)
        self._loaded = loaded
        self._settings = Settings(
            self._name,
            schema,
            surroundings.environment_of(service),
            database=surroundings.database,
            vault=surroundings.vault,
            board=surroundings.board,
            log=self._log,
        )
        self._files = WorkerFiles(
            runtime=surroundings.runtime_folder / "services" / self._name,
            state=surroundings.data_folder / "state" / self._name,
        )
        self._has_worker = service.kind is Kind.PROCESS
        self._worker = Worker(on_change=self._tell_state)
        self._runner = Runner(service, schema, surroundings, self._files, on_end=self._ended, log=self._log)
        self._applied_topic = f"system/applied/{self._name}"
        self._followed: Mark | None = None
        self._given: dict[str, str] | None = None
        self._started_with: dict[str, JSON] = {}
        self._published: VersionMark | None = None
        self._reported: VersionMark | None = None
        # Reports are not believed between a worker's end and the moment our clearing of its topic came back.
        self._deaf: set[str] = set()
        self._clear_after = CLEAR_AGAIN
        self._complaint: object = None
        self._life_told: object = None
        self._state_due = False
        self._unopened: tuple[str, ...] = ()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # -- life

    async def on_start(self) -> None:
        if self._has_worker:
            await self._files.create()
        await self._settings.load(self._loaded)
        self._loaded = None
        if self._has_worker:
            self._worker.wanted = True
            self._clear_reports()
        self._soon(self.follow)
        self._tell_state()

    async def on_stop(self) -> None:
        await self.shut_down()

    async def on_failure(self, *_reason: object) -> None:
        # Nobody would take its end, and the next incarnation starts its own.
        if self._worker.running:
            self._log.warning("killed, to be started anew by its actor, which has failed")
        self._runner.kill()
        await self._runner.gone()

    # -- asked

    async def change(self, change: ConfigChange) -> ChangeAccepted:
        """Change settings. When this returns the change is on disk. Raises what `Settings.change` raises."""
        try:
            decision, committed = await self._settings.change(change)
        finally:
            # Also after a refusal: it may have shown that somebody else has changed the row.
            if self._settings.doubtful or self._settings.mark != self._followed:
                # By way of the loop, so that the answer goes out before what follows from it takes its time.
                self.later(0.0, self.follow)
        row = self._settings.row
        if committed is None:
            return ChangeAccepted(row.version, row.config_epoch, None, (), (), "Nothing was different.")
        return ChangeAccepted(
            row.version,
            row.config_epoch,
            committed.revision,
            decision.live,
            decision.restart,
            self._sentence(decision),
        )

    async def shut_down(self) -> None:
        """End the worker and wait until it is gone; it is killed after its grace, or when the owner hurries."""
        if not self._has_worker:
            return
        self._worker.given_up("the supervisor stops")
        self._terminate("the supervisor stops", "asked to end: the supervisor stops")
        gone = asyncio.ensure_future(self._runner.gone())
        hurried = asyncio.ensure_future(self._with.hurry.wait())
        try:
            await asyncio.wait({hurried, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                self._log.warning("killed: the supervisor was asked a second time to stop")
            self._runner.kill()
            await gone
        finally:
            hurried.cancel()
            gone.cancel()

    # -- told

    async def follow(self) -> None:
        """Bring everything that is derived from the row in step with it, the worker last."""
        if self._settings.doubtful:
            try:
                await self._settings.refresh()
            except ReadOnly:
                self._once(TRY_AGAIN, self.follow)
                return
        mark = self._settings.mark
        if mark == self._followed:
            return
        row, wire = self._settings.row, self._settings.wire
        entry = CacheEntry(self._name, wire.canonical, wire.checksum, row.version)
        self._with.contents.update(row.config_epoch, self._settings.revision, entry)
        # Where it is down: it looks at the contents when it starts.
        self._with.cache.tell(CacheActor.changed)
        secrets: dict[str, str] = {}
        if self._has_worker:
            try:
                secrets = await self._give_secrets(anew=False)
            except OSError as error:
                self._complain(f"version {row.version} is not published, since its secrets cannot be written: {error}")
                self._once(TRY_AGAIN, self.follow)
                return
        else:
            self._settings.secrets()
            self._tell_unopened()
        # After the secrets: a worker that hears of a version finds them there.
        first, self._followed = self._followed is None, mark
        self._publish()
        self._tell_state()
        if self._has_worker:
            await self._keep_in_step(secrets, "started with the supervisor" if first else "a setting was changed")

    def tell_again(self) -> None:
        """Tell the bridge everything that it may have missed, as after a restart of it."""
        if self._followed == self._settings.mark:
            self._publish()
        for topic in self._deaf:
            self._retain(topic, b"")
        self.publish_state()

    async def start_worker(self, reason: str) -> None:
        """Spawn the worker, if it is wanted and does not run."""
        if self._worker.running or not self._worker.wanted:
            return
        try:
            await self._files.create(self._with.restore_folders)
            secrets = await self._give_secrets()
            await self._write_snapshot()
            instance = self._runner.start(secrets.values())
        except (SpawnFailed, OSError, Rejected, OutcomeUnknown, ValueError) as error:
            delay = self._worker.not_spawned(f"it cannot be started: {_why(error)}")
            self._log.error(  # no traceback for a person's mistake
                "cannot be started: %s; tried again %s", _why(error), in_seconds(delay)
            )
            self._once(delay, self.start_worker, "tried again")
            return
        self._started_with = self._settings.known_at_start_only(secrets)
        self._worker.spawned(instance, reason)
        self._log.info("started, pid %d (%s)", instance.pid, reason)
        self._once(SILENT_AFTER, self.silent, instance.name)

    def silent(self, instance: str) -> None:
        """Take that this instance has had its time to say something."""
        if self._worker.instance is not None and self._worker.instance.name == instance:
            self._worker.silent(f"running; it has not said on {self._service.health_topic} that it is ready")

    def health(self, payload: bytes) -> None:
        """Take what came on the worker's health topic."""
        if not self._hears(self._service.health_topic, payload):
            return
        try:
            health = read_health(payload)
        except ReportInvalid as error:
            self._complain(f"what the worker reports on {self._service.health_topic} is {error}")
            return
        said = self._runner.masked(health.err or health.event or ("healthy" if health.ok else "unhealthy"))
        before = self._worker.state
        self._worker.healthy(health.ok, said)
        if self._worker.state is before:
            return
        if not health.ok:
            self._log.warning("unhealthy: %s", said)
        else:
            self._log.info("ready" if before is Lifecycle.STARTING else "healthy again")

    def applied(self, payload: bytes) -> None:
        """Take what came on the service's applied topic."""
        if not self._hears(self._applied_topic, payload):
            return
        try:
            report = read_applied(payload)
        except ReportInvalid as error:
            self._complain(f"what the worker reports on {self._applied_topic} is {error}")
            return
        instance = self._worker.instance
        ours = not self._has_worker or report.instance is None or (instance and instance.name == report.instance)
        if not ours or report.service != self._name:
            return
        if not report.ok:
            error_text = self._runner.masked(report.error or "it does not say why")
            self._complain(f"the worker could not apply version {report.version}: {error_text}")
        elif report.config_epoch is not None and report.version is not None:
            self._reported, before = (
                VersionMark(config_epoch=report.config_epoch, version=report.version),
                self._reported,
            )
            if self._reported != before:
                self._tell_state()

    def published(self, config_epoch: str, version: int) -> None:
        """Take the broker's acknowledgement of a version."""
        mark = VersionMark(config_epoch=config_epoch, version=version)
        if mark == self._published:
            return
        self._published = mark
        row = self._settings.row
        if config_epoch == row.config_epoch and (row.published_version or 0) < version:
            # Where it is lost, the next start publishes once more.
            self._with.database.tell(DatabaseActor.acknowledge, ((self._name, Version(version)),))
        self._tell_state()

    def clear_again(self) -> None:
        """Clear what has not come back: a connection may have broken between the broker's PUBACK and the message."""
        for topic in self._deaf:
            self._retain(topic, b"")
        if self._deaf:
            self._clear_after = min(2 * self._clear_after, LONGEST_CLEAR_AGAIN)
            self._once(self._clear_after, self.clear_again)

    # -- the worker

    async def _give_secrets(self, *, anew: bool = True) -> dict[str, str]:
        """Write the credential files; whatever is in them is struck out of the output from before on.

        Not `anew`: only where they are not as this actor has written them.
        """
        secrets = self._settings.secrets()
        self._tell_unopened()
        self._runner.hide(secrets.values())
        if anew or secrets != self._given:
            self._given = None
            await self._files.write_credentials(secrets)
            self._given = secrets
        return secrets

    def _tell_unopened(self) -> None:
        """Tell health, and the log, which secrets cannot be opened; and when all can be again."""
        unopened, component = self._settings.unopened, of_service(self._name)
        known = self._with.board.components.get(component)
        detail = "; ".join(unopened)
        if (known.detail if known is not None else "") != detail:
            self._with.health.tell(HealthActor.report, component, not unopened, detail)
        if unopened != self._unopened:
            self._unopened = unopened
            for sentence in unopened:
                self._log.error("%s", sentence)

    async def _write_snapshot(self) -> None:
        """Sign and write it. What is there already will do where that fails, if it is of this version."""
        mark = self._settings.mark
        try:
            update = await self._with.signer.ask(SignerActor.sign, self._settings.unsigned())
            await self._files.write_snapshot(update, mark)
        except OlderSnapshot as error:
            self._log.error("%s", error)  # the worker runs with the newer one
        except (OSError, Rejected, OutcomeUnknown) as error:
            if not self._files.has_snapshot(mark):
                raise
            self._log.warning("the snapshot is not written anew: %s", _why(error))

    async def _keep_in_step(self, secrets: Mapping[str, str], reason: str) -> None:
        """Have the worker run with the present settings; it hears of the live ones by itself."""
        if not self._worker.running:
            # Also while it backs off: the change may be the cure.
            self._soon(self.start_worker, reason)
            return
        values = self._settings.known_at_start_only(secrets)
        changed = [key for key in {**self._started_with, **values} if self._started_with.get(key) != values.get(key)]
        if changed:
            keys = ", ".join(changed)
            self._terminate(f"restarted for {keys}", f"restarts for {keys}")
            return
        try:
            await self._write_snapshot()
        except (OSError, Rejected, OutcomeUnknown, ValueError) as error:
            # The next start does it, or says that it cannot be done.
            self._log.warning("the snapshot is not written: %s", _why(error))

    def _terminate(self, reason: str, told: str) -> None:
        if self._worker.asked_to_end(reason):
            self._log.info("%s", told)
            self._runner.terminate()

    def _ended(self, ended: Ended) -> None:
        """Take the worker's end: at once and not in turn, so that the state is never behind what is."""
        self._reported = None
        asked = self._worker.state is Lifecycle.STOPPING
        delay = self._worker.ended(str(ended))
        self._clear_reports()
        if asked or delay is None:
            self._log.info("ended (%s)", ended)
        else:
            self._log.warning("%s; it is started again %s", ended, in_seconds(delay))
        if delay is None:
            return
        if not asked:
            self._once(delay, self.start_worker, f"started again after it {ended}")
        else:
            self._once(delay, self.start_worker, self._worker.reason)

    # -- reports

    def _clear_reports(self) -> None:
        self._clear_after = CLEAR_AGAIN
        self._deaf = {self._service.health_topic, self._applied_topic}
        for topic in self._deaf:
            self._retain(topic, b"")
        self._once(self._clear_after, self.clear_again)

    def _hears(self, topic: str, payload: bytes) -> bool:
        """Whether this is a report of the present instance."""
        if not payload:
            self._deaf.discard(topic)
        return bool(payload) and topic not in self._deaf

    def _complain(self, what: str) -> None:
        """Log it, unless it was the last that was logged: a worker repeats itself."""
        if what != self._complaint:
            self._complaint = what
            self._log.warning("%s", what)

    # -- telling

    def _publish(self) -> None:
        token = (self._name, *self._settings.mark)
        self._retain(f"system/config/{self._name}", self._settings.unsigned(), token)

    def _tell_state(self) -> None:
        """Show and publish the state: the worker's at once; where only versions have moved, soon, with those that follow."""
        worker = self._worker
        life = (worker.state, worker.instance, worker.reason, worker.restarts)
        if life != self._life_told:
            self._life_told = life
            self.publish_state()
        elif not self._state_due:
            self._state_due = True
            self.later(VERSIONS_PAUSE, self.publish_state)

    def publish_state(self) -> None:
        """Put the present state on the board and on the broker."""
        self._state_due = False
        worker, row, kind = self._worker, self._settings.row, self._service.kind
        message = StateMessage(
            service=self._name,
            kind=kind,
            state={Kind.EXTERNAL: Lifecycle.EXTERNAL, Kind.CONFIG_ONLY: Lifecycle.CONFIG_ONLY}.get(kind, worker.state),
            since=worker.since,
            reason=worker.reason if self._has_worker else "",
            instance=worker.instance and worker.instance.name,
            pid=worker.instance and worker.instance.pid,
            restarts=worker.restarts,
            desired=VersionMark(config_epoch=row.config_epoch, version=row.version),
            published=self._published,
            reported=self._reported,
        )
        self._with.board.states[self._name] = message
        self._retain(f"system/state/{self._name}", message.model_dump_json().encode())

    def _retain(self, topic: str, content: bytes | Unsigned, token: object = None) -> None:
        if not self._with.bridge.tell(BridgeActor.retain, topic, content, token):
            self._once(TRY_AGAIN, self.tell_again)

    def _soon(self, method: Callable[..., Any], *args: Any) -> None:
        """Tell this actor itself; a flood of reports that fills the mailbox does not keep that out."""
        try:
            self.defer(method, *args)
        except MailboxFull:
            self.later(0.0, method, *args)

    def _once(self, seconds: float, method: Callable[..., Any], *args: Any) -> None:
        """The same after a while, instead of any such message that has still to come."""
        before = self._timers.get(method.__name__)
        if before is not None:
            before.cancel()
        self._timers[method.__name__] = self.later(seconds, method, *args)

    def _sentence(self, decision: Decision) -> str:
        if not self._has_worker:
            return "Saved."
        if (decision.restart or decision.live) and self._worker.state not in RUNNING_STATES:
            return "Saved. The worker starts with it."
        if decision.restart:
            return f"Saved. The worker restarts for: {', '.join(decision.restart)}."
        if decision.live:
            return f"Saved. The worker takes over while running: {', '.join(decision.live)}."
        return "Saved. What the worker runs with is the same."


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'} cannot be used: {error.strerror}"
    return str(error)
