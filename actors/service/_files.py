"""The files that a worker is given: its signed snapshot, its secrets, its own folder for state."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from tars_config import wire

P = ParamSpec("P")
T = TypeVar("T")

SECRET_FILE = 0o400
SNAPSHOT_FILE = 0o600


class Mark(NamedTuple):
    """One version of one epoch: it has one content for ever."""

    config_epoch: str
    version: int


class OlderSnapshot(OSError):
    """The snapshot that lies there is of the same epoch and newer: the store has been put back to an older state."""


class WorkerFiles:
    """One worker's files. All folders are 0700; everything but `state` is written by the supervisor alone.

    The runtime part is gone after a reboot, as its readers are; a rename is enough there, without an fsync. Methods write
    in a thread and raise OSError. Whoever is cancelled in one is so after the writing: two threads at one file would mix.
    """

    def __init__(self, runtime: Path, state: Path) -> None:
        self.runtime = runtime
        self.state = state
        self.snapshot = runtime / "snapshot.json"
        self.credentials = runtime / "credentials"
        self._written: Mark | None = None

    async def create(self, first: Callable[[], None] = lambda: None) -> None:
        """Make the folders that are missing, after `first` has been done."""
        await in_thread(self._create, first)

    async def write_snapshot(self, update: bytes, mark: Mark) -> None:
        """Replace the snapshot by `update`, which is of the version `mark`.

        Raises:
            OlderSnapshot: see there; the newer one stays.
        """
        await in_thread(self._write_snapshot, update, mark)

    def has_snapshot(self, mark: Mark) -> bool:
        """Whether the snapshot of this version is there."""
        return self._written == mark and self.snapshot.exists()

    def intact(self, mark: Mark, credentials: Mapping[str, str] | None, *others: Path) -> bool:
        """Whether what was written is there as it was, as far as a look at the names tells, and `others`: a start that
        follows on another has nothing to write.
        """
        if self._written != mark or credentials is None:
            return False
        try:
            names = set(os.listdir(self.credentials))  # noqa: PTH208  # a tenth of the time
        except OSError:
            return False
        return names == credentials.keys() and all(path.exists() for path in (self.snapshot, self.state, *others))

    async def write_credentials(self, values: Mapping[str, str]) -> None:
        """Make the credential files exactly these: key to value. Each is replaced as a whole."""
        await in_thread(self._write_credentials, values)

    def _create(self, first: Callable[[], None]) -> None:
        first()
        for folder in (self.runtime, self.credentials, self.state):
            make_private(folder)

    def _write_snapshot(self, update: bytes, mark: Mark) -> None:
        # Not only at the start: the runtime folder may have been removed since.
        make_private(self.runtime)
        old = self._written or self._known_snapshot()
        if old is not None and old.config_epoch == mark.config_epoch and old.version > mark.version:
            raise OlderSnapshot(
                f"the store has version {mark.version}, but version {old.version} was given out before it was put back; "
                f"{self.snapshot} stays as it is until the store has come further"
            )
        _replace(self.snapshot, update, SNAPSHOT_FILE)
        self._written = mark

    def _known_snapshot(self) -> Mark | None:
        """What another run of the supervisor has left."""
        try:
            with self.snapshot.open("rb") as file:
                update = wire.decode(file.read(wire.MAX_MESSAGE_BYTES + 1))
        except (FileNotFoundError, wire.Refused):
            return None
        return Mark(update.config_epoch, update.version)

    def _write_credentials(self, values: Mapping[str, str]) -> None:
        make_private(self.credentials)
        for key, value in values.items():
            _replace(self.credentials / key, value.encode(), SECRET_FILE)
        for stray in self.credentials.iterdir():
            if stray.name not in values:
                stray.unlink()


def make_private(folder: Path) -> None:
    """Make a folder where it is missing, and its parents, each 0700 whatever the umask. Raises OSError."""
    if not folder.is_dir():
        if folder.parent != folder:
            make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _replace(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:  # a disk that gets full takes a part first
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # nobody will hear of it
        raise
