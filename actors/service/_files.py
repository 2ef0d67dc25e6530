"""The files that a worker is given: its signed snapshot, its secrets, its own folder for state."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECRET_FILE = 0o400


@dataclass(frozen=True, slots=True)
class WorkerFolders:
    """Where one worker's files are. All folders are 0700; everything but `state` is written by the supervisor alone.

    The runtime part is gone after a reboot, as its readers are; a rename is enough there, without an fsync.
    """

    runtime: Path
    state: Path

    @property
    def snapshot(self) -> Path:
        return self.runtime / "snapshot.json"

    @property
    def credentials(self) -> Path:
        return self.runtime / "credentials"

    def create(self) -> None:
        """Make the folders. Raises OSError."""
        for folder in (self.runtime, self.credentials, self.state):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write_snapshot(self, update: bytes) -> None:
        _replace(self.snapshot, update, 0o600)

    def write_credentials(self, values: Mapping[str, str]) -> None:
        """Make the credential files exactly these: key to value. Each is replaced as a whole."""
        for key, value in values.items():
            _replace(self.credentials / key, value.encode(), SECRET_FILE)
        for stray in self.credentials.iterdir():
            if stray.name not in values:
                stray.unlink()

    def remove_runtime(self) -> None:
        """Take the secrets off the machine; for a service that is gone."""
        shutil.rmtree(self.runtime, ignore_errors=True)


def _replace(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, data)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    partial.rename(path)
