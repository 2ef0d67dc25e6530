"""The history's actor: looks back beside the database's, whose commits never wait for it."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from actors.database._lookback import Lookback, SchemaOf
from actors.runtime import Actor
from schemas.history import Difference, Point
from schemas.records import HistoryEntry, HistoryQuery
from schemas.restores import PastSettings
from schemas.types import ServiceName

P = ParamSpec("P")
T = TypeVar("T")


class HistoryActor(Actor):
    """Answers from the store's file, one question after the other, on a thread of its own that begins with the first.

    It sees what was committed before it was asked. Every method raises `StoreUnavailable` where the file cannot be read, which
    says nothing about the database actor's connection, and `UnknownService`.
    """

    def __init__(self, path: Path, schema_of: SchemaOf) -> None:
        super().__init__()
        self._lookback = Lookback(path, schema_of)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")

    async def page(self, query: HistoryQuery) -> tuple[HistoryEntry, ...]:
        """One page, newest first. `ValueError`: the limit is out of bounds, or a time has no offset."""
        return await self._run(self._lookback.page, query)

    async def difference(self, service: ServiceName | None, old: Point, new: Point) -> Difference:
        """What differs between two points, of one service or all.

        Raises:
            NotReached: the history does not tell what was in force at one of them.
            ValueError: a version without a service, or a time without an offset.
        """
        return await self._run(self._lookback.difference, service, old, new)

    async def settings_at(self, service: ServiceName | None, point: Point) -> tuple[PastSettings, ...]:
        """What one service or all had set at a point, beside the versions that they are at now.

        Raises NotReached, and ValueError: a version without a service, or a time without an offset.
        """
        return await self._run(self._lookback.settings_at, service, point)

    async def undone(self, service: ServiceName, entries: Sequence[int]) -> tuple[PastSettings, ...]:
        """What a service would have set if these entries of its history had not been. Raises UnknownEntries."""
        return await self._run(self._lookback.undone, service, entries)

    async def on_stop(self) -> None:
        """Let what is under way end."""
        await self._close()

    async def on_failure(self, *_why: object) -> None:
        """The same."""
        await self._close()

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def _close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
