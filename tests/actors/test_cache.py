"""The last-known-good file: what stands in it, that it is whole, and that only its key makes one."""

import asyncio
import json
from pathlib import Path

import pytest
from tars_config.wire import canonical, checksum

from actors import cache
from actors.cache import CacheActor, CacheEntry, CacheInvalid, read_cache
from tests.support import eventually

KEY = b"k" * 32
EPOCH = "7a77eccc-6606-4cda-b273-59fce21ce739"


def entry(service: str, version: int, **config: object) -> CacheEntry:
    return CacheEntry(service, canonical(config), checksum(config), version)


class Told:
    def __init__(self) -> None:
        self.states: list[tuple[bool, str]] = []

    def __call__(self, valid: bool, detail: str) -> None:
        self.states.append((valid, detail))


async def test_the_file_holds_every_service_under_an_hmac(tmp_path: Path) -> None:
    path = tmp_path / "config.lkg.json"
    told = Told()
    ref = CacheActor.start(path, KEY, told)
    await ref.started
    ref.proxy().replace(EPOCH, 7, [entry("b", 2, text="ü"), entry("a", 1, on=True)])
    await eventually(lambda: told.states)
    await ref.stop(block=False)
    assert path.stat().st_mode & 0o777 == 0o600
    payload = read_cache(path, KEY)
    assert payload["payload"] == {"a": {"on": True}, "b": {"text": "ü"}}
    assert payload["versions"] == {"a": 1, "b": 2}
    assert payload["checksums"]["a"] == checksum({"on": True})
    assert (payload["config_epoch"], payload["revision"]) == (EPOCH, 7)
    document = json.loads(path.read_bytes())
    assert set(document) == {"payload", "signature", "algorithm"}
    assert document["algorithm"] == "hmac-sha256"
    assert told.states[0] == (True, "")


async def test_changes_are_coalesced_and_the_last_is_there_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "config.lkg.json"
    told = Told()
    ref = CacheActor.start(path, KEY, told)
    proxy = ref.proxy()
    proxy.replace(EPOCH, 1, [entry("a", 1, n=1)])
    for version in range(2, 500):
        proxy.update(version, entry("a", version, n=version))
    proxy.update(2, entry("a", 3, n=3))  # an older one that comes late changes nothing
    proxy.update(500, entry("new", 1, n=0))
    await ref.stop(block=False)
    payload = read_cache(path, KEY)
    assert payload["versions"] == {"a": 499, "new": 1}
    assert payload["payload"]["a"] == {"n": 499}
    assert payload["revision"] == 500
    assert len(told.states) < 20


async def test_a_file_that_cannot_be_written_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PAUSE", 0.01)
    folder = tmp_path / "gone"
    told = Told()
    ref = CacheActor.start(folder / "config.lkg.json", KEY, told)
    ref.proxy().replace(EPOCH, 1, [entry("a", 1)])
    await eventually(lambda: told.states)
    assert told.states[0][0] is False
    assert "No such file" in told.states[0][1]
    folder.mkdir()
    await eventually(lambda: told.states[-1][0])
    await ref.stop(block=False)
    assert read_cache(folder / "config.lkg.json", KEY)["versions"] == {"a": 1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-40],
        lambda raw: raw.replace(b'"n":1', b'"n":2'),
        lambda raw: b"",
        lambda raw: b"[]",
        lambda raw: b'{"payload":1,"signature":null}',
        lambda raw: b"\xff",
    ],
)
async def test_a_spoilt_file_is_not_taken(tmp_path: Path, spoil: "object") -> None:
    path = tmp_path / "config.lkg.json"
    ref = CacheActor.start(path, KEY, Told())
    ref.proxy().replace(EPOCH, 1, [entry("a", 1, n=1)])
    await ref.stop(block=False)
    raw = path.read_bytes()
    assert callable(spoil)
    path.write_bytes(spoil(raw))
    with pytest.raises(CacheInvalid):
        read_cache(path, KEY)
    path.write_bytes(raw)
    with pytest.raises(CacheInvalid, match="another key"):
        read_cache(path, b"x" * 32)
    with pytest.raises(CacheInvalid, match="cannot be read"):
        read_cache(tmp_path / "nowhere", KEY)


async def test_a_cancelled_actor_leaves_no_thread(tmp_path: Path) -> None:
    ref = CacheActor.start(tmp_path / "config.lkg.json", KEY, Told())
    await ref.started
    ref.proxy().replace(EPOCH, 1, [entry("a", 1)])
    await asyncio.sleep(0)
    ref.cancel()
    await ref.exited
