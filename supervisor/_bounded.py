"""Reading a file that somebody else wrote, without being held up or flooded by what it is."""

import os
import stat
from pathlib import Path


class OddFileError(Exception):
    """What is there is no regular file, or one that is too large; the text completes a sentence."""


def read_file(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """At most `limit` bytes, and owner and permissions of the very file that they came from.

    Raises OSError as open(2) and read(2) do, and OddFileError.
    """
    # Without O_NONBLOCK a FIFO of that name would hold the start up for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OddFileError("is not a file; move it away, or name another one")
        parts: list[bytes] = []
        left = limit + 1
        while left > 0 and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if left <= 0:
        raise OddFileError(f"is larger than {limit // 1024} KiB; name the right file")
    return b"".join(parts), status


def why(error: OSError) -> str:
    """The system's reason, as part of a sentence."""
    return (error.strerror or str(error)).lower()
