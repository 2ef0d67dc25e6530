"""What the outputs of all services share: a folder, a thread that writes, one buffer to read into, the loop's time."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actors.files import PRIVATE_FOLDER
from actors.output._output import Output
from actors.output._record import Record
from actors.output._settings import READ_SIZE, OutputLimits
from actors.output._turns import Turns


class Outputs:
    """Made on the running loop. Files are `<folder>/<service>.log`, and `.log.1` and so on for those put aside."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, 0700, where it is missing; a disk that refuses shows in each output's `trouble`."""
        self._folder = folder
        self._turns = Turns()
        # All reads happen on the loop's thread, and none keeps the buffer.
        self._buffer = bytearray(READ_SIZE)
        # One: a disk that is slow for one file is slow for all of them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="output")
        self._open: dict[str, Output] = {}
        with contextlib.suppress(OSError):
            folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)

    def open(
        self, service: str, limits: OutputLimits | None = None, *, on_record: Callable[[Record], None] | None = None
    ) -> Output:
        """Give the output of a service, which is not open: what was printed before is in its `tail`."""
        assert service not in self._open, "one file has one writer"
        output = self._open[service] = Output(
            service,
            self._folder / f"{service}.log",
            limits or OutputLimits(),
            turns=self._turns,
            buffer=self._buffer,
            executor=self._thread,
            on_record=on_record,
        )
        return output

    def get(self, service: str) -> Output | None:
        return self._open.get(service)

    async def close_one(self, service: str) -> None:
        """Close a service's output: it left the manifest."""
        if (output := self._open.get(service)) is not None:
            await output.close()
            del self._open[service]

    async def close(self) -> None:
        """Close all, and end the thread."""
        for service in tuple(self._open):
            await self.close_one(service)
        self._turns.close()
        self._thread.shutdown(wait=False)
