"""Whether store, cache and broker say the same: read from outside, each in its own way."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiomqtt
from tars_config import wire

from tests.system.program import Address


@dataclass(frozen=True)
class Row:
    version: int
    epoch: str
    config: dict[str, Any]


def stored(folder: Path) -> dict[str, Row]:
    """The rows that existing readers read."""
    rows = _read(folder, "SELECT service, version, config_epoch, config_json FROM service_configs")
    return {service: Row(version, epoch, json.loads(config)) for service, version, epoch, config in rows}


def history(folder: Path) -> set[tuple[str, int, str, str]]:
    """Service, version, key and new value (JSON text) of every change that is in the store."""
    return set(_read(folder, "SELECT service, version, key, new_value_json FROM config_history"))


def _read(folder: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{folder}/data/config.db?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def cached(folder: Path, key: bytes) -> dict[str, Any]:
    """The cache's payload; its HMAC must be right."""
    document = json.loads((folder / "data" / "config.lkg.json").read_bytes())
    signature = hmac.new(key, wire.canonical(document["payload"]), hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signature, document["signature"])
    payload: dict[str, Any] = document["payload"]
    return payload


class Retained:
    """A subscriber that keeps the last message of each topic, as a new one gets it."""

    def __init__(self, address: Address, topic_filter: str = "system/config/#") -> None:
        self._client = aiomqtt.Client(
            address.host, address.port, username=address.user, password=address.password, keepalive=20
        )
        self._filter = topic_filter
        self.messages: dict[str, bytes] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._client.subscribe(self._filter, qos=1)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._client.__aexit__(None, None, None)

    async def _listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            self.messages[str(message.topic)] = message.payload
            self._news.set()

    async def until(self, wanted: dict[str, Row], timeout: float) -> None:
        """Wait until each service's message is signed content of exactly the wanted epoch and version."""
        async with asyncio.timeout(timeout):
            while self.missing(wanted):
                self._news.clear()
                await self._news.wait()

    def missing(self, wanted: dict[str, Row]) -> list[str]:
        return [service for service, row in wanted.items() if self._seen(service) != (row.epoch, row.version)]

    def _seen(self, service: str) -> tuple[str, int] | None:
        payload = self.messages.get(f"system/config/{service}")
        if not payload:
            return None
        update = wire.decode(payload)
        return update.config_epoch, update.version

    def config(self, service: str) -> dict[str, Any]:
        return dict(wire.decode(self.messages[f"system/config/{service}"]).config)
