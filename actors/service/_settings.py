"""One service's settings: a copy of its row for reading, and the only way to its next version."""

import contextlib
import uuid
from collections.abc import Mapping
from contextvars import Context, copy_context
from dataclasses import replace
from typing import NamedTuple

from actors.board import Board
from actors.database import DatabaseActor, StoreUnavailable, UnknownService, VersionMismatch
from actors.runtime import Handle, OutcomeUnknown, Rejected
from actors.service._decision import Decision, InForce, OnWire, decide, on_wire
from actors.service._files import Mark
from actors.service._log import ServiceLog
from actors.service._view import make_view
from actors.signer import Unsigned
from actors.vault import Unsealable, Vault
from schemas.changes import ConfigChange, ReadOnly, StaleVersion
from schemas.records import Change, CommitRequest, Committed, SealedSecret, SecretChange, StoredService
from schemas.service_schema import ServiceSchema
from schemas.types import JSON, Revision, ServiceName

SETTLING_ATTEMPTS = 5


def commit_request(asked: ConfigChange, changes: tuple[Change, ...]) -> CommitRequest:
    """Put what the store shall write beside who asked for it, and why."""
    return CommitRequest(
        changes=changes,
        changed_by=asked.changed_by,
        origin=asked.origin,
        request_id=asked.request_id,
        reason=asked.reason,
        address=asked.address,
    )


class News(NamedTuple):
    """A version that was made, and the context variables of who asked for it."""

    context: Context
    row: StoredService
    decision: Decision
    revision: Revision
    reason: str | None


class Judged(NamedTuple):
    """What a change comes to. `change` is its part of a commit, None where nothing differs."""

    decision: Decision
    change: Change | None


