"""Commits in any order, alone and in groups, against a dictionary that does the same."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.database import DatabaseActor, HistoryActor, UnknownService, VersionMismatch
from actors.runtime import Handle, Ref
from schemas.history import Point
from schemas.records import (
    ABSENT,
    SECRET_MARK,
    Change,
    CommitRequest,
    Committed,
    HistoryChange,
    HistoryQuery,
    ItemRow,
    SealedSecret,
    SecretChange,
)
from schemas.types import ServiceName, Version
from tests.actors.database.support import Database, History, change, new, request, rows

SERVICES = tuple(ServiceName(name) for name in ("alpha", "beta", "gamma"))
KEYS = ("a", "b", "c")
services = st.sampled_from(SERVICES)
values = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3)
configs = st.dictionaries(st.sampled_from(KEYS), values, max_size=3)
tokens = st.none() | st.binary(min_size=1, max_size=4).map(lambda each: SealedSecret(each, each, "k"))


def same(one: Any, other: Any) -> bool:
    """True is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


@dataclass(frozen=True)
class Row:
    version: int
    config: dict[str, Any]
    token: SealedSecret | None = None
    published: int | None = None


# service, how far off the expected version is, the new content, the new token or ... to leave it.
Wish = tuple[ServiceName, int, dict[str, Any], Any]
wishes = st.tuples(services, st.sampled_from((0, 0, 0, 0, 1, -1)), configs, st.just(...) | st.just(...) | tokens)
groups = st.lists(st.lists(wishes, min_size=1, max_size=3, unique_by=lambda wish: wish[0]), min_size=1, max_size=4)


