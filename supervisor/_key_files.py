"""Key files: searched for, checked for who may read them, and read with a bound."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from supervisor._bounded import OddFileError, read_file, why
from supervisor._reader import BadValueError, key_bytes

_MAX_BYTES = 64 * 1024


class KeyFiles:
    """Reads key files named by a variable, or else found in the first folder that holds one of that name.

    A file that cannot be used adds a sentence to `mistakes` and counts as not there.
    """

    def __init__(self, sources: Mapping[str, str], folders: Sequence[Path]) -> None:
        self._sources = sources
        self._folders = folders
        self.mistakes: list[str] = []

    def key(self, variable: str | None, path: Path | None, name: str) -> bytes | None:
        """A 32-byte key: as it is, or in base64."""
        data, source = self._read(variable, path, name, secret=True)
        if data is None or len(data) == 32:
            return data
        try:
            return key_bytes(data.decode("latin-1"))
        except BadValueError as error:
            self.mistakes.append(f"{source} {error}")
            return None

    def text(self, variable: str | None, path: Path | None, name: str, *, secret: bool) -> tuple[str | None, str]:
        """The file's text, and where it stands as the beginning of a sentence."""
        data, source = self._read(variable, path, name, secret=secret)
        return None if data is None else data.decode("utf-8", "replace"), source

    def _read(self, variable: str | None, path: Path | None, name: str, *, secret: bool) -> tuple[bytes | None, str]:
        if variable is not None and path is not None:
            source = f"{self._sources[variable]}: {variable}: the file {path}"
        else:
            path = self._search(name)
            if path is None:
                return None, ""
            source = f"{path}: the file"
        try:
            data, wrong = _read_checked(path, secret=secret)
        except OddFileError as odd:
            data, wrong = None, str(odd)
        except OSError as error:
            data, wrong = None, f"cannot be read ({why(error)}); let the user who runs the supervisor read it"
        if data is None:
            self.mistakes.append(f"{source} {wrong}")
        return data, source

    def _search(self, name: str) -> Path | None:
        for folder in self._folders:
            path = folder / name
            try:
                path.stat()
            except OSError:
                continue  # not there, or a folder for somebody else's service
            return path
        return None


def _read_checked(path: Path, *, secret: bool) -> tuple[bytes | None, str]:
    data, status = read_file(path, _MAX_BYTES)
    if status.st_mode & stat.S_IWOTH:
        return None, f"can be changed by every user of this machine; run: chmod 600 {path}"
    if secret and status.st_mode & stat.S_IROTH:
        return None, f"can be read by every user of this machine; run: chmod 600 {path}"
    return data, ""
