"""A service's answer to GET."""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from actors.board import Representation, ServiceView
from actors.exact import exact
from actors.service._decision import InForce, run_with
from schemas.records import StoredService
from schemas.service_schema import ServiceSchema


def make_view(schema: ServiceSchema, now: InForce, row: StoredService, environment: Mapping[str, str]) -> ServiceView:
    """Give what a GET answers. All of it is immutable, so rendering it later gives the same."""
    values = partial(run_with, schema, now)

    def short() -> tuple[bytes, str]:
        head: dict[str, Any] = {
            "service": row.service,
            "config": values(),
            "version": row.version,
            "updated_at": row.updated_at,
            "config_epoch": row.config_epoch,
        }
        body = exact(orjson.dumps(head))
        return body, _etag(row, body)

    without_fields = Representation(short)

    def full() -> tuple[bytes, str]:
        fields = schema.describe(stored=now.stored, environment=environment, secrets_set=now.secrets)
        # One object with one more member; the head's own bytes are not made twice.
        body = without_fields.body[:-1] + b',"fields":' + orjson.dumps(fields) + b"}"
        return body, _etag(row, body)

    return ServiceView(row.service, row.version, row.config_epoch, Representation(full), without_fields, schema, values)


def _etag(row: StoredService, body: bytes) -> str:
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return f'"{row.config_epoch[:8]}-{row.version}-{digest}"'
