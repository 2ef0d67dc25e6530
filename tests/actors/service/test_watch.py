"""From what a worker says, and what is asked, to the events of its life."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from signal import SIGABRT
from typing import Any

import pytest

from actors.process import Command
from actors.service._events import Condemned, Ready, Unhealthy
from actors.service._watch import Watch
from schemas.manifest import DelayProbe, ExecProbe, HealthTopicProbe, LogLineProbe, NoProbe, NotifyProbe, Service
from tests.support import eventually


def service(**options: Any) -> Service:
    return Service(name="lamp", command=("lamp",), model="lamp", health_topic="system/health/lamp", **options)


def command(argv: tuple[str, ...]) -> Command:
    return Command(argv, Path("/"), {"PATH": os.environ["PATH"]})


@contextlib.asynccontextmanager
async def watching(*, begin: bool = True, **options: Any) -> Any:
    told: list[Any] = []
    watch = Watch(service(**options), "i1", told.append, command)
    if begin:
        watch.began(os.getpid())
    assert told == []
    try:
        yield watch, told
    finally:
        watch.close()
        watch.close()
        said = list(told)
        async with asyncio.timeout(30):
            await watch.gone()
        watch.heard(True, "late")
        assert told == said


async def test_the_health_topic_alone() -> None:
    async with watching() as (watch, told):
        watch.heard(False, "loading the model")
        watch.heard(True, "ready")
        watch.heard(False, "no microphone")
        watch.heard(True, "healthy")
    assert told == [
        Unhealthy("i1", "loading the model"),
        Ready("i1", "ready"),
        Unhealthy("i1", "no microphone"),
        Ready("i1", "healthy"),
    ]


async def test_a_good_word_is_not_readiness_where_another_probe_decides() -> None:
    async with watching(readiness=LogLineProbe(pattern="^up$")) as (watch, told):
        assert watch.listens
        watch.heard(True, "ready")
        watch.heard(False, "loading")
        watch.line("up")
        assert not watch.listens
        watch.heard(False, "too hot")
    assert told == [Unhealthy("i1", "loading"), Ready("i1", "it wrote: up"), Unhealthy("i1", "too hot")]


async def test_liveness_begins_with_readiness() -> None:
    liveness = HealthTopicProbe(failure_threshold=1)
    async with watching(readiness=DelayProbe(after=0.0), liveness=liveness) as (watch, told):
        watch.heard(False, "not yet")
        await eventually(lambda: Ready("i1", "it has run for 0 s") in told)
        watch.heard(False, "lost")
    assert told[-2:] == [Condemned("i1", "its liveness probe failed: lost"), Unhealthy("i1", "lost")]


async def test_reports_that_anybody_may_write_are_shown_and_end_nothing() -> None:
    told: list[Any] = []
    liveness = HealthTopicProbe(failure_threshold=1, stale_after=1)
    watch = Watch(service(liveness=liveness), "i1", told.append, command, believes_reports=False)
    watch.began(1, ready=True)
    watch.heard(False, "lost")
    watch.close()
    assert told == [Unhealthy("i1", "lost")]


async def test_no_probe_of_readiness_is_ready_at_once() -> None:
    async with watching(readiness=NoProbe()) as (_, told):
        await eventually(lambda: told == [Ready("i1", "running")])


async def test_one_that_was_ready_before_is_not_asked_again() -> None:
    failing = ExecProbe(command=("false",), start_period=0, failure_threshold=1)
    async with watching(begin=False, readiness=LogLineProbe(pattern="x"), liveness=failing) as (watch, told):
        watch.began(os.getpid(), ready=True)
        watch.began(os.getpid())  # nothing is begun twice
        assert not watch.listens
        await eventually(lambda: told == [Condemned("i1", "its liveness probe failed: false exited with 1")])


async def test_closed_by_whom_it_tells_in_the_middle_of_a_word() -> None:
    told: list[Any] = []
    liveness = HealthTopicProbe(failure_threshold=1)
    watch = Watch(service(liveness=liveness), "i1", lambda sign: (told.append(sign), watch.close()), command)  # type: ignore[arg-type, func-returns-value]
    watch.began(1, ready=True)
    watch.heard(False, "lost")
    assert told == [Condemned("i1", "its liveness probe failed: lost")]
    await watch.gone()


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        yield sender


async def test_notify_and_watchdog(tmp_path: Path, sender: socket.socket) -> None:
    spec = {"readiness": NotifyProbe(), "watchdog": 0.1}
    async with watching(begin=False, **spec) as (watch, told):
        path = watch.open(tmp_path / "notify")
        assert path is not None
        watch.began(os.getpid())
        sender.connect(str(path))
        sender.send(b"STATUS=loading")
        sender.send(b"WATCHDOG=1")
        sender.send(b"READY=1\nSTATUS=loaded")
        sender.send(b"STATUS=listening")
        await eventually(lambda: len(told) >= 4)
    assert told == [
        Unhealthy("i1", "loading"),
        Ready("i1", "loaded"),
        Ready("i1", "listening"),
        Condemned("i1", "its watchdog has heard nothing for 0.1 s", SIGABRT),
    ]
    assert not path.exists()


async def test_it_triggers_its_watchdog_and_says_that_it_stops(tmp_path: Path, sender: socket.socket) -> None:
    async with watching(begin=False, readiness=NotifyProbe(), watchdog=3600.0, grace=0.05) as (watch, told):
        sender.connect(str(watch.open(tmp_path / "notify")))
        watch.began(os.getpid())
        sender.send(b"READY=1")
        sender.send(b"WATCHDOG=trigger")
        sender.send(b"STOPPING=1")
        await eventually(lambda: len(told) == 3)
    assert told == [
        Ready("i1", "ready"),
        Condemned("i1", "it has triggered its watchdog itself", SIGABRT),
        Condemned("i1", "it said that it stops, and did not within 0.05 s"),
    ]


async def test_no_socket_where_none_is_wanted(tmp_path: Path) -> None:
    async with watching(begin=False) as (watch, _):
        assert watch.open(tmp_path / "notify") is None
        assert not (tmp_path / "notify").exists()
