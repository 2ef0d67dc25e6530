"""The files that a worker is given: its signed snapshot, its secrets, its own folder for state."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from tars_config import wire
from tars_config.keys import parse_public_keys

from actors.accounts import Account, closed_to
from actors.files import PASSAGE, PRIVATE_FOLDER

P = ParamSpec("P")
T = TypeVar("T")

SECRET_FILE = 0o400
SNAPSHOT_FILE = 0o600
"""Of the worker's user, where it has one of its own."""


class Mark(NamedTuple):
    """One version of one epoch: it has one content for ever."""

    config_epoch: str
    version: int


class OlderSnapshot(OSError):
    """The snapshot that lies there is of the same epoch and newer: the store has been put back to an older state."""


class WorkerFiles:
    """One worker's files. Everything but what is in `state` is written by the supervisor alone.

    The folders are 0700. For a worker with a user of its own, an `owner`, those above its own become passages, its own folder
    is open to its group for passing through, each file in it is its user's alone, and `state` is its user's.

    The runtime part is gone after a reboot, as its readers are; a rename is enough there, without an fsync. Methods write
    in a thread and raise OSError. Whoever is cancelled in one is so after the writing: two threads at one file would mix.
    """

    def __init__(self, runtime: Path, state: Path, public_pem: str = "") -> None:
        """Both are two folders below one of the supervisor's own: `runtime` is `services/<name>`, `state` is `state/<name>`.

        `public_pem`: the keys by which a snapshot that its worker could have written is known to be ours.
        """
        self.runtime = runtime
        self.state = state
        self.snapshot = runtime / "snapshot.json"
        self.credentials = runtime / "credentials"
        self.owner: Account | None = None
        self._public_pem = public_pem
        self._written: Mark | None = None

    async def create(
        self,
        first: Callable[[], None] = lambda: None,
        *,
        owner: Account | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        """Make the folders that are missing, after `first` has been done, and give them to `owner`: the worker's user, where
        that is not ours. What `state` has of its user so far becomes theirs, too.

        With `credentials`, for a start: write those, see `write_credentials`, once it is seen that `owner` can reach them.
        """
        await in_thread(self._create, first, owner, credentials)

    def _see_that_it_is_reached(self) -> None:
        """Raise OSError where a folder keeps `owner` from these files: a worker that has none of them starts with defaults."""
        for path, variable in ((self.runtime, "RUNTIME_DIRECTORY"), (self.state, "CONFIG_DB_PATH")):
            folder = closed_to(self.owner, path) if self.owner is not None else None
            if self.owner is not None and folder is not None:
                raise OSError(
                    f"its user {self.owner.name} may not enter {folder}, and so has nothing of {path}; "
                    f"run: chmod o+x {folder}, or choose another place with {variable}"
                )

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

    def _create(self, first: Callable[[], None], owner: Account | None, credentials: Mapping[str, str] | None) -> None:
        first()
        for folder in (self.runtime, self.credentials, self.state):
            make_private(folder)
        if os.geteuid() == 0:
            self._open_ways(owner)
            user, group = (os.geteuid(), os.getegid()) if owner is None else (owner.uid, owner.gid)
            give_tree(self.state, user, group)
        self.owner = owner
        if credentials is not None:
            self._see_that_it_is_reached()
            self._write_credentials(credentials)

    def _open_ways(self, owner: Account | None) -> None:
        """Have the worker's user, and nobody else, come to its files. That takes a supervisor that is root."""
        if owner is None:
            for folder in (self.runtime, self.credentials):
                if folder.stat().st_mode & 0o077:  # it had one before
                    folder.chmod(PRIVATE_FOLDER)
            return
        for folder in (*self.runtime.parents[:2], *self.state.parents[:2]):
            folder.chmod(PASSAGE)
        # The group's, not the user's: who owns a folder can put other things into it, and we would write through them.
        for folder, mode in ((self.runtime, 0o710), (self.credentials, 0o750)):
            os.chown(folder, os.geteuid(), owner.gid)
            folder.chmod(mode)

    def _write_snapshot(self, update: bytes, mark: Mark) -> None:
        # Not only at the start: the runtime folder may have been removed since.
        self._restore(self.runtime)
        old = self._written or self._known_snapshot()
        if old is not None and old.config_epoch == mark.config_epoch and old.version > mark.version:
            raise OlderSnapshot(
                f"the store has version {mark.version}, but version {old.version} was given out before it was put back; "
                f"{self.snapshot} stays as it is until the store has come further"
            )
        _replace(self.snapshot, update, SNAPSHOT_FILE, self.owner)
        self._written = mark

    def _known_snapshot(self) -> Mark | None:
        """What another run of the supervisor has left."""
        try:
            with self.snapshot.open("rb") as file:
                update = wire.decode(file.read(wire.MAX_MESSAGE_BYTES + 1))
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    # Its worker may write there, and could keep every further version from itself.
                    wire.verify(update, parse_public_keys(self._public_pem.encode()))
                    if update.service != self.runtime.name:
                        return None
        except (FileNotFoundError, wire.Refused):
            return None
        return Mark(update.config_epoch, update.version)

    def _restore(self, folder: Path) -> None:
        if not folder.is_dir():
            make_private(folder)
            if self.owner is not None:
                make_private(self.credentials)
                self._open_ways(self.owner)

    def _write_credentials(self, values: Mapping[str, str]) -> None:
        self._restore(self.credentials)
        for key, value in values.items():
            _replace(self.credentials / key, value.encode(), SECRET_FILE, self.owner)
        for stray in self.credentials.iterdir():
            if stray.name not in values:
                stray.unlink()


def make_private(folder: Path) -> None:
    """Make a folder where it is missing, and its parents, each 0700 whatever the umask. Raises OSError."""
    if not folder.is_dir():
        if folder.parent != folder:
            make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def give_tree(folder: Path, uid: int, gid: int) -> None:
    """Make a folder, and what is in it and belongs to the folder's user, another user's. Raises OSError.

    Nothing of others is touched, and no link followed: who has a folder can put anybody's file into it. The folder itself
    comes last, so that one that was interrupted is done anew.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = os.fstat(top)
        if before.st_uid == uid:
            return
        for _, folders, files, here in os.fwalk(".", topdown=False, onerror=_raise, dir_fd=top):
            for name in (*folders, *files):
                entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                try:
                    if os.fstat(entry).st_uid == before.st_uid:
                        # The very file that was looked at, whatever has its name by now.
                        os.chown(f"/proc/self/fd/{entry}", uid, gid)
                finally:
                    os.close(entry)
        os.fchown(top, uid, gid)
    finally:
        os.close(top)


def _raise(error: OSError) -> None:
    raise error


def _replace(path: Path, data: bytes, mode: int, owner: Account | None) -> None:
    partial = path.with_name(f".{path.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(partial, flags, 0o600)
    except FileExistsError:
        # A crash has left it, and it may be a worker's, who may have it open.
        partial.unlink()
        descriptor = os.open(partial, flags, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:  # a disk that gets full takes a part first
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, owner.uid, owner.gid)
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
