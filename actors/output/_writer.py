"""Lines on their way to the disk, which may be slow, full or read-only: bounded, written by a thread, counted where lost."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context

from actors.output._file import RotatingFile, Written
from actors.output._settings import RETRY, UNWRITTEN

logger = logging.getLogger(__name__)


class Writer:
    """Everything but the writing itself runs on the loop's thread; of one writer, one write at a time is in the thread.

    While the disk refuses, at most `UNWRITTEN` bytes wait, and it is tried again after `RETRY`. When it works again
    `on_healed` is called with the number of lines that were lost and why.
    """

    def __init__(
        self, service: str, file: RotatingFile, executor: Executor, *, on_healed: Callable[[int, str], None]
    ) -> None:
        self._service = service
        self._file = file
        self._executor = executor
        self._on_healed = on_healed
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[Written] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._failures = 0
        self._lost = 0
        self.trouble: str | None = None
        """Why lines are not written at present."""

    def add(self, line: bytes) -> None:
        if self._size + len(line) > UNWRITTEN:
            self._lost += 1
            return
        self._waiting.append(line)
        self._size += len(line)

    def flush(self) -> None:
        """Begin to write what waits. Does not wait for it."""
        if self._waiting and self._writing is None and self._retry is None:
            batch, self._waiting = self._waiting, []
            # Their bytes count until they are written, so the disk's slowness shows in `_size`.
            self._writing = self._loop.run_in_executor(self._executor, self._file.write, batch)
            self._writing.add_done_callback(lambda done: self._written(batch, done), context=Context())

    async def close(self) -> None:
        """Write what waits, once, and close the file. A disk that refuses now does not get another try."""
        await self.settled()
        self._give_up()
        failures = self._failures
        self.flush()
        await self.settled()
        self._give_up()
        if self._failures > failures:
            logger.error("%s: %d lines of output were not written: %s", self._service, len(self._waiting), self.trouble)
        await self._loop.run_in_executor(self._executor, self._file.close)

    async def settled(self) -> None:
        """Wait until what was added is in the file, or the disk refuses it."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
            # What follows from its end is a callback of its own.
            await asyncio.sleep(0)

    def _give_up(self) -> None:
        """Do not try again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _written(self, batch: list[bytes], done: "asyncio.Future[Written]") -> None:
        self._writing = None
        written = done.result()
        self._size -= sum(map(len, batch[: written.lines]))
        if written.error is not None:
            self._waiting[:0] = batch[written.lines :]
            self._failed(written.error)
            return
        self._failures = 0
        if self.trouble is not None or self._lost:
            why, lost = self.trouble or "the disk is too slow", self._lost
            self.trouble, self._lost = None, 0
            logger.warning("%s: output is written again; %d lines were lost: %s", self._service, lost, why)
            self._on_healed(lost, why)
        self.flush()

    def _failed(self, error: OSError) -> None:
        if self.trouble is None:
            logger.error(
                "%s: output cannot be written to %s: %s", self._service, error.filename or "its file", error.strerror
            )
        self.trouble = error.strerror or str(error)
        delay = RETRY[min(self._failures, len(RETRY) - 1)]
        self._failures += 1
        self._retry = self._loop.call_later(delay, self._try_again, context=Context())

    def _try_again(self) -> None:
        self._retry = None
        self.flush()
