"""Answers that are sent bit by bit for as long as somebody reads: how many there may be, and how they end."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from litestar.types import Receive, Scope, Send
from msgspec import Struct

from api.problems import Problem
from api.responses import NO_STORE

T = TypeVar("T")

WITHOUT_CONTENT: Final = "tars.without-content"
"""The extension of a scope that was a HEAD before it became a GET."""

RETRY_AFTER: Final = 15
"""Seconds after which a place may be free again."""

# Bytes sent, each piece counted with a little more than it is long, after which everybody else has a turn.
_TURN: Final = 16 * 1024
_PIECE: Final = 256

# Seconds for which a look at the token counts, while there is always something to send.
_VALID: Final = 1.0


class Streams:
    """The open streams of one server. All on the loop's thread."""

    def __init__(self) -> None:
        self._callers: Counter[str] = Counter()
        self._places: set[_Place] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """End all of them, each behind what it is sending, and let none begin any more."""
        self._closed = True
        for place in tuple(self._places):
            place.end()

    @contextmanager
    def taken(self, caller: str, *, most: int, most_each: int) -> Iterator["_Place"]:
        """Hold a place for `caller`.

        Raises:
            Problem: 429 where there are `most` already, or `most_each` of this caller; 503 where the server stops.
        """
        if self._closed:
            raise Problem("busy", "The server is stopping.", headers={"retry-after": str(RETRY_AFTER)})
        if self._callers[caller] >= most_each:
            raise _too_many(f"The token {caller} has {most_each} streams open")
        if len(self._places) >= most:
            raise _too_many(f"{most} streams are open")
        place = _Place()
        self._places.add(place)
        self._callers[caller] += 1
        try:
            yield place
        finally:
            self._places.discard(place)
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]


class _Place:
    """Where a stream can be told from outside to end."""

    def __init__(self) -> None:
        self._over = False
        self._scope: asyncio.Timeout | None = None

    def end(self) -> None:
        self._over = True
        if self._scope is not None:
            scope, self._scope = self._scope, None
            scope.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Run what is inside until it ends, or is told to: then it is cancelled, and goes on behind this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._over else None) as scope:
                self._scope = scope
                try:
                    yield
                finally:
                    self._scope = None


class Form(Struct, Generic[T], frozen=True):
    """How items become content. `render` gives no bytes for what this reader does not want."""

    media_type: bytes
    render: Callable[[T], bytes]
    heartbeat: bytes
    """Sent where nothing else was for a while: it keeps proxies from ending the connection, and finds clients that have gone."""
    first: bytes = b""


class Reader(Struct, frozen=True):
    """Who reads, and within which bounds. `still_may` tells whether the token is still good for it."""

    name: str
    still_may: Callable[[], bool]
    most: int
    most_each: int
    heartbeat_seconds: float


class Stream(Generic[T]):
    """An ASGI application that sends `items` as they come. Litestar runs it as it is.

    It ends, with the end of its content, when `items` end, the token is not good any more, or `Streams` closes; and when the
    client leaves. Nothing waits here for a client that does not read: `items` has to bear that it is not asked, and a
    cancelled `anext` of it must lose nothing. Between the server and such a client lie at most the transport's 64 KiB.
    """

    def __init__(self, streams: Streams, items: AsyncIterator[T], form: Form[T], reader: Reader) -> None:
        self._streams = streams
        self._items = items
        self._form = form
        self._reader = reader
        self._seen_valid = asyncio.get_running_loop().time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._reader
        with self._streams.taken(reader.name, most=reader.most, most_each=reader.most_each) as place:
            # nginx would gather what is sent, unless it is told not to.
            headers = [(b"content-type", self._form.media_type), NO_STORE, (b"x-accel-buffering", b"no")]
            start: Any = {"type": "http.response.start", "status": 200, "headers": headers}
            await send(start)
            if WITHOUT_CONTENT not in (scope.get("extensions") or {}):
                gone = asyncio.create_task(_gone(receive), name="stream's client")
                gone.add_done_callback(lambda _: place.end())
                try:
                    async with place.until_ended():
                        await self._pump(send)
                finally:
                    gone.cancel()
                    await asyncio.wait([gone])
            await _send(send, b"", more=False)

    async def _pump(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if self._form.first:
            await _send(send, self._form.first)
        last, turn = loop.time(), 0
        while True:
            due = last + self._reader.heartbeat_seconds
            piece = b""
            try:
                async with asyncio.timeout_at(due):
                    piece = self._form.render(await anext(self._items))
            except TimeoutError:
                pass
            except StopAsyncIteration:
                return
            if not self._may(loop.time()):
                return
            if not piece and loop.time() >= due:
                piece = self._form.heartbeat
            if piece:
                await _send(send, piece)
                last = loop.time()
            # Neither a reader that is behind nor one that wants nothing of all this may keep the loop for itself.
            turn += len(piece) + _PIECE
            if turn > _TURN:
                turn = 0
                await asyncio.sleep(0)

    def _may(self, now: float) -> bool:
        if now - self._seen_valid < _VALID:
            return True
        self._seen_valid = now
        return self._reader.still_may()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _too_many(found: str) -> Problem:
    return Problem(
        "too-many-streams",
        f"{found}, which is as many as there may be. Close one, or ask again later.",
        headers={"retry-after": str(RETRY_AFTER)},
    )
