"""What comes out: the whole state for a start, and pages of the history."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from actors.database import statements as sql
from actors.database._schema import rollback, timestamp
from schemas.records import (
    ABSENT,
    HistoryEntry,
    HistoryQuery,
    SealedSecret,
    StoredService,
    StoreState,
    StoreUnavailable,
)
from schemas.types import ServiceName

MAX_HISTORY = 1000
"""Entries of one page."""


def load(connection: sqlite3.Connection, path: Path, schema_version: int) -> StoreState:
    """Read everything a start needs, as of one moment.

    Raises:
        StoreUnavailable: a row does not hold what it has to.
        sqlite3.Error: the file cannot be read.
    """
    connection.execute(sql.BEGIN_READ)
    try:
        epoch, revision, created_at = connection.execute(sql.SELECT_META).fetchone()
        secrets: dict[ServiceName, dict[str, SealedSecret]] = {}
        for service, key, ciphertext, nonce, key_id in connection.execute(sql.SELECT_SECRETS):
            secrets.setdefault(service, {})[key] = SealedSecret(ciphertext, nonce, key_id)
        return StoreState(
            config_epoch=epoch,
            revision=revision,
            schema_version=schema_version,
            created_at=datetime.fromisoformat(created_at),
            services={each.service: each for each in _services(connection, path)},
            secrets=secrets,
        )
    finally:
        rollback(connection)


def _services(connection: sqlite3.Connection, path: Path) -> Iterator[StoredService]:
    for row in connection.execute(sql.SELECT_SERVICES):
        service, config_json, version, epoch, checksum, updated_at, updated_by, published, request_id = row
        try:
            config = _object(config_json)
            moment = datetime.fromisoformat(updated_at)
        except (ValueError, TypeError) as error:
            raise StoreUnavailable(
                f"The database {path} holds a row of {service!r} that cannot be read ({error}); restore a backup of it",
                "corrupted",
            ) from error
        yield StoredService(
            service=service,
            config=config,
            version=version,
            config_epoch=epoch,
            checksum=checksum,
            updated_at=moment,
            updated_by=updated_by,
            published_version=published,
            request_id=request_id,
        )


def _object(text: str) -> dict[str, Any]:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def history(connection: sqlite3.Connection, query: HistoryQuery) -> tuple[HistoryEntry, ...]:
    """Give one page, newest first.

    Raises:
        ValueError: the limit is out of bounds, or a time has no offset.
        sqlite3.Error: the file cannot be read.
    """
    if not 1 <= query.limit <= MAX_HISTORY:
        raise ValueError(f"limit must be from 1 to {MAX_HISTORY}, not {query.limit}")
    text, parameters = sql.history(
        service=query.service,
        key=query.key,
        start=_bound(query.start),
        end=_bound(query.end),
        before=query.before,
        limit=query.limit,
    )
    return tuple(_entry(row) for row in connection.execute(text, parameters))


def _bound(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset from UTC")
    return timestamp(moment)


def _entry(row: tuple[Any, ...]) -> HistoryEntry:
    (id_, service, key, old, new, version, revision, changed_at, changed_by, reason, is_secret) = row
    return HistoryEntry(
        id=id_,
        service=service,
        key=key,
        old_value=_value(old),
        new_value=_value(new),
        version=version,
        revision=revision,
        changed_at=datetime.fromisoformat(changed_at),
        changed_by=changed_by,
        change_reason=reason,
        is_secret=bool(is_secret),
    )


def _value(text: str | None) -> Any:
    return ABSENT if text is None else orjson.loads(text)
