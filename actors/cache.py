"""The last-known-good cache (LKG): one file with every service's configuration, under an HMAC.

It is derived from the store and rebuilt from it at every start, so no caller waits for it: changes are coalesced into one
write at a time. What is re-serialised for a change is the changed service alone; the rest is put together and signed off
the loop.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterable
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

LONGEST_PAUSE = 10.0
"""Seconds between two attempts where the file cannot be written."""

MAX_FILE_SIZE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One service as it is on the wire. `config_canonical` is its canonical JSON."""

    service: str
    config_canonical: bytes
    checksum: str
    version: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    config_epoch: str
    revision: int
    entries: tuple[CacheEntry, ...]


class CacheContents:
    """What the file shall hold. It belongs to who wires the program and outlives the actor that writes the file, so that
    neither a restart of that one nor a message that it never got loses anything. Used on the loop's thread only.
    """

    def __init__(self) -> None:
        self._entries: dict[str, CacheEntry] = {}
        self._epoch = ""
        self._revision = 0
        self._taken = True

    def __bool__(self) -> bool:
        return bool(self._epoch)

    def replace(self, config_epoch: str, revision: int, entries: Iterable[CacheEntry]) -> None:
        """Forget everything and hold these, as after a start."""
        self._entries = {entry.service: entry for entry in sorted(entries, key=lambda entry: entry.service)}
        self._epoch = config_epoch
        self._revision = revision

    def update(self, config_epoch: str, revision: int, entry: CacheEntry) -> bool:
        """Take one service's new version; true for the first since the last snapshot, so that the writer is told once.

        An older one of the same epoch than is held is ignored.
        """
        held = self._entries.get(entry.service)
        if held is not None and config_epoch == self._epoch and held.version > entry.version:
            return False
        if held is None:
            self.replace(config_epoch, max(self._revision, revision), [*self._entries.values(), entry])
        else:
            self._entries[entry.service] = entry
            self._epoch = config_epoch
            self._revision = max(self._revision, revision)
        first, self._taken = self._taken, False
        return first

    def remove(self, services: Iterable[str]) -> None:
        """Forget these: they left the manifest."""
        gone = set(services)
        self._entries = {name: entry for name, entry in self._entries.items() if name not in gone}

    def snapshot(self) -> _Snapshot:
        self._taken = True
        return _Snapshot(self._epoch, self._revision, tuple(self._entries.values()))


class CacheInvalid(Exception):
    """The file is not what was written: cut, changed, of another key, or not readable. The message says which."""


class CacheActor(Actor):
    """Keeps the file in step with `contents`. What changes those says so (`changed`); a start writes them anyway.

    `on_state(valid, detail)` is called, on the loop, when it becomes known whether the file is right, and when that or
    the reason changes.
    """

    def __init__(self, path: Path, key: bytes, contents: CacheContents, on_state: Callable[[bool, str], None]) -> None:
        super().__init__()
        self._path = path
        self._key = key
        self._contents = contents
        self._on_state = on_state
        self._told: tuple[bool, str] | None = None
        self._dirty = False
        self._failures = 0
        self._writing: asyncio.Task[Any] | None = None
        # Of its own, since an fsync may take long and must not hold up anybody else's work.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="cache")

    def on_start(self) -> None:
        if self._contents:
            self.changed()

    async def on_stop(self) -> None:
        await self._end_writer()
        if self._dirty:
            await self._write()
        await self._close()

    async def on_failure(self, *_reason: object) -> None:
        await self._end_writer()
        await self._close()

    def changed(self) -> None:
        """Write the contents soon: changes within `PAUSE` share a write."""
        self._dirty = True
        if self._writing is None:
            self._writing = self.spawn(self._write_until_clean(), name="cache writer")

    async def _write_until_clean(self) -> None:
        try:
            while self._dirty:
                await self._write()
                await asyncio.sleep(min(PAUSE * 2.0**self._failures, LONGEST_PAUSE))
        finally:
            self._writing = None

    async def _write(self) -> None:
        self._dirty = False
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._save, self._contents.snapshot())
        except OSError as error:
            self._dirty = True
            self._failures = min(self._failures + 1, 16)
            self._tell(False, f"{self._path} could not be written: {error.strerror}")
        except BaseException:
            # Cancelled: the thread goes on, and nobody will hear how it went.
            self._dirty = True
            raise
        else:
            self._failures = 0
            self._tell(True, "")

    def _save(self, contents: _Snapshot) -> None:
        payload = _payload(contents, datetime.now(UTC))
        signature = hmac.new(self._key, payload, hashlib.sha256).hexdigest()
        document = b'{"payload":%b,"signature":"%b","algorithm":"%b"}'
        write_atomically(self._path, document % (payload, signature.encode(), ALGORITHM.encode()))

    def _tell(self, valid: bool, detail: str) -> None:
        if (valid, detail) != self._told:
            self._told = (valid, detail)
            self._on_state(valid, detail)

    async def _end_writer(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    async def _close(self) -> None:
        """Wait for the write that is under way: the next incarnation's must come after it."""
        await asyncio.get_running_loop().run_in_executor(None, self._disk.shutdown)


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


def _payload(contents: _Snapshot, now: datetime) -> bytes:
    """Give the canonical JSON of the signed payload, put together from each service's own.

    Sorted keys: checksums, config_epoch, generated_at, payload, revision, versions.
    """
    entries = contents.entries
    # Service names have an alphabet that JSON does not escape.
    checksums = ",".join(f'"{entry.service}":"{entry.checksum}"' for entry in entries)
    versions = ",".join(f'"{entry.service}":{entry.version}' for entry in entries)
    configs = b",".join(b'"%b":%b' % (entry.service.encode(), entry.config_canonical) for entry in entries)
    head = (
        f'{{"checksums":{{{checksums}}},"config_epoch":"{contents.config_epoch}",'
        f'"generated_at":"{now.isoformat()}","payload":{{'
    )
    tail = f'}},"revision":{contents.revision},"versions":{{{versions}}}}}'
    return head.encode() + configs + tail.encode()
