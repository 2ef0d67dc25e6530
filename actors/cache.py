"""The last-known-good cache (LKG): one file with every service's configuration, under an HMAC.

It is derived from the store and rebuilt from it at every start, so no caller waits for it: changes are coalesced into one
write at a time. What is re-serialised for a change is the changed service alone.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from tars_config.wire import canonical

from actors.files import write_atomically
from actors.runtime import Actor

ALGORITHM = "hmac-sha256"
PAUSE = 0.2
"""Seconds between two writes: the most that a power cut can make the file lag behind the store, besides the write itself."""

MAX_FILE_SIZE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One service as it is on the wire. `config_canonical` is its canonical JSON."""

    service: str
    config_canonical: bytes
    checksum: str
    version: int


class CacheInvalid(Exception):
    """The file is not what was written: cut, changed, of another key, or not readable. The message says which."""


class CacheActor(Actor):
    """Keeps the file in step with what it is told.

    `on_state(valid, detail)` is called after each write that changed whether the file is right.
    """

    def __init__(self, path: Path, key: bytes, on_state: Callable[[bool, str], None]) -> None:
        super().__init__()
        self._path = path
        self._key = key
        self._on_state = on_state
        self._entries: dict[str, CacheEntry] = {}
        self._epoch = ""
        self._revision = 0
        self._dirty = False
        self._writing: asyncio.Task[Any] | None = None
        # Of its own, since an fsync may take long and must not hold up anybody else's work.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="cache")

    async def on_stop(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        if self._dirty:
            await self._write()
        self._disk.shutdown()

    def on_failure(self, *_reason: object) -> None:
        self._disk.shutdown(wait=False)

    def replace(self, config_epoch: str, revision: int, entries: Sequence[CacheEntry]) -> None:
        """Forget everything and hold these, as after a start."""
        self._entries = {entry.service: entry for entry in sorted(entries, key=lambda entry: entry.service)}
        self._epoch = config_epoch
        self._revision = revision
        self._changed()

    def update(self, revision: int, entry: CacheEntry) -> None:
        """Take one service's new version. An older one than is held is ignored."""
        held = self._entries.get(entry.service)
        if held is not None and held.version > entry.version:
            return
        if held is None:
            entries = [*self._entries.values(), entry]
            self._entries = {each.service: each for each in sorted(entries, key=lambda each: each.service)}
        else:
            self._entries[entry.service] = entry
        self._revision = max(self._revision, revision)
        self._changed()

    def _changed(self) -> None:
        self._dirty = True
        if self._writing is None:
            self._writing = self.spawn(self._write_until_clean(), name="cache writer")

    async def _write_until_clean(self) -> None:
        try:
            while self._dirty:
                await self._write()
                await asyncio.sleep(PAUSE)
        finally:
            self._writing = None

    async def _write(self) -> None:
        self._dirty = False
        document = self._document()
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, write_atomically, self._path, document)
        except OSError as error:
            self._dirty = True
            self._on_state(False, f"{self._path} could not be written: {error.strerror}")
        else:
            self._on_state(True, "")

    def _document(self) -> bytes:
        payload = _payload(self._epoch, datetime.now(UTC), self._revision, self._entries)
        signature = hmac.new(self._key, payload, hashlib.sha256).hexdigest()
        return b'{"payload":%b,"signature":"%b","algorithm":"%b"}' % (
            payload,
            signature.encode(),
            ALGORITHM.encode(),
        )


def read_cache(path: Path, key: bytes) -> dict[str, Any]:
    """Give the signed payload of the file.

    Raises:
        CacheInvalid: see there. Also where the file is missing.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise CacheInvalid(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_SIZE:
        raise CacheInvalid(f"{path} is larger than {MAX_FILE_SIZE} bytes")
    try:
        document = orjson.loads(raw)
        payload = document["payload"]
        signature = document["signature"]
        expected = hmac.new(key, canonical(payload), hashlib.sha256).hexdigest()
        right = isinstance(signature, str) and hmac.compare_digest(signature.encode(), expected.encode())
    except (ValueError, KeyError, TypeError):
        raise CacheInvalid(f"{path} is not a cache file, or was cut short") from None
    if not right or not isinstance(payload, dict):
        raise CacheInvalid(f"{path} was changed by somebody else, or signed with another key")
    return payload


def _payload(epoch: str, now: datetime, revision: int, entries: Mapping[str, CacheEntry]) -> bytes:
    """Give the canonical JSON of the signed payload, put together from each service's own.

    Sorted keys: checksums, config_epoch, generated_at, payload, revision, versions.
    """
    # Service names have an alphabet that JSON does not escape.
    checksums = ",".join(f'"{name}":"{entry.checksum}"' for name, entry in entries.items())
    versions = ",".join(f'"{name}":{entry.version}' for name, entry in entries.items())
    configs = b",".join(b'"%b":%b' % (name.encode(), entry.config_canonical) for name, entry in entries.items())
    head = f'{{"checksums":{{{checksums}}},"config_epoch":"{epoch}","generated_at":"{now.isoformat()}","payload":{{'
    tail = f'}},"revision":{revision},"versions":{{{versions}}}}}'
    return head.encode() + configs + tail.encode()
