"""Workers without processes: statuses that tests set, commands that they answer, and output that they print."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from actors import Board, Follower
from actors.output import Ring
from schemas.manifest import Differences
from schemas.messages import VersionMark
from schemas.states import Kind, Lifecycle
from schemas.status import EndStatus, Outcome, ReloadRefused, ServiceStatus, UnknownService, Verb

EPOCH = "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20"
SINCE = datetime(2026, 11, 20, 8, tzinfo=UTC)


def status(service: str, **changes: Any) -> ServiceStatus:
    usual = {
        "service": service,
        "kind": Kind.PROCESS,
        "state": Lifecycle.READY,
        "since": SINCE,
        "reason": "it says that it is ready",
        "wanted": True,
        "instance": f"{service}-1",
        "ends": (EndStatus(at=SINCE, instance="old", reason="killed", signal="SIGKILL", last_lines=("oh no",)),),
        "desired": VersionMark(config_epoch=EPOCH, version=1),
    }
    return ServiceStatus.model_validate({**usual, **changes})


@dataclass
class Asked:
    """A command as it came."""

    service: str | None
    verb: Verb
    dependants: bool
    rolling: bool
    by: str
    reason: str | None
    wait_s: float


class FakeOutput:
    """Like `Output`, without descriptors, files and threads."""

    def __init__(self, lines: int = 1000, size: int = 256 * 1024) -> None:
        self._ring = Ring[bytes](lines, size, len)
        self._sequence = 0

    def print(self, message: str, level: str = "info") -> None:
        self._sequence += 1
        self._ring.add(orjson.dumps({"sequence": self._sequence, "level": level, "message": message}) + b"\n")

    def tail(self, lines: int) -> list[bytes]:
        return self._ring.last(lines)

    def follow(self, lines: int = 0) -> Follower:
        return Follower(self._ring, max(self._ring.first, self._ring.next - lines), self._notice)

    def end(self) -> None:
        self._ring.end()

    def _notice(self, lost: int) -> bytes:
        return orjson.dumps({"sequence": None, "level": "warning", "lost": lost}) + b"\n"


class FakeWorkers:
    """`command` answers as `outcome` says; set `failure` to have it raise, clear `gate` to have it wait."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.commands: list[Asked] = []
        self.done = True
        self.trouble: dict[str, str] = {}
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.plan = Differences((), concurrent_starts=False)
        self.reloads: list[bool] = []
        self.mistakes: tuple[str, ...] = ()
        self.outputs = {"stt-worker": FakeOutput()}
        for service in ("stt-worker", "tts-worker"):
            board.statuses[service] = status(service)
        board.statuses["shared"] = status("shared", kind=Kind.CONFIG_ONLY, state=Lifecycle.CONFIG_ONLY, instance=None)

    async def reload(self, *, only_plan: bool) -> Differences:
        self.reloads.append(only_plan)
        if self.mistakes:
            raise ReloadRefused(self.mistakes)
        return self.plan

    async def command(
        self,
        service: str | None,
        verb: Verb,
        *,
        dependants: bool,
        rolling: bool,
        by: str,
        reason: str | None,
        wait_s: float,
    ) -> Outcome:
        self.commands.append(Asked(service, verb, dependants, rolling, by, reason, wait_s))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if service is not None and service not in self._board.statuses:
            raise UnknownService(f"There is no service {service}.")
        services = [each for name, each in self._board.statuses.items() if service in {None, name}]
        return Outcome(done=self.done, services=tuple(services), trouble=self.trouble)
