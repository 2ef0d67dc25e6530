"""Reading the history: pages of it, and what differs between two points. On a connection of its own, which writes nothing."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from actors.database import statements as sql
from actors.database._errors import unavailable
from actors.database._past import Layer, Undo, differences, state_at
from actors.database._schema import rollback, timestamp
from schemas.history import Difference, NotReached, Point, Side
from schemas.records import ABSENT, SECRET_MARK, HistoryEntry, HistoryQuery, UnknownService
from schemas.restores import PastSettings, UnknownEntries
from schemas.service_schema import ServiceSchema
from schemas.types import ServiceName, Version

MAX_HISTORY: Final = 1000
"""Entries of one page."""

_FIRST: Final = 2
"""The version that a service's first change makes."""

SchemaOf: TypeAlias = Callable[[str], ServiceSchema | None]
"""Gives a service's model, or None where the manifest has no such service. It is called from a thread."""


class Lookback:
    """Each call opens the store for reading, sees it as of one moment, and closes it.

    Every method raises `StoreUnavailable` where the file cannot be used, and `UnknownService` where the store has no such row.
    """

    def __init__(self, path: Path, schema_of: SchemaOf) -> None:
        self._path = path
        self._schema_of = schema_of

    def page(self, query: HistoryQuery) -> tuple[HistoryEntry, ...]:
        """One page, newest first. A secret is a mark, also where an earlier model had it as a plain value.

        Raises:
            ValueError: the limit is out of bounds, or a time has no offset.
        """
        if not 1 <= query.limit <= MAX_HISTORY:
            raise ValueError(f"limit must be from 1 to {MAX_HISTORY}, not {query.limit}")
        statement = sql.history(
            service=query.service,
            key=query.key,
            start=_bound(query.start),
            end=_bound(query.end),
            before=query.before,
            limit=query.limit,
        )
        with self._reading() as connection:
            if query.service is not None:
                _present(connection, query.service)
            rows = connection.execute(*statement).fetchall()
            origins = _origins(connection, {row[6] for row in rows})
        return tuple(self._entry(row, origins) for row in rows)

    def difference(self, service: ServiceName | None, old: Point, new: Point) -> Difference:
        """What differs between two points, of one service or all.

        Raises:
            NotReached: the history does not tell what was in force at one of them.
            ValueError: a version without a service, or a time without an offset.
        """
        with self._reading() as connection:
            past = _Past(connection, service)
            before, after = past.id_of(old, "from"), past.id_of(new, "to")
            old_layers, new_layers = past.layers(before), past.layers(after)
            touched = past.secrets_written(min(before, after), max(before, after))
            now = Point(revision=past.revision)
        keys = [
            each
            for name in past.present
            for each in differences(
                name, self._schema_of(name), old_layers[name], new_layers[name], touched.get(name, frozenset())
            )
        ]
        return Difference(now if old == Point() else old, now if new == Point() else new, tuple(keys))

    def settings_at(self, service: ServiceName | None, point: Point) -> tuple[PastSettings, ...]:
        """What one service or all had set at a point, beside the versions that they are at now.

        Raises:
            NotReached: the history does not tell. ValueError: a version without a service, or a time without an offset.
        """
        with self._reading() as connection:
            past = _Past(connection, service)
            id_ = past.id_of(point, "from")
            written = past.secrets_written(id_, past.id_of(Point(), "to"))
            return tuple(
                past.settings(name, layer, written.get(name, set())) for name, layer in past.layers(id_).items()
            )

    def undone(self, service: ServiceName, entries: Sequence[int]) -> tuple[PastSettings, ...]:
        """What a service would have set if these entries of its history had not been, whatever came after them.

        Raises:
            UnknownEntries: some are none of its.
        """
        with self._reading() as connection:
            past = _Past(connection, service)
            undo = {
                id_: Undo(key, _value(old, hidden=False), bool(is_secret))
                for id_, key, old, is_secret in connection.execute(
                    sql.SELECT_ENTRIES, (service, orjson.dumps(list(entries)).decode())
                )
            }
            if unknown := tuple(each for each in entries if each not in undo):
                raise UnknownEntries(service, unknown)
            newest_first = [undo[id_] for id_ in sorted(undo, reverse=True)]
            return (past.settings(service, state_at(past.present[service], newest_first), set()),)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            # Not the connection that commits, which would wait for us: a reader of a WAL and its writer never do.
            with closing(
                sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            ) as connection:
                for pragma in sql.READING_PRAGMAS:
                    connection.execute(pragma)
                connection.execute(sql.BEGIN_READ)
                try:
                    yield connection
                finally:
                    rollback(connection)
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error

    def _entry(self, row: tuple[Any, ...], origins: Mapping[int, Any]) -> HistoryEntry:
        (id_, service, key, old, new, version, revision, changed_at, changed_by, reason, is_secret) = row
        schema = self._schema_of(service)
        hidden = bool(is_secret) or (schema is not None and key in schema.secret_keys)
        return HistoryEntry(
            id=id_,
            service=service,
            key=key,
            old_value=_value(old, hidden=hidden),
            new_value=_value(new, hidden=hidden),
            version=version,
            revision=revision,
            changed_at=datetime.fromisoformat(changed_at),
            changed_by=changed_by,
            change_reason=reason,
            is_secret=hidden,
            origin=origins.get(revision),
        )


