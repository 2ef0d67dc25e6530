"""The last-known-good file: what stands in it, that it is whole, and that only its key makes one."""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tars_config.wire import canonical, checksum

from actors import cache
from actors.cache import CacheActor, CacheContents, CacheEntry, CacheInvalid, read_cache
from actors.runtime import ChildSpec, Handle, Ref, Supervisor
from tests.support import eventually

KEY = b"k" * 32
EPOCH = "7a77eccc-6606-4cda-b273-59fce21ce739"
OTHER_EPOCH = "7a77eccc-6606-4cda-b273-59fce21ce740"


def entry(service: str, version: int, **config: object) -> CacheEntry:
    return CacheEntry(service, canonical(config), checksum(config), version)


def contents(*entries: CacheEntry, revision: int = 1) -> CacheContents:
    made = CacheContents()
    made.replace(EPOCH, revision, entries)
    return made


class Told:
    def __init__(self) -> None:
        self.states: list[tuple[bool, str]] = []

    def __call__(self, valid: bool, detail: str) -> None:
        self.states.append((valid, detail))


@contextlib.asynccontextmanager
async def running(path: Path, held: CacheContents, told: Told | None = None) -> AsyncIterator[Ref[CacheActor]]:
    ref = CacheActor.start(path, KEY, held, told or Told())
    await ref.started
    try:
        yield ref
    finally:
        async with asyncio.timeout(30):
            await ref.stop(block=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.lkg.json"


async def test_the_file_holds_every_service_under_an_hmac(path: Path) -> None:
    told = Told()
    async with running(path, contents(entry("b", 2, text="ü"), entry("a", 1, on=True), revision=7), told):
        await eventually(lambda: told.states)
    assert path.stat().st_mode & 0o777 == 0o600
    payload = read_cache(path, KEY)
    assert payload["payload"] == {"a": {"on": True}, "b": {"text": "ü"}}
    assert payload["versions"] == {"a": 1, "b": 2}
    assert payload["checksums"]["a"] == checksum({"on": True})
    assert (payload["config_epoch"], payload["revision"]) == (EPOCH, 7)
    document = json.loads(path.read_bytes())
    assert set(document) == {"payload", "signature", "algorithm"}
    assert document["algorithm"] == "hmac-sha256"
    assert told.states == [(True, "")]


async def test_nothing_is_written_before_there_is_something(path: Path) -> None:
    async with running(path, CacheContents()):
        pass
    assert not path.exists()


async def test_changes_are_coalesced_and_the_last_is_there_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    original = cache.write_atomically
    monkeypatch.setattr(cache, "write_atomically", lambda *args: (writes.append(args[1]), original(*args)))
    held = contents(entry("a", 1, n=1))
    async with running(path, held) as ref:
        for version in range(2, 500):
            held.update(EPOCH, version, entry("a", version, n=version))
            ref.proxy().changed()
        held.update(EPOCH, 2, entry("a", 3, n=3))  # an older one that comes late changes nothing
        held.update(EPOCH, 500, entry("new", 1, n=0))
        ref.proxy().changed()
    payload = read_cache(path, KEY)
    assert payload["versions"] == {"a": 499, "new": 1}
    assert payload["payload"]["a"] == {"n": 499}
    assert payload["revision"] == 500
    assert len(writes) < 20


def test_a_new_epoch_may_begin_below() -> None:
    held = contents(entry("a", 9, n=9), entry("b", 1))
    held.update(OTHER_EPOCH, 10, entry("a", 3, n=3))
    snapshot = held.snapshot()
    assert snapshot.config_epoch == OTHER_EPOCH
    assert [(each.service, each.version) for each in snapshot.entries] == [("a", 3), ("b", 1)]


def test_the_writer_is_told_once_for_all_changes_between_two_snapshots() -> None:
    held = contents(entry("a", 1), entry("b", 1))
    assert held.update(EPOCH, 2, entry("a", 2))
    assert not held.update(EPOCH, 3, entry("b", 2))
    assert not held.update(EPOCH, 3, entry("b", 1))
    held.snapshot()
    assert not held.update(EPOCH, 3, entry("b", 1))
    assert held.update(EPOCH, 4, entry("b", 3))


async def test_a_restart_of_the_actor_loses_nothing(path: Path) -> None:
    """Neither what it held, nor what was changed while it was down, although nobody tells the new one anything."""
    held = contents(entry("a", 1, n=1), entry("b", 1))
    handle: Handle[CacheActor] = Handle("cache")
    refs: list[Ref[CacheActor]] = []

    def start() -> Ref[CacheActor]:
        if refs:
            path.unlink(missing_ok=True)
            held.update(EPOCH, 2, entry("a", 2, n=2))
        refs.append(CacheActor.start(path, KEY, held, Told()))
        return refs[-1]

    supervisor = Supervisor.start([ChildSpec(handle, start)])
    await supervisor.started
    await eventually(path.exists)
    refs[0].cancel()
    await eventually(lambda: len(refs) == 2)
    await eventually(path.exists)
    payload = read_cache(path, KEY)
    assert payload["versions"] == {"a": 2, "b": 1}
    assert payload["config_epoch"] == EPOCH
    await supervisor.stop(block=False)


async def test_a_file_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PAUSE", 0.001)
    monkeypatch.setattr(cache, "LONGEST_PAUSE", 0.01)
    attempts: list[Path] = []
    original = cache.write_atomically
    monkeypatch.setattr(cache, "write_atomically", lambda *args: (attempts.append(args[0]), original(*args)))
    folder = tmp_path / "gone"
    told = Told()
    async with running(folder / "config.lkg.json", contents(entry("a", 1)), told):
        await eventually(lambda: len(attempts) > 3)
        folder.mkdir()
        await eventually(lambda: told.states[-1][0])
    assert [valid for valid, _ in told.states] == [False, True]
    assert "No such file" in told.states[0][1]
    assert read_cache(folder / "config.lkg.json", KEY)["versions"] == {"a": 1}


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_an_end_in_the_middle_of_a_write(path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A slow disk: the end waits for the write, and an orderly one then writes what came meanwhile."""
    begun, go_on = threading.Event(), threading.Event()
    original = cache.write_atomically

    def slow(target: Path, data: bytes) -> None:
        begun.set()
        assert go_on.wait(30)
        original(target, data)

    monkeypatch.setattr(cache, "write_atomically", slow)
    held = contents(entry("a", 1))
    ref = CacheActor.start(path, KEY, held, Told())
    await eventually(begun.is_set)
    held.update(EPOCH, 2, entry("a", 2))
    if end == "stop":
        ref.stop(block=False)
    else:
        ref.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not ref.exited.settled
    go_on.set()
    async with asyncio.timeout(30):
        await ref.exited.wait()
    assert read_cache(path, KEY)["versions"] == {"a": 2 if end == "stop" else 1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-40],
        lambda raw: raw.replace(b'"n":1', b'"n":2'),
        lambda raw: b"",
        lambda raw: b"[]",
        lambda raw: b"null",
        lambda raw: b'{"payload":1,"signature":null}',
        lambda raw: b'{"payload":' + b"[" * 5000 + b"]" * 5000 + b',"signature":""}',
        lambda raw: b"\xff",
    ],
)
async def test_a_spoilt_file_is_not_taken(path: Path, spoil: Callable[[bytes], bytes]) -> None:
    async with running(path, contents(entry("a", 1, n=1))):
        pass
    raw = path.read_bytes()
    path.write_bytes(spoil(raw))
    with pytest.raises(CacheInvalid):
        read_cache(path, KEY)
    path.write_bytes(raw)
    with pytest.raises(CacheInvalid, match="another key"):
        read_cache(path, b"x" * 32)


def test_a_file_that_is_not_there_or_too_large(path: Path) -> None:
    with pytest.raises(CacheInvalid, match="cannot be read"):
        read_cache(path, KEY)
    with path.open("wb") as file:
        os.truncate(file.fileno(), cache.MAX_FILE_SIZE + 1)
    with pytest.raises(CacheInvalid, match="larger"):
        read_cache(path, KEY)
