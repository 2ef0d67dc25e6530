"""A service's finished answer to GET."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from actors.board import ServiceView
from actors.service._decision import InForce, run_with
from schemas.records import StoredService
from schemas.service_schema import ServiceSchema


def make_view(schema: ServiceSchema, now: InForce, row: StoredService, environment: Mapping[str, str]) -> ServiceView:
    """Render both bodies, with and without `fields`."""
    head: dict[str, Any] = {
        "service": row.service,
        "config": run_with(schema, now),
        "version": row.version,
        "updated_at": row.updated_at,
        "config_epoch": row.config_epoch,
    }
    short = orjson.dumps(head)
    fields = schema.describe(stored=now.stored, environment=environment, secrets_set=now.secrets)
    # One object with one more member; the head's own bytes are not made twice.
    full = short[:-1] + b',"fields":' + orjson.dumps(fields) + b"}"
    return ServiceView(
        service=row.service,
        version=row.version,
        config_epoch=row.config_epoch,
        body=full,
        etag=_etag(row, full),
        body_without_fields=short,
        etag_without_fields=_etag(row, short),
    )


def _etag(row: StoredService, body: bytes) -> str:
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return f'"{row.config_epoch[:8]}-{row.version}-{digest}"'