class _Past:
    """What the history tells of one service or all, within one read transaction."""

    def __init__(self, connection: sqlite3.Connection, service: ServiceName | None) -> None:
        self._connection = connection
        self._service = service
        self.epoch, self.revision, self._made_at = connection.execute(sql.SELECT_META).fetchone()
        self.present, self._versions = _present(connection, service)

    def id_of(self, point: Point, side: Side) -> int:
        """Give the id of the last row that came before that point.

        Raises:
            NotReached: nobody knows what was in force then.
        """
        if point.version is not None:
            if self._service is None:
                raise ValueError("a version needs a service")
            self._reach_version(self._service, point.version, side)
            return self._last("version", point.version)
        if point.revision is not None:
            self._reach_revision(point.revision, side)
            return self._last("revision", point.revision)
        if point.moment is not None:
            moment = _bound(point.moment)
            self._reach_moment(moment, side)
            return self._last("changed_at", moment)
        return self._last("revision", self.revision)

    def layers(self, after: int) -> dict[ServiceName, Layer]:
        """Give what every service had set once that row had been written."""
        newer: dict[ServiceName, list[Undo]] = {}
        for service, key, old, is_secret, _ in self._connection.execute(*sql.undo(self._service, after)):
            newer.setdefault(service, []).append(Undo(key, _value(old, hidden=False), bool(is_secret)))
        return {service: state_at(layer, newer.get(service, ())) for service, layer in self.present.items()}

    def settings(self, service: ServiceName, then: Layer, written: AbstractSet[str]) -> PastSettings:
        """Tell what a service had set, beside what it is now. `written`: keys of secrets that were written since."""
        now = self.present[service].secrets
        secrets = (then.secrets ^ now) | (written & now)
        version = Version(self._versions[service])
        return PastSettings(service, version, self.epoch, then.values, tuple(sorted(secrets)))

    def secrets_written(self, after: int, until: int) -> dict[ServiceName, set[str]]:
        """Give the keys of secrets that were written between two points, by service."""
        written: dict[ServiceName, set[str]] = {}
        for service, key in self._connection.execute(*sql.secrets_written(self._service, after, until)):
            written.setdefault(service, set()).add(key)
        return written

    def _last(self, column: Any, value: Any) -> int:
        found = self._connection.execute(*sql.last_change(self._service, column, value)).fetchone()
        return 0 if found is None else int(found[0])

    def _reach_version(self, service: ServiceName, version: int, side: Side) -> None:
        current = self._versions[service]
        if version == current or self._one(sql.SELECT_HAS_CHANGE, service, version):
            return
        if version > current:
            raise NotReached(side, f"{service} has no version {version} yet; its newest is {current}.")
        oldest = self._oldest()
        known = oldest[service][0] - 1 if service in oldest else current
        if version < known and not self._whole():
            raise NotReached(
                side,
                f"The history of {service} goes back to version {known}; what was in version {version} is not known.",
            )
        if not self._one(sql.SELECT_MADE_VERSION, service, version):
            # A new life of the store begins above all versions that anybody may have seen.
            raise NotReached(side, f"This store has never had version {version} of {service}; name another one.")

    def _reach_revision(self, revision: int, side: Side) -> None:
        if revision > self.revision:
            raise NotReached(side, f"The store has no revision {revision} yet; its newest is {self.revision}.")
        known = max((first - 1 for first, _ in self._limits()), default=0)
        if revision < known and not self._whole():
            raise NotReached(
                side,
                f"The history goes back to revision {known}; what was in force at revision {revision} is not known.",
            )

    def _reach_moment(self, moment: str, side: Side) -> None:
        known = self._made_at
        if not self._whole():
            known = max((changed_at for _, changed_at in self._limits()), default=known)
        if moment < known:
            raise NotReached(side, f"The history goes back to {known}; what was in force at {moment} is not known.")

    def _whole(self) -> bool:
        return self._one(sql.SELECT_HISTORY_IS_WHOLE)

    def _oldest(self) -> dict[ServiceName, tuple[int, int, str]]:
        """Give version, revision and time of the oldest row of each service that has one."""
        found = self._connection.execute(*sql.oldest_changes(self._service))
        return {service: (version, revision, changed_at) for service, version, revision, changed_at, _ in found}

    def _limits(self) -> list[tuple[int, str]]:
        """Give revision and time of each service's oldest row, but for those whose first change that was."""
        return [(revision, changed_at) for version, revision, changed_at in self._oldest().values() if version > _FIRST]

    def _one(self, statement: str, *parameters: Any) -> bool:
        found = self._connection.execute(statement, parameters).fetchone()
        return found is not None and bool(found[0])


