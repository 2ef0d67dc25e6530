"""What probes of the tests say, and to whom they speak."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from actors.probes import Probe, make_probe
from actors.process import Command
from tests.support import eventually


def no_command(argv: tuple[str, ...]) -> Command:
    raise AssertionError(argv)


class Results(list[tuple[bool, str]]):
    """Takes results, and waits for one."""

    def __call__(self, ok: bool, text: str) -> None:
        self.append((ok, text))

    async def until(self, ok: bool, words: str = "") -> str:
        await eventually(lambda: self and self[-1][0] is ok and words in self[-1][1], what=f"{ok}, {words!r}: {self}")
        return self[-1][1]


@contextlib.asynccontextmanager
async def probing(
    spec: Any, command: Callable[[tuple[str, ...]], Command] = no_command
) -> AsyncIterator[tuple[Probe, Results]]:
    results = Results()
    probe = make_probe(spec, results, command)
    probe.start()
    assert results == []  # nothing is said before whoever started it knows that it did
    try:
        yield probe, results
    finally:
        probe.stop()
        said = list(results)
        async with asyncio.timeout(30):
            await probe.gone()
        assert results == said
        assert probe._timer is None


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(answer: Answer, *, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """A TCP server on 127.0.0.1, whose connections end with it; its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await answer(reader, writer)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", port, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks.copy():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.copy())
        await server.wait_closed()
