"""The store's files: private from their first moment, and the very ones that were opened."""

import contextlib
import os
import stat
from pathlib import Path

from schemas.records import StoreUnavailable

PRIVATE = 0o600
SIDECARS = ("-wal", "-shm", "-journal")


def secure(path: Path) -> None:
    """Create the database's file if it is not there, and see that it and its sidecars are ours alone.

    SQLite gives the files that it makes beside it the same mode. A log that is not ours is not harmless: at the
    next opening its content becomes the database's.

    Raises:
        StoreUnavailable: a file is not a regular one, or belongs to somebody else, or cannot be made.
    """
    try:
        if _create(path):
            _set_orphans_aside(path)
        for each in (path, *(_beside(path, suffix) for suffix in SIDECARS)):
            _make_private(each)
    except OSError as error:
        raise StoreUnavailable(
            f"The database {path} cannot be opened: {error.strerror} ({error.filename})", "locked"
        ) from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _create(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, PRIVATE)
    except FileExistsError:
        return False
    os.close(descriptor)
    # The name has to survive a power cut before anything in it is acknowledged.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _set_orphans_aside(path: Path) -> None:
    """Keep what lies beside a database that is gone: SQLite would delete it, and it may be all that is left."""
    for suffix in SIDECARS:
        orphan = _beside(path, suffix)
        with contextlib.suppress(FileNotFoundError):
            orphan.rename(orphan.with_name(orphan.name + ".orphan"))


def _make_private(path: Path) -> None:
    # By name and not by descriptor: closing one would drop the locks that SQLite holds for this process, see
    # https://www.sqlite.org/howtocorrupt.html section 2.2. The folder is ours alone, so the name stays true.
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, "is not a regular file; name the file itself, or move this away")
    if found.st_uid != os.geteuid():
        raise _refused(path, f"belongs to user {found.st_uid}, not to us ({os.geteuid()}); change its owner")
    if stat.S_IMODE(found.st_mode) != PRIVATE:
        path.chmod(PRIVATE)


def _refused(path: Path, what: str) -> StoreUnavailable:
    return StoreUnavailable(f"The database's file {path} {what}", "locked")


class Identity:
    """Which files were opened.

    SQLite would go on writing into one that was removed or replaced meanwhile, and what it acknowledged would be
    gone with the last descriptor.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # As text: each commit asks for them.
        self._files = (str(path), str(_beside(path, "-wal")))
        self._opened = tuple(map(_inode, self._files))

    def verify(self) -> None:
        """Raise `StoreUnavailable` if the database or its log is no longer the one that was opened."""
        if tuple(map(_inode, self._files)) != self._opened:
            raise StoreUnavailable(
                f"The database {self._path} was removed or replaced while in use; restart to use what is there",
                "corrupted",
            )


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # `Path.stat` costs three times as much
    except OSError:
        return None
    return found.st_dev, found.st_ino
