"""Small files: read within bounds, replaced whole or not at all."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path


class FileTooLarge(OSError):
    """The file is larger than anything that belongs there."""


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Opened without blocking, so that a pipe put in its place cannot hang a start.

    Raises:
        FileTooLarge: it is larger.
        OSError: it is not there, not readable, or not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FileTooLarge(f"{path} has more than {limit} bytes")
    return content


def replace_durably(path: Path, content: bytes) -> None:
    """Replace the file's content atomically, mode 0600, on disk when this returns.

    A crash at any point leaves the old content or the new one (rename(2)), and at worst a stray temporary file
    that `remove_strays` clears.

    Raises:
        OSError: such as a full or read-only disk; the old content is still there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_strays(path: Path) -> None:
    """Remove what a crash during `replace_durably` of this path has left."""
    for stray in path.parent.glob(f".{path.name}.*.new"):
        with contextlib.suppress(OSError):
            stray.unlink()


def put_aside(path: Path) -> Path | None:
    """Rename a damaged file to `<name>.damaged`, for whoever wants to look; None if that failed."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        return path.replace(aside)
    except OSError:
        return None