def _present(
    connection: sqlite3.Connection, service: ServiceName | None
) -> tuple[dict[ServiceName, Layer], dict[ServiceName, int]]:
    """Give what is set now, and the versions. Raises `UnknownService`."""
    secrets: dict[ServiceName, set[str]] = {}
    for name, key in connection.execute(*sql.secret_keys(service)):
        secrets.setdefault(name, set()).add(key)
    rows = connection.execute(*sql.layers(service)).fetchall()
    if service is not None and not rows:
        raise UnknownService(service)
    layers = {name: Layer(orjson.loads(config), secrets.get(name, frozenset())) for name, config, _ in rows}
    return layers, {name: version for name, _, version in rows}


def _origins(connection: sqlite3.Connection, revisions: set[int]) -> dict[int, Any]:
    """Give the origin of each of these commits that the access log still has."""
    if not revisions:
        return {}
    first, last = connection.execute(sql.SELECT_ACCESS_ENDS).fetchone()
    if first is None:
        return {}
    oldest = min(revisions)
    while first < last:
        middle = (first + last) // 2
        found = connection.execute(sql.SELECT_ACCESS_FROM, (middle,)).fetchone()
        if found is None or found[1] >= oldest:
            last = middle
        else:
            first = found[0] + 1
    wanted = orjson.dumps(sorted(revisions)).decode()
    return dict(connection.execute(sql.SELECT_ORIGINS, (first, wanted, len(revisions))).fetchall())


def _bound(moment: datetime | None) -> Any:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset from UTC")
    return timestamp(moment)


def _value(text: str | None, *, hidden: bool) -> Any:
    if text is None:
        return ABSENT
    return SECRET_MARK if hidden else orjson.loads(text)
