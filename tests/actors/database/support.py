"""Requests to the store, and looks at its files from outside."""

import hashlib
import itertools
import sqlite3
import struct
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from actors.database import DatabaseActor, HistoryActor
from actors.runtime import Handle
from schemas.records import (
    Change,
    CommitRequest,
    HistoryChange,
    ItemRow,
    NewService,
    SecretChange,
    StoredService,
)
from schemas.service_schema import ServiceSchema
from schemas.services import TtsWorker
from schemas.types import Checksum, Epoch, ServiceName, Version

Database = Handle[DatabaseActor]
History = Handle[HistoryActor]

STT = ServiceName("stt-worker")
TTS = ServiceName("tts-worker")
ROUTER = ServiceName("router")

SCHEMAS = {str(TTS): ServiceSchema(TTS, TtsWorker)}
"""The models that the history's actor knows; of the other services it knows none."""

ANY_CHECKSUM = Checksum("0" * 64)

_numbers = itertools.count(1)


def checksum(config: Mapping[str, Any]) -> Checksum:
    return Checksum(hashlib.sha256(orjson.dumps(config, option=orjson.OPT_SORT_KEYS)).hexdigest())


def new(*services: ServiceName) -> tuple[NewService, ...]:
    return tuple(NewService(service, checksum({})) for service in services)


def change(
    service: ServiceName,
    expected: int,
    config: Mapping[str, Any],
    *,
    history: tuple[HistoryChange, ...] = (),
    items: tuple[ItemRow, ...] = (),
    secrets: tuple[SecretChange, ...] = (),
    epoch: Epoch | None = None,
    on_the_wire: Checksum | None = None,
) -> Change:
    return Change(
        service=service,
        config=config,
        expected_version=Version(expected),
        checksum=on_the_wire or checksum(config),
        expected_epoch=epoch,
        history=history,
        items=items,
        secrets=secrets,
    )


def request(*changes: Change, request_id: str | None = None, reason: str | None = None) -> CommitRequest:
    return CommitRequest(
        changes=changes,
        changed_by="owner",
        origin="rest",
        request_id=request_id or f"request-{next(_numbers)}",
        reason=reason,
        address="127.0.0.1",
    )


async def stored(database: Database, service: ServiceName) -> StoredService:
    state = await database.ask(DatabaseActor.load)
    return state.services[service]


def rows(path: Path, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Read with a connection of our own, as another program would."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query, parameters).fetchall()


def log_commits(path: Path) -> tuple[bytes, int]:
    """The salt of the log's present round, and how many transactions it holds: each is one fsync."""
    salt, sizes = _log(path)
    return salt, sum(size != 0 for size in sizes)


def pages_of_last_commit(path: Path) -> int:
    """Pages that the last transaction of the log's present round has written."""
    _, sizes = _log(path)
    ends = [number for number, size in enumerate(sizes) if size]
    return ends[-1] - ends[-2]


def _log(path: Path) -> tuple[bytes, list[int]]:
    """The salt of the log's present round; and for each frame the database's size, where it ends a transaction, or zero.

    https://www.sqlite.org/fileformat2.html section 4.
    """
    content = path.with_name(path.name + "-wal").read_bytes()
    (page_size,) = struct.unpack_from(">8xI", content)
    salt = content[16:24]
    sizes = []
    for offset in range(32, len(content) - 24 - page_size + 1, 24 + page_size):
        _page, size_after = struct.unpack_from(">II", content, offset)
        if content[offset + 8 : offset + 16] != salt:
            break
        sizes.append(size_after)
    return salt, sizes
