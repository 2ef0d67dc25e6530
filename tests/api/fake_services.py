"""Two small services with real versions: what the service actors do, without a store."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from actors import Board, Representation, ServiceView
from schemas.changes import ChangeAccepted, ConfigChange, GroupAccepted, StaleVersion
from schemas.plans import ChangePlan
from schemas.problems import ConfigInvalid, unknown_keys
from schemas.restores import Restore, Restored
from schemas.service_schema import ServiceSchema
from tests.api.fake_workers import FakeWorkers

EPOCH = "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20"
DEFAULTS: Mapping[str, Any] = {"vad_threshold": 0.5, "log_level": "info", "sample_rate": 16000}


class FakeModel(BaseModel):
    """Two of the three; a model's setting may not have the name of the third."""

    vad_threshold: float = 0.5
    sample_rate: int = 16000


SCHEMA = ServiceSchema("stt-worker", FakeModel)


class FakeServices:
    """`change` answers as the actors do; set `failure` to have it raise, clear `gate` to have it wait."""

    def __init__(self) -> None:
        self.board = Board()
        self.workers = FakeWorkers(self.board)
        self.stored: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.made_by: dict[str, str] = {}
        self.changes: list[ConfigChange] = []
        self.plans: list[ConfigChange] = []
        self.restores: list[tuple[Restore, bool]] = []
        self.restored = Restored(GroupAccepted(None, {}), (), {}, {})
        self.planned = ChangePlan("stt-worker", 1, EPOCH, (), (), (), "Nothing would be different.")
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        for name in ("stt-worker", "tts-worker"):
            self.stored[name], self.versions[name], self.made_by[name] = {}, 1, "start"
            self._publish(name)

    async def change(self, change: ConfigChange) -> ChangeAccepted:
        self.changes.append(change)
        self.entered.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        name, current = change.service, self.versions[change.service]
        if change.expected_version != current or change.expected_epoch not in {None, EPOCH}:
            assert change.expected_version is not None
            raise StaleVersion(change.expected_version, current, EPOCH, self.made_by[name])
        if errors := unknown_keys([key for key in change.config if key not in DEFAULTS], tuple(DEFAULTS)):
            raise ConfigInvalid(errors)
        stored = {**self.stored[name], **change.config} if change.merge else dict(change.config)
        stored = {key: value for key, value in stored.items() if value is not None}
        if stored == self.stored[name]:
            return ChangeAccepted(current, EPOCH, None, (), (), "Nothing differs.")
        self.stored[name], self.versions[name] = stored, current + 1
        self.made_by[name] = change.request_id
        self._publish(name)
        return ChangeAccepted(current + 1, EPOCH, current, tuple(change.config), (), "Changed.")

    async def plan(self, change: ConfigChange) -> ChangePlan:
        """Give `planned`, once version and epoch agree."""
        self.plans.append(change)
        current = self.versions[change.service]
        if change.expected_version != current or change.expected_epoch not in {None, EPOCH}:
            assert change.expected_version is not None
            raise StaleVersion(change.expected_version, current, EPOCH, self.made_by[change.service])
        return self.planned

    async def restore(self, wanted: Restore, *, only_plan: bool) -> Restored:
        """Give `restored`, or raise `failure`."""
        self.restores.append((wanted, only_plan))
        if self.failure is not None:
            raise self.failure
        return self.restored

    def _publish(self, name: str) -> None:
        version = self.versions[name]
        shown: dict[str, Any] = {
            "service": name,
            "config": {**DEFAULTS, **self.stored[name]},
            "version": self.versions[name],
            "updated_at": "2026-11-20T08:00:00+00:00",
            "config_epoch": EPOCH,
        }
        full, short = (representation(orjson.dumps(each), version) for each in ({**shown, "fields": []}, shown))
        config: dict[str, Any] = shown["config"]
        self.board.services[name] = ServiceView(name, version, EPOCH, full, short, SCHEMA.of(name), lambda: config)


def large_view(size: int) -> ServiceView:
    """A service called `large` whose GET answers with so many bytes."""
    full, short = representation(bytes(size)), representation(b"")
    return ServiceView("large", 1, EPOCH, full, short, SCHEMA.of("large"), SCHEMA.defaults)


def representation(body: bytes, version: int = 1) -> Representation:
    """What a GET answers with; the ETag follows from the body."""
    etag = f'"{EPOCH[:8]}-{version}-{hashlib.sha256(body).hexdigest()[:16]}"'
    return Representation(lambda: (body, etag))
