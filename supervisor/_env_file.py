"""The `.env` file on disk: read with its permissions checked, and appended to, whole or not at all."""

import stat
from pathlib import Path

from actors.files import PRIVATE_FILE, write_atomically
from supervisor import _dotenv
from supervisor._bounded import OddFileError, read_file, why
from supervisor._variables import holds_secret


def read_env_file(path: Path) -> tuple[list[_dotenv.Entry], list[str]]:
    """Its entries, and a sentence for each mistake; a file that is not there has neither."""
    try:
        data, status = read_file(path, _dotenv.MAX_BYTES)
    except FileNotFoundError:
        return [], []
    except OddFileError as odd:
        return [], [f"{path}: {odd}"]
    except OSError as error:
        return [], [f"{path}: cannot be read ({why(error)}); let the user who runs the supervisor read it"]
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
