"""What a reader keeps on disk: the ratchet and its last applied copy."""

import asyncio
import logging
from concurrent.futures import Executor
from pathlib import Path

from tars_config._files import remove_strays, replace_durably
from tars_config.ratchet import Ratchet, RatchetFile
from tars_config.wire import SignedUpdate

_log = logging.getLogger(__name__)


class StateDirectory:
    """`ratchet.json` and `last-applied.json`, each replaced atomically.

    The copy is written first: after a crash in between, the ratchet is behind it and is moved up from it. A ratchet
    ahead of a lost copy would take the supervisor's repeat for something that already runs.
    A damaged copy costs nothing but itself: it is signed, so it is refused, and the next source is used.
    """

    def __init__(self, directory: Path | None, service: str, executor: Executor) -> None:
        self.copy_path = directory / "last-applied.json" if directory else None
        self._ratchet_file = RatchetFile(directory / "ratchet.json", service) if directory else None
        self._executor = executor
        self._stored: Ratchet | None = None
        self._in_order = asyncio.Lock()
        self._soon: set[asyncio.Task[None]] = set()

    def load(self) -> Ratchet | None:
        """Read the ratchet; blocks."""
        if self._ratchet_file is None or self.copy_path is None:
            return None
        remove_strays(self.copy_path)
        self._stored = self._ratchet_file.load()
        return self._stored

    async def store(self, update: SignedUpdate, ratchet: Ratchet) -> None:
        """Write both, in a thread, unless they are there already. A failure is logged: the worker runs on.

        Calls are served in their order, so that an older state never lands on a newer one.
        """
        async with self._in_order:
            if ratchet == self._stored or self._ratchet_file is None:
                return
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._write, update, ratchet)
            except OSError as error:
                _log.warning("%s: version %d could not be written down: %s", update.service, update.version, error)
            else:
                self._stored = ratchet

    def store_soon(self, update: SignedUpdate, ratchet: Ratchet) -> None:
        """Do the same without making anybody wait for a slow card; `settle` does."""
        task = asyncio.create_task(self.store(update, ratchet))
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def settle(self) -> None:
        """Wait until nothing is being written."""
        await asyncio.gather(*self._soon)

    def _write(self, update: SignedUpdate, ratchet: Ratchet) -> None:
        if self._ratchet_file is not None and self.copy_path is not None:
            replace_durably(self.copy_path, update.encode())
            self._ratchet_file.store(ratchet)
