"""What the owner of a worker wants, on disk: stopped stays stopped, across restarts of anything."""

from pathlib import Path

from actors.files import PRIVATE_FOLDER, sync_folder, write_atomically
from actors.service._files import in_thread


class Wish:
    """A file in the data folder says that a worker is to stay stopped; where there is none, it is to run.

    Not in the worker's own folder, which the worker could write to.
    """

    def __init__(self, data_folder: Path, service: str) -> None:
        self._path = data_folder / "stopped" / service

    def wanted(self) -> bool:
        """Whether it is to run. Raises OSError."""
        return not self._path.exists()

    async def keep(self, wanted: bool, by: str) -> None:
        """Write it down; it is on disk when this returns. Raises OSError."""
        await in_thread(self._keep, wanted, by)

    def _keep(self, wanted: bool, by: str) -> None:
        folder = self._path.parent
        if wanted:
            if self._path.exists():
                self._path.unlink()
                sync_folder(folder)
            return
        if not folder.is_dir():
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            sync_folder(folder.parent)
        write_atomically(self._path, f"stopped by {by}\n".encode())
