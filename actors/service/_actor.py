"""One managed service: its settings, and the worker that runs with them."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from actors.bridge import BridgeActor
from actors.cache import CacheActor, CacheEntry
from actors.database import DatabaseActor
from actors.events import ConfigChanged, StateChanged
from actors.health import HealthActor, of_service
from actors.holder import SpawnFailed
from actors.output import Mask
from actors.process import Command
from actors.runtime import Actor, ActorDown, MailboxFull, OutcomeUnknown, Rejected
from actors.service import _events as ev
from actors.service._decision import Decision
from actors.service._environment import worker_environment
from actors.service._external import External, RestartFailed
from actors.service._files import Mark, OlderSnapshot, WorkerFiles
from actors.service._log import ServiceLog, why
from actors.service._plan import make_plan, refused
from actors.service._runner import Runner
from actors.service._settings import Judged, Settings
from actors.service._spawning import account_of
from actors.service._status import Shown
from actors.service._surroundings import Surroundings
from actors.service._wish import Wish
from actors.signer import SignerActor, Unsigned
from schemas.changes import ChangeAccepted, ConfigChange, OverriddenByEnvironment, ReadOnly
from schemas.manifest import Service
from schemas.messages import ReportInvalid, StateMessage, VersionMark, read_applied, read_health
from schemas.plans import ChangePlan, PlannedRestart
from schemas.problems import ConfigInvalid, FieldError
from schemas.records import Committed, SealedSecret, StoredService
from schemas.service_schema import ServiceSchema
from schemas.states import RUNNING_STATES, Kind, Lifecycle
from schemas.status import CommandRefused, ServiceStatus, Verb
from schemas.types import JSON, ServiceName, Version

logger = logging.getLogger(__name__)

TRY_AGAIN = 1.0
"""Seconds until something is tried again that another part was not ready for."""

VERSIONS_PAUSE = 0.05
"""Seconds for which a state in which only versions have moved waits for more of that: each is published two or three times."""

MAX_REASON = 500
"""Characters of a control signal's reason; readers refuse longer ones."""

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
        """`loaded`: the row and the secrets, where the caller has just read them; else they are read at the start.

        Who gives them also says when to `follow`: at the start of the program REST is to answer first.
        """
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
            public_pem=surroundings.public_pem,
        )
        self._schema = schema
        self._runner: Runner | None = None
        self._external: External | None = None
        self._shown: Shown | None = None
        self._wish = Wish(surroundings.data_folder, service.name)
        # The files of a worker are written for its start and for a change, which do not wait for one another's turn.
        self._writing = asyncio.Lock()
        self._applied_topic = f"system/applied/{self._name}"
        self._followed: Mark | None = None
        self._begun = False
        self._mask = Mask()
        self._since = datetime.now(UTC)
        self._given: dict[str, str] | None = None
        self._published: VersionMark | None = None
        self._noted: VersionMark | None = None
        self._reported: VersionMark | None = None
        self._diverged: tuple[str, ...] = ()
        # Reports are not believed between a worker's end and the moment our clearing of its topic came back.
        self._deaf: set[str] = set()
        self._clear_after = CLEAR_AGAIN
        self._complaint: object = None
        self._life_told: object = self
        self._state_told = b""
        self._state_due = False
        self._unopened: tuple[str, ...] = ()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # -- life

    async def on_start(self) -> None:
        kind, around = self._service.kind, self._with
        if kind is Kind.PROCESS:
            try:
                await self._files.create(owner=account_of(self._service))
            except (SpawnFailed, PermissionError):
                if self._service.user is None:
                    raise
                # A user that there is not, or whom we may give nothing: the start of this worker says so.
        follow_now = self._loaded is None
        await self._settings.load(self._loaded)
        self._loaded = None
        if kind is Kind.PROCESS:
            self._take_over(self._wish.wanted())
        else:
            around.fleet.enter(self._name, lambda _: None)
        if kind is Kind.EXTERNAL:
            self._external = External(
                self._service,
                believes_reports=around.believes_reports,
                command=self._restart_command,
                signal=self._signal_restart,
                run=self.spawn,
                on_change=self._tell_state,
                clean=self._clean,
                log=self._log,
            )
            self._external.start()
        if follow_now:
            self._soon(self.follow)
        self._tell_state()

    def _take_over(self, wanted: bool) -> None:
        """Begin the worker's life, with the process that is there, if there is one."""
        self._runner = runner = Runner(
            self._service,
            self._schema,
            self._with,
            self._files,
            wanted=wanted,
            prepare=self._prepare,
            run=self.spawn,
            on_change=self._tell_state,
            on_end=self._ended,
            log=self._log,
        )
        self._shown = Shown(runner.life)
        self._with.fleet.enter(self._name, runner.feed)
        # Its secrets are struck out of its output from the first line on.
        runner.hide(self._settings.secrets().values())
        if not runner.adopt():
            self._clear_reports()

    async def on_stop(self) -> None:
        self._tell_news()
        if self._with.holding.leaving:
            if self._runner is not None:
                await self._runner.settled()
        else:
            await self.shut_down()
        self._leave()

    def on_failure(self, *_reason: object) -> None:
        self._tell_news()
        self._leave()

    def _leave(self) -> None:
        if self._runner is not None:
            self._runner.let_go()
        else:
            self._with.fleet.leave(self._name)
        if self._external is not None:
            self._external.close()

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
        return self._accepted(decision, committed)

    def _accepted(self, decision: Decision, committed: Committed | None) -> ChangeAccepted:
        row = self._settings.row
        if committed is None:
            return ChangeAccepted(row.version, row.config_epoch, None, (), (), "Nothing was different.")
        return ChangeAccepted(
            committed.versions[self._name],
            committed.config_epoch,
            committed.revision,
            decision.live,
            decision.restart,
            self._sentence(decision),
        )

    async def judge(self, change: ConfigChange) -> Judged:
        """Say what a change comes to, for a commit together with others. Raises what `Settings.judge` raises."""
        return await self._settings.judge(change)

    def take(self, change: ConfigChange, judged: Judged, committed: Committed) -> ChangeAccepted:
        """Take over what was committed together with others."""
        self._settings.take(change, judged, committed)
        self.later(0.0, self.follow)
        return self._accepted(judged.decision, committed)

    def doubt(self) -> None:
        """Something may have been committed: read it."""
        self._settings.doubtful = True
        self.later(0.0, self.follow)

    async def plan(self, change: ConfigChange) -> ChangePlan:
        """Tell what `change` would do, without doing it; one that would be refused for its values is a plan with `errors`.

        Raises:
            StaleVersion: the version or epoch the caller has seen is not the current one.
            ReadOnly: it shows that somebody else has changed the store, which cannot be read now.
        """
        try:
            decision, now = await self._settings.plan(change)
        except ConfigInvalid as error:
            return refused(self._settings.row, error.errors)
        except OverriddenByEnvironment as error:
            message = "Set by the environment, which wins over the store; remove the variable to change it here."
            return refused(self._settings.row, tuple(FieldError(key, message, "overridden") for key in error.keys))
        finally:
            if self._settings.doubtful or self._settings.mark != self._followed:
                self.later(0.0, self.follow)
        runner = self._runner
        restarts: tuple[PlannedRestart, ...] = ()
        if runner is not None and runner.life.instance is not None and decision.changes_anything:
            # What a new secret is compared with may not show either.
            told = self._schema.restart_keys.intersection(decision.secrets)
            if told or runner.outdated(self._settings.known_after(decision)):
                restarts = (PlannedRestart(self._name, runner.life.away),)
        message = self._sentence(decision, planned=True) if decision.changes_anything else "Nothing would be different."
        return structs.replace(
            make_plan(self._schema, self._settings.row, now, decision), restarts=restarts, message=message
        )

    async def shut_down(self) -> None:
        """End the worker and wait until it is gone; it is killed after its grace, or when the owner hurries."""
        if self._runner is not None:
            await self._runner.shut_down()

    def configure(self, service: Service) -> None:
        """Go by another entry of the manifest, which differs in what only the supervisor goes by; the worker is left alone."""
        self._service = service
        if self._runner is not None:
            self._runner.configure(service)
        if self._external is not None:
            self._external.configure(service)
        self._tell_state()

    async def command(self, verb: Verb, by: str, reason: str | None) -> None:
        """Take what the owner wants, on disk when this returns; what comes of it is seen in the state.

        Raises:
            CommandRefused: it makes no sense here, or cannot be written down; nothing happened.
        """
        why_ = f": {self._clean(reason)}" if reason else ""
        if self._external is not None and verb is Verb.RESTART:
            try:
                await self._external.restart(f"restarted by {by}{why_}")
            except RestartFailed as error:
                raise CommandRefused(f"{self._name} cannot be restarted: {error}") from error
            return
        if self._runner is None:
            who = "has no worker" if self._external is None else "is run by somebody else"
            raise CommandRefused(f"{self._name} {who}, so there is nothing here to {verb}")
        runner, wanted = self._runner, verb is not Verb.STOP
        if runner.life.wanted != wanted:
            try:
                await self._wish.keep(wanted, by)
            except OSError as error:
                raise CommandRefused(f"what is wanted of {self._name} cannot be written down: {why(error)}") from error
        past = {Verb.START: "started", Verb.STOP: "stopped", Verb.RESTART: "restarted"}[verb]
        events: dict[Verb, Callable[[str], ev.Event]] = {
            Verb.START: ev.Start,
            Verb.STOP: ev.Stop,
            Verb.RESTART: ev.Restart,
        }
        runner.feed(events[verb](f"{past} by {by}{why_}"))

    # -- told

    async def follow(self) -> None:
        """Bring everything that is derived from the row in step with it, the worker last."""
        if self._settings.doubtful:
            try:
                await self._settings.refresh()
            except ReadOnly:
                self._tell_news()
                self._once(TRY_AGAIN, self.follow)
                return
        mark = self._settings.mark
        if mark == self._followed:
            self._tell_news()
            return
        row, wire = self._settings.row, self._settings.wire
        entry = CacheEntry(self._name, wire.canonical, wire.checksum, row.version)
        if self._with.contents.update(row.config_epoch, self._settings.revision, entry):
            # Where it is down: it looks at the contents when it starts.
            self._with.cache.tell(CacheActor.changed)
        if self._runner is not None and self._runner.life.instance is not None:
            try:
                async with self._writing:
                    await self._give_secrets()
            except OSError as error:
                self._tell_news()
                self._complain(f"version {row.version} is not published, since its secrets cannot be written: {error}")
                self._once(TRY_AGAIN, self.follow)
                return
        else:
            # Where its worker is down, its start writes them.
            self._open_secrets()
        # After the secrets: a worker that hears of a version finds them there.
        self._followed = mark
        self._publish()
        self._tell_state()
        # The bridge publishes in the next turn, and somebody may wait for that; nobody does for a line.
        await asyncio.sleep(0)
        self._tell_news()
        if self._runner is not None:
            await self._keep_in_step(self._runner)

    def _tell_news(self) -> None:
        """Log and announce the versions that were made since the last time, each line under its own request's id.

        Not where they are made: whoever asked for one waits there, and this costs a tenth of the rest.
        """
        for news in self._settings.take_news():
            row, decision = news.row, news.decision
            told = decision.told() or news.reason
            news.context.run(self._log.info, "version %d by %s: %s", row.version, row.updated_by, told)
            self._with.events.publish(
                ConfigChanged(
                    service=self._name,
                    version=row.version,
                    config_epoch=row.config_epoch,
                    revision=news.revision,
                    keys=tuple(dict.fromkeys([*(entry.key for entry in decision.history), *decision.secrets])),
                    changed_by=row.updated_by,
                    reason=news.reason or "",
                )
            )

    def tell_again(self) -> None:
        """Tell the bridge everything that it may have missed, as after a restart of it."""
        if self._followed == self._settings.mark:
            self._publish()
        for topic in self._deaf:
            self._retain(topic, b"")
        self.publish_state()

    def health(self, payload: bytes) -> None:
        """Take what came on the worker's health topic."""
        if not self._hears(self._service.health_topic, payload):
            return
        try:
            health = read_health(payload)
        except ReportInvalid as error:
            self._complain(f"what the worker reports on {self._service.health_topic} is {error}")
            return
        said = self._clean(health.err or health.event or ("healthy" if health.ok else "unhealthy"))
        if self._runner is not None:
            self._runner.heard(health.ok, said)
        elif self._external is not None:
            self._external.heard(health.ok, said)

    def applied(self, payload: bytes) -> None:
        """Take what came on the service's applied topic."""
        if not self._hears(self._applied_topic, payload):
            return
        try:
            report = read_applied(payload)
        except ReportInvalid as error:
            self._complain(f"what the worker reports on {self._applied_topic} is {error}")
            return
        runner = self._runner
        ours = runner is None or report.instance in {None, runner.life.instance}
        if not ours or report.service != self._name:
            return
        if not report.ok:
            error_text = self._clean(report.error or "it does not say why")
            self._complain(f"the worker could not apply version {report.version}: {error_text}")
            return
        if report.error:
            # How its last control signal failed; it stands in each report until another one succeeds.
            self._complain(f"the worker reports a failure: {self._clean(report.error)}")
        if report.config_epoch is not None and report.version is not None:
            before = self._reported, self._diverged
            self._reported = VersionMark(config_epoch=report.config_epoch, version=report.version)
            self._diverged = tuple(map(self._clean, report.restart_required or ()))
            if (self._reported, self._diverged) != before:
                self._tell_state()

    def published(self, config_epoch: str, version: int) -> None:
        """Take the broker's acknowledgement of a version."""
        mark = VersionMark(config_epoch=config_epoch, version=version)
        if mark == self._published:
            return
        self._published = mark
        self._tell_state()

    def clear_again(self) -> None:
        """Clear what has not come back: a connection may have broken between the broker's PUBACK and the message."""
        for topic in self._deaf:
            self._retain(topic, b"")
        if self._deaf:
            self._clear_after = min(2 * self._clear_after, LONGEST_CLEAR_AGAIN)
            self._once(self._clear_after, self.clear_again)

    # -- the worker

    async def _prepare(self) -> Mapping[str, JSON]:
        """Write what the next instance is given; the settings that it will read at its start alone.

        Raises SpawnFailed where it is to run as a user that there is not, and what writing raises.
        """
        async with self._writing:
            owner, files = account_of(self._service), self._files
            if files.owner != owner or not files.intact(self._settings.mark, self._given, self._with.public_keys):
                self._given, secrets = None, self._open_secrets()
                await files.create(self._with.restore_folders, owner=owner, credentials=secrets)
                self._given = secrets
                await self._write_snapshot()
            return self._settings.known_at_start_only(self._given or {})

    async def _give_secrets(self) -> None:
        """Write the credential files, where they are not as this actor has written them."""
        secrets = self._open_secrets()
        if secrets != self._given:
            self._given = None
            await self._files.write_credentials(secrets)
            self._given = secrets

    def _open_secrets(self) -> dict[str, str]:
        """Give the secrets in clear. Whatever is in them is struck out of all that is told from now on."""
        secrets = self._settings.secrets()
        self._tell_unopened()
        if self._runner is not None:
            self._runner.hide(secrets.values())
        else:
            self._mask = self._mask.adding(secrets.values())
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
            self._log.warning("the snapshot is not written anew: %s", why(error))

    async def _keep_in_step(self, runner: Runner) -> None:
        """Have the worker run with the present settings; it hears of the live ones by itself."""
        if not self._begun:
            self._begun = True
            runner.feed(ev.Begin("started with the supervisor"))
        else:
            # The change may be the cure of one that is down.
            runner.feed(ev.Retry("a setting was changed"))
        if runner.life.instance is None:
            return
        if changed := runner.outdated(self._settings.known_at_start_only(self._given or {})):
            runner.feed(ev.Renew(f"restarted for {changed}"))
            return
        if not runner.prepared:
            return  # its start writes it
        try:
            async with self._writing:
                await self._write_snapshot()
        except (OSError, Rejected, OutcomeUnknown, ValueError) as error:
            # The next start does it, or says that it cannot be done.
            self._log.warning("the snapshot is not written: %s", why(error))

    def _ended(self) -> None:
        """Take the worker's end: what it reported goes with it."""
        self._reported = None
        self._diverged = ()
        self._clear_reports()

    # -- one that somebody else runs

    def _restart_command(self, argv: tuple[str, ...]) -> Command:
        return Command(
            argv,
            self._service.cwd,
            worker_environment(
                self._with.environment,
                settings=(),
                passed=self._service.pass_environment,
                declared=self._service.environment,
                given={"TARS_SERVICE": self._name},
            ),
        )

    async def _signal_restart(self, reason: str) -> None:
        mark = self._settings.mark
        try:
            payload = await self._with.signer.ask(
                SignerActor.sign_control,
                self._name,
                "restart",
                reason=reason[:MAX_REASON],
                config_epoch=mark.config_epoch,
                version=mark.version,
            )
        except (Rejected, OutcomeUnknown, ValueError) as error:
            raise RestartFailed(f"the control signal cannot be signed: {error}") from error
        if not self._with.bridge.tell(BridgeActor.send, f"system/control/{self._name}", payload):
            raise RestartFailed("the control signal cannot be sent: the bridge to the broker is down")

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

    def _clean(self, text: str) -> str:
        """Strike the service's secrets out."""
        return self._mask.clean(text) if self._runner is None else self._runner.output.clean(text)

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
        shown = self._life_shown()
        if shown != self._life_told:
            self._life_told = shown
            self.publish_state()
        elif not self._state_due:
            self._state_due = True
            self.later(VERSIONS_PAUSE, self.publish_state)

    def _life_shown(self) -> object:
        if self._runner is not None:
            life = self._runner.life
            return life.state, life.instance, life.pid, life.reason, life.restarts, tuple(life.ends)
        if self._external is not None:
            return self._external.state, self._external.reason, self._external.restarts
        return None

    def publish_state(self) -> None:
        """Put the present state on the board and on the broker."""
        self._state_due = False
        self._with.board.statuses[self._name] = status = self._status()
        text = (
            StateMessage(**{key: getattr(status, key) for key in StateMessage.model_fields}).model_dump_json().encode()
        )
        if text != self._state_told:
            self._state_told = text
            self._retain(f"system/state/{self._name}", text)
            self._with.events.publish(StateChanged(self._name, text))
        self._note_published()

    def _status(self) -> ServiceStatus:
        row = self._settings.row
        common: dict[str, Any] = {
            "service": self._name,
            "kind": self._service.kind,
            "desired": VersionMark(config_epoch=row.config_epoch, version=row.version),
            "published": self._published,
            "reported": self._reported,
            "diverged": self._diverged,
        }
        if self._runner is None or self._shown is None:
            external = self._external
            return ServiceStatus(
                **common,
                state=Lifecycle.CONFIG_ONLY if external is None else external.state,
                since=self._since if external is None else external.since,
                reason="" if external is None else external.reason,
                wanted=external is not None,
                restarts=0 if external is None else external.restarts,
            )
        life, shown = self._runner.life, self._shown
        return ServiceStatus(
            **common,
            state=life.state,
            since=life.since.wall,
            reason=life.reason,
            wanted=life.wanted,
            instance=life.instance,
            pid=life.pid,
            started_at=shown.started_at,
            ready_at=shown.ready_at,
            restarts=life.restarts,
            ends=shown.ends,
            waits_for=self._with.fleet.waits_for(self._name) if life.state is Lifecycle.WAITING else (),
            due=shown.due,
        )

    def _note_published(self) -> None:
        """Have the store note what the broker has. Where that is lost, the next start publishes once more."""
        published, row = self._published, self._settings.row
        if published is None or published == self._noted or published.config_epoch != row.config_epoch:
            return
        if (row.published_version or 0) < published.version:
            self._with.database.tell(DatabaseActor.acknowledge, ((self._name, Version(published.version)),))
        self._noted = published

    def _retain(self, topic: str, content: bytes | Unsigned, token: object = None) -> None:
        try:
            self._with.bridge.call(BridgeActor.retain, topic, content, token)
        except ActorDown:
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

    def _sentence(self, decision: Decision, *, planned: bool = False) -> str:
        saved = "Not saved yet." if planned else "Saved."
        if self._runner is None:
            return saved
        if (decision.restart or decision.live) and self._runner.life.state not in RUNNING_STATES:
            return f"{saved} The worker starts with it."
        if decision.restart:
            return f"{saved} The worker restarts for: {', '.join(decision.restart)}."
        if decision.live:
            return f"{saved} The worker takes over while running: {', '.join(decision.live)}."
        return f"{saved} What the worker runs with is the same."
