"""The `.env` file on disk: read with its permissions checked, and appended to, whole or not at all."""

import os
import stat
from pathlib import Path

from actors.files import PRIVATE_FILE, write_atomically
from supervisor import _dotenv
from supervisor._variables import holds_secret


def read_env_file(path: Path) -> tuple[list[_dotenv.Entry], list[str]]:
    """Its entries, and a sentence for each mistake; a file that is not there has neither."""
    try:
        # Without O_NONBLOCK a FIFO of that name would hold the start up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path}: cannot be read ({why(error)}); let the user who runs the supervisor read it"]
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return [], [f"{path}: is not a file; move it away, or name another one with ENV_FILE"]
        data = file.read(_dotenv.MAX_BYTES + 1)
    entries, wrong = _dotenv.parse(data)
    mistakes = [f"{path}:{each.line}: {each.what}" for each in wrong]
    if status.st_mode & stat.S_IWOTH:
        mistakes.append(f"{path}: every user of this machine can change it; run: chmod 600 {path}")
    elif status.st_mode & stat.S_IROTH and any(holds_secret(each.key, each.value) for each in entries):
        mistakes.append(f"{path}: it holds secrets, and every user of this machine can read it; run: chmod 600 {path}")
    return entries, mistakes


def append_to_env_file(path: Path, lines: list[str]) -> None:
    """Add `lines` at the end of the file, or make it, with mode 0600; all of them are on disk, or none.

    What stands there stays as it is. Raises OSError where the file cannot be read or written.
    """
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        old = b""
    if old and not old.endswith(b"\n"):
        old += b"\n"
    write_atomically(path, old + "".join(f"{line}\n" for line in lines).encode(), PRIVATE_FILE)


def why(error: OSError) -> str:
    """The system's reason, as part of a sentence."""
    return (error.strerror or str(error)).lower()