class Settings:
    """Belongs to one service's actor, which calls it one message at a time.

    The version check inside the store's transaction is the only lock; what is held here is a copy, shown to readers on the
    board and read again whenever the store says otherwise or an outcome is unknown. `load` comes first.
    """

    row: StoredService
    wire: OnWire
    _secrets: Mapping[str, SealedSecret]
    _now: InForce

    def __init__(
        self,
        name: ServiceName,
        schema: ServiceSchema,
        environment: Mapping[str, str],
        *,
        database: Handle[DatabaseActor],
        vault: Vault,
        board: Board,
        log: ServiceLog,
    ) -> None:
        """`environment`: the variables that the worker will see, as far as they override settings."""
        self._name = name
        self._schema = schema
        self._environment = environment
        self._database = database
        self._vault = vault
        self._board = board
        self._log = log
        self._overrides = schema.from_environment(environment)
        self._overridden = schema.overridden(environment)
        self.revision = Revision(0)
        self.doubtful = False
        """What is held may not be what the store holds: `refresh` before anything is derived from it."""
        self._news: list[News] = []
        self.unopened: tuple[str, ...] = ()
        """What `secrets` could not open when it was last called: a sentence for each."""

    # -- as they are

    @property
    def mark(self) -> Mark:
        return Mark(self.row.config_epoch, self.row.version)

    def unsigned(self) -> Unsigned:
        return Unsigned(
            service=self._name,
            config_canonical=self.wire.canonical,
            checksum=self.wire.checksum,
            version=self.row.version,
            config_epoch=self.row.config_epoch,
        )

    def secrets(self) -> dict[str, str]:
        """Every stored secret in clear; one that cannot be opened is left out, and why is in `unopened`."""
        opened: dict[str, str] = {}
        unopened = []
        for key, sealed in self._secrets.items():
            try:
                opened[key] = self._vault.open(self._name, key, sealed)
            except Unsealable as error:
                # The worker runs without it. One that the model has no more is nobody's loss.
                if key in self._schema.secret_keys:
                    unopened.append(f"{error}; set it again, or bring that key back")
        self.unopened = tuple(unopened)
        return opened

    def known_at_start_only(self, secrets: Mapping[str, str]) -> dict[str, JSON]:
        """The values, secrets included, that a worker reads when it starts and never again."""
        return self._of_starts({**self.wire.config, **self._overrides, **secrets})

    def take_news(self) -> "list[News]":
        """Give the versions that were made since the last time."""
        news, self._news = self._news, []
        return news

    # -- change

    async def change(self, change: ConfigChange) -> tuple[Decision, Committed | None]:
        """Change settings: None where nothing differs, else it is on disk. The caller looks at `mark` and `doubtful` after
        this, also where it raises: it may have shown that somebody else has changed the row.

        Raises:
            StaleVersion: the version or epoch the caller has seen is not the current one.
            ConfigInvalid, OverriddenByEnvironment: see `decide`.
            ReadOnly: the store cannot be written.
            OutcomeUnknown: it may have been; reading tells.
        """
        judged = await self.judge(change)
        if judged.change is None:
            return judged.decision, None
        try:
            committed = await self._commit(change, judged.decision, judged.change)
        except VersionMismatch as error:
            await self.refresh()
            raise StaleVersion(error.expected, error.current, error.config_epoch, error.request_id) from None
        except StoreUnavailable as error:
            raise ReadOnly(error.reason) from None
        except UnknownService as error:
            raise ReadOnly(
                f"{error}; somebody has removed its row. Start the supervisor again to make a new one"
            ) from None
        except Rejected as error:
            raise ReadOnly(f"The store is not available: {error}") from None
        return judged.decision, committed

    async def judge(self, change: ConfigChange) -> Judged:
        """Say what a change comes to, without making it; it may be committed together with others, and told to `take`.

        Raises what `change` raises, but for what has to do with writing.
        """
        await self._agree(change)
        decision = decide(self._schema, self._now, change)
        if not decision.changes_anything:
            return Judged(decision, None)
        secrets = tuple(
            SecretChange(key, None if value is None else self._vault.seal(self._name, key, value))
            for key, value in decision.secrets.items()
        )
        return Judged(decision, self._next_version(decision, secrets))

    def take(self, change: ConfigChange, judged: Judged, committed: Committed) -> None:
        """Take over what somebody has committed for this service. Where something else was made meanwhile, it is read anew."""
        assert judged.change is not None
        if self.row.version == judged.change.expected_version and self.row.config_epoch == committed.config_epoch:
            self._take(change, judged.decision, judged.change, committed)
        elif self.row.version < committed.versions[self._name] or self.row.config_epoch != committed.config_epoch:
            self.doubtful = True

    async def plan(self, change: ConfigChange) -> tuple[Decision, InForce]:
        """Judge a change as `change` would, without making it; and what is in force now. A secret that is set counts as changed
        whatever it is set to: whoever may only read must not find out by guessing.

        Raises what `change` raises, but for what has to do with writing.
        """
        await self._agree(change)
        return decide(self._schema, replace(self._now, reveal=lambda _: None), change), self._now

    async def _agree(self, change: ConfigChange) -> None:
        """Make sure that both sides have the same version before their eyes."""
        if self.doubtful or self._may_know_more(change):
            await self.refresh()
        row = self.row
        if change.expected_version not in {None, row.version} or change.expected_epoch not in {None, row.config_epoch}:
            raise StaleVersion(change.expected_version or row.version, row.version, row.config_epoch, row.request_id)

    def known_after(self, decision: Decision) -> dict[str, JSON]:
        """What `known_at_start_only` will give once this is decided."""
        secrets = {key: value for key, value in {**self.secrets(), **decision.secrets}.items() if value is not None}
        return self._of_starts({**decision.wire.config, **self._overrides, **secrets})

    def _of_starts(self, values: Mapping[str, JSON]) -> dict[str, JSON]:
        return {key: values[key] for key in self._schema.keys if key in self._schema.restart_keys and key in values}

    async def load(self, loaded: tuple[StoredService, Mapping[str, SealedSecret]] | None = None) -> None:
        """Take `loaded`, or read it. Raises what the database actor raises."""
        if loaded is None:
            loaded = await self._read()
        self._hold(*loaded)
        await self._settle()

    async def refresh(self) -> None:
        """Read the row again. Raises ReadOnly where that is not possible now."""
        self.doubtful = True
        try:
            self._hold(*await self._read())
            await self._settle()
        except (StoreUnavailable, UnknownService, Rejected, OutcomeUnknown) as error:
            raise ReadOnly(f"The store is not available: {error}") from None
        self.doubtful = False

    def _may_know_more(self, change: ConfigChange) -> bool:
        """Whether the caller has seen what we have not: somebody else may have written to the store."""
        other_epoch = change.expected_epoch not in {None, self.row.config_epoch}
        return other_epoch or (change.expected_version or 0) > self.row.version

    async def _read(self) -> tuple[StoredService, Mapping[str, SealedSecret]]:
        state = await self._database.ask(DatabaseActor.load)
        row = state.services.get(self._name)
        if row is None:
            raise UnknownService(self._name)
        self.revision = state.revision
        return row, state.secrets.get(self._name, {})

    async def _settle(self) -> None:
        """Make a new version where the row means something else than when it was written: a release has changed a default,
        or somebody has edited the row. One version has one content for ever.
        """
        for _ in range(SETTLING_ATTEMPTS):
            if self.row.checksum == self.wire.checksum:
                return
            change = ConfigChange(
                service=self._name,
                config={},
                merge=True,
                expected_version=self.row.version,
                expected_epoch=self.row.config_epoch,
                changed_by="supervisor",
                origin="migration",
                request_id=uuid.uuid4().hex,
                reason="what is stored means something else than before: a default of this release, or an edit of the row",
            )
            decision = Decision(self.row.config, self.wire, (), (), {}, (), ())
            with contextlib.suppress(VersionMismatch):
                await self._commit(change, decision, self._next_version(decision, ()))
                return
            self._hold(*await self._read())
        raise StoreUnavailable(f"The row of {self._name} changes faster than it can be read", "locked")

    def _next_version(self, decision: Decision, secrets: tuple[SecretChange, ...]) -> Change:
        return Change(
            service=self._name,
            config=decision.stored,
            expected_version=self.row.version,
            expected_epoch=self.row.config_epoch,
            checksum=decision.wire.checksum,
            history=decision.history,
            items=decision.items,
            secrets=secrets,
        )

    async def _commit(self, change: ConfigChange, decision: Decision, made: Change) -> Committed:
        """Write the next version, and take it over."""
        try:
            committed: Committed = await self._database.ask(DatabaseActor.commit, commit_request(change, (made,)))
        except BaseException as error:
            # Cancelled, too: the store goes on with it.
            self.doubtful = not isinstance(error, (Rejected, StoreUnavailable, VersionMismatch, UnknownService))
            raise
        self._take(change, decision, made, committed)
        return committed

    def _take(self, change: ConfigChange, decision: Decision, made: Change, committed: Committed) -> None:
        row = StoredService(
            service=self._name,
            config=decision.stored,
            version=committed.versions[self._name],
            config_epoch=committed.config_epoch,
            checksum=decision.wire.checksum,
            updated_at=committed.committed_at,
            updated_by=change.changed_by,
            published_version=self.row.published_version,
            request_id=change.request_id,
        )
        self.revision = committed.revision
        self._news.append(News(copy_context(), row, decision, committed.revision, change.reason))
        secrets = {**self._secrets, **{each.key: each.sealed for each in made.secrets}}
        self._hold(row, {key: value for key, value in secrets.items() if value is not None}, decision.wire)

    def _hold(self, row: StoredService, secrets: Mapping[str, SealedSecret], wire: OnWire | None = None) -> None:
        """Take this as the present, and show it to readers."""
        self.row = row
        self.wire = wire or on_wire(self._schema, row.config)
        self._secrets = secrets
        self._now = InForce(
            stored=row.config,
            overrides=self._overrides,
            overridden=self._overridden,
            secrets=frozenset(secrets),
            reveal=self._reveal,
        )
        self._board.services[self._name] = make_view(self._schema, self._now, row, self._environment)

    def _reveal(self, key: str) -> str | None:
        try:
            return self._vault.open(self._name, key, self._secrets[key])
        except Unsealable:
            return None
