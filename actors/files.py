"""Files that are either the old one or the new one, never half of either."""

import contextlib
import fcntl
import os
from pathlib import Path

PRIVATE_FILE = 0o600
"""Mode of every file that the supervisor keeps: its owner reads and writes it, nobody else does anything."""

PUBLIC_FILE = 0o644
"""Mode of what workers with users of their own read together, and is no secret: public keys."""

PRIVATE_FOLDER = 0o700

PASSAGE = 0o711
"""Mode of a folder of root's through which workers with users of their own come to what is theirs. They cannot list it."""


def is_private(folder: os.stat_result) -> bool:
    """Whether it is ours, and nobody else can list or change what is in it; pass through it they may where we are root."""
    return folder.st_uid == os.geteuid() and not folder.st_mode & (0o077 if folder.st_uid else 0o066)


def write_atomically(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace the file at `path` by `data`, so that a crash or a power cut leaves the old content or the new.

    The bytes are on disk when this returns, and so is the name (fsync of the file, rename(2), fsync of the
    folder). Where `path` is a symbolic link its target is replaced, not the link. The new file has exactly
    `mode`, whatever the umask; a file of another owner keeps its owner where we may give files away.
    Blocks for as long as the disk takes: an actor calls it in its executor. Of several writers of one path,
    threads or processes, each waits for the one before it; the last wins.

    Raises OSError where the folder is missing, full or not writable; `path` is then unchanged.
    """
    target = Path(os.path.realpath(path))
    # One fixed name, so that what a killed writer leaves is used up by the next one and does not pile up.
    temporary = target.with_name(f".{target.name}.tmp")
    descriptor = _open_alone(temporary)
    try:
        try:
            with contextlib.suppress(OSError):
                _keep_owner(target, descriptor)
            os.fchmod(descriptor, mode)
            os.ftruncate(descriptor, 0)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            temporary.rename(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    finally:
        os.close(descriptor)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's names on disk: a rename or a removal survives a power cut only after this (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_alone(path: Path) -> int:
    """Open or make the temporary file, and lock it until it is closed."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held the lock has renamed or removed the file that we opened: take a new one.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.lstat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _keep_owner(target: Path, descriptor: int) -> None:
    old = target.stat()
    if old.st_uid != os.geteuid():
        os.fchown(descriptor, old.st_uid, old.st_gid)
