"""What comes out for a start: the whole state."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from actors.database import statements as sql
from actors.database._schema import rollback
from schemas.records import SealedSecret, StoredService, StoreState, StoreUnavailable
from schemas.types import ServiceName


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
