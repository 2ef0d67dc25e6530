"""A runtime folder whose processes all carry a mark of the test, so that what is left of them can be counted and ended."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from actors.holder import Held, Holder, Spawn, attach
from tests.support import environment_of, holders

DEADLINE = 30.0


class Place:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        os.mkfifo(folder / "go")
        """A worker that reads a line of it waits for the test to write one."""
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TARS_TEST_PLACE": str(folder)}

    async def attach(self, **options: object) -> Holder:
        async with asyncio.timeout(DEADLINE):
            return await attach(self.folder, **options)  # type: ignore[arg-type]  # of the test's making

    def spawn(self, service: str, *argv: str, **more: object) -> Spawn:
        facts = {"cwd": Path("/"), "environment": self.environment, **more}
        return Spawn(service=service, argv=argv, **facts)  # type: ignore[arg-type]

    def shell(self, service: str, script: str, **more: object) -> Spawn:
        return self.spawn(service, "/bin/sh", "-c", script, **more)

    def processes(self) -> dict[int, str]:
        """Living processes that were started here, and the service of each."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    variables = environment_of(int(entry.name))
                    if variables.get("TARS_TEST_PLACE") == str(self.folder) and alive(int(entry.name)):
                        found[int(entry.name)] = variables["TARS_SERVICE"]
        return found

    def holders(self) -> list[int]:
        """Living holders of the folder, and children that wait to become workers."""
        return holders(self.folder)

    def clean(self) -> None:
        """End the workers. A holder that is left fails the test."""
        deadline = time.monotonic() + 30
        while left := self.processes():
            assert time.monotonic() < deadline, left
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def read_line(descriptor: int) -> str:
    """One line of a worker; whole lines alone are written by those that are read so."""
    return (await read_until(descriptor, b"\n")).decode().strip()


async def read_until(descriptor: int, end: bytes) -> bytes:
    """Read until what was read ends so; all of it where `end` is empty."""
    loop = asyncio.get_running_loop()
    text = b""
    async with asyncio.timeout(DEADLINE):
        while not (end and text.endswith(end)):
            ready = loop.create_future()
            loop.add_reader(descriptor, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)
            piece = os.read(descriptor, 65536)
            if not piece:
                break
            text += piece
    return text


async def ended(held: Held) -> int:
    async with asyncio.timeout(DEADLINE):
        end = await asyncio.shield(held.ended)
    assert not end.survivors
    return end.code


async def finish(holder: Holder) -> None:
    """End all workers, and the holder."""
    async with asyncio.timeout(DEADLINE):
        for held in list(holder.workers.values()):
            held.kill()
            await held.ended
            held.forget()
        await holder.stop()