class Commits(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "config.db"
        self.runner = asyncio.Runner()
        self.database: Database = Handle("database")
        self.ref: Ref[DatabaseActor] | None = None
        self.looking_back: History = Handle("history")
        self.looking_back_ref: Ref[HistoryActor] | None = None
        self.model: dict[ServiceName, Row] = {}
        self.history: list[tuple[str, str, Any, Any, int]] = []
        # What every key of a service had at each of its versions, as it is shown.
        self.past: dict[ServiceName, list[dict[str, Any]]] = {}
        self.revision = 0

    def teardown(self) -> None:
        self.runner.run(self.stop())
        self.runner.close()
        self.folder.cleanup()

    async def stop(self) -> None:
        if self.ref is not None and self.looking_back_ref is not None:
            await self.looking_back_ref.stop(block=False)
            await self.ref.stop(block=False)

    async def start(self) -> None:
        self.ref = DatabaseActor.start(self.path, autocheckpoint=10)
        await self.ref.started
        self.database.attach(self.ref)
        self.looking_back_ref = HistoryActor.start(self.path, lambda _: None)
        await self.looking_back_ref.started
        self.looking_back.attach(self.looking_back_ref)

    @initialize()
    def begin(self) -> None:
        self.runner.run(self.start())

    @rule()
    def restart(self) -> None:
        self.runner.run(self.stop())
        self.runner.run(self.start())

    @rule(wanted=st.sets(services, min_size=1))
    def ensure(self, wanted: set[ServiceName]) -> None:
        self.runner.run(self.database.ask(DatabaseActor.ensure, new(*sorted(wanted))))
        missing = wanted - set(self.model)
        self.model |= {service: Row(1, {}) for service in missing}
        self.past |= {service: [{}] for service in missing}
        self.revision += bool(missing)

    @rule(group=groups)
    def commit(self, group: list[list[Wish]]) -> None:
        """A group of requests at once; the model takes them one after the other, in the order asked."""
        requests = []
        # What a request changes follows from what those before it leave, as with one who has read their versions.
        ahead = dict(self.model)
        for wanted in group:
            asked = request(*(self.change_for(ahead, *wish) for wish in wanted))
            requests.append(asked)
            if all(
                each.service in ahead and each.expected_version == ahead[each.service].version for each in asked.changes
            ):
                for each in asked.changes:
                    row = ahead[each.service]
                    ahead[each.service] = replace(row, version=row.version + 1, config=dict(each.config))
        outcomes = self.runner.run(self.ask_all(requests))
        for asked, outcome in zip(requests, outcomes, strict=True):
            self.check_outcome(asked, outcome)

    def change_for(
        self, ahead: dict[ServiceName, Row], service: ServiceName, off: int, config: dict[str, Any], token: Any
    ) -> Change:
        row = ahead.get(service, Row(1, {}))
        keys = [key for key in KEYS if not same(row.config.get(key, ABSENT), config.get(key, ABSENT))]
        return change(
            service,
            max(1, row.version + off),
            config,
            history=tuple(HistoryChange(key, row.config.get(key, ABSENT), config.get(key, ABSENT)) for key in keys),
            items=tuple(ItemRow(key, config.get(key, ABSENT), "string", "simple", "words") for key in keys),
            secrets=() if token is ... else (SecretChange("token", token),),
        )

    async def ask_all(self, requests: Sequence[CommitRequest]) -> list[Any]:
        asked = (self.database.ask(DatabaseActor.commit, each) for each in requests)
        async with asyncio.timeout(30):
            return await asyncio.gather(*asked, return_exceptions=True)

    def check_outcome(self, asked: CommitRequest, outcome: Any) -> None:
        unknown = [each.service for each in asked.changes if each.service not in self.model]
        stale = [
            each
            for each in asked.changes
            if each.service in self.model and each.expected_version != self.model[each.service].version
        ]
        if unknown or stale:
            assert isinstance(outcome, UnknownService | VersionMismatch)
            if isinstance(outcome, VersionMismatch):
                assert outcome.current == self.model[outcome.service].version
            return
        assert isinstance(outcome, Committed), outcome
        self.revision += 1
        assert outcome.revision == self.revision
        for each in asked.changes:
            self.apply(each)
            assert outcome.versions[each.service] == self.model[each.service].version

    def apply(self, each: Change) -> None:
        row = self.model[each.service]
        version = row.version + 1
        self.history += ((each.service, one.key, one.old, one.new, version) for one in each.history)
        token = row.token
        for secret in each.secrets:
            if secret.sealed is not None or token is not None:
                marks = (SECRET_MARK if token else ABSENT, SECRET_MARK if secret.sealed else ABSENT)
                self.history.append((each.service, secret.key, *marks, version))
            token = secret.sealed
        self.model[each.service] = replace(row, version=version, config=dict(each.config), token=token)
        self.past[each.service].append({**each.config, **({"token": SECRET_MARK} if token else {})})

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        service = data.draw(st.sampled_from(sorted(self.model)))
        version = data.draw(st.integers(1, self.model[service].version))
        self.runner.run(self.database.ask(DatabaseActor.acknowledge, [(service, Version(version))]))
        row = self.model[service]
        self.model[service] = replace(row, published=max(version, row.published or 0))

    @rule(service=services, data=st.data())
    def look_back(self, service: ServiceName, data: st.DataObject) -> None:
        """Between any two versions of a service differs what its states then say."""
        if service not in self.model:
            return
        versions = st.integers(1, self.model[service].version)
        old, new = data.draw(versions), data.draw(versions)
        found = self.runner.run(
            self.looking_back.ask(
                HistoryActor.difference, service, Point(version=Version(old)), Point(version=Version(new))
            )
        )
        before, after = self.past[service][old - 1], self.past[service][new - 1]
        written = {
            key
            for name, key, was, will_be, version in self.history
            if name == service and SECRET_MARK in {was, will_be} and min(old, new) < version <= max(old, new)
        }
        expected = {
            key: (before.get(key, ABSENT), after.get(key, ABSENT))
            for key in {*before, *after}
            if not same(before.get(key, ABSENT), after.get(key, ABSENT)) or key in written
        }
        assert {
            each.key: (ABSENT if each.old_is_default else each.old, ABSENT if each.new_is_default else each.new)
            for each in found.keys
        } == expected

    @invariant()
    def store_and_model_agree(self) -> None:
        if self.ref is None:
            return
        state = self.runner.run(self.database.ask(DatabaseActor.load))
        assert state.revision == self.revision
        found = {
            name: Row(each.version, dict(each.config), state.secrets.get(name, {}).get("token"), each.published_version)
            for name, each in state.services.items()
        }
        assert found == self.model
        history = self.runner.run(self.looking_back.ask(HistoryActor.page, HistoryQuery(limit=1000)))
        assert [
            (each.service, each.key, each.old_value, each.new_value, each.version) for each in reversed(history)
        ] == self.history
        items = rows(self.path, "SELECT service, key FROM config_items ORDER BY service, key")
        assert items == [(name, key) for name in sorted(self.model) for key in sorted(self.model[name].config)]


TestCommits = Commits.TestCase
TestCommits.settings = settings(
    max_examples=20,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
