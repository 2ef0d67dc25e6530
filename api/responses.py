"""Answers that are finished before they are sent, and the header fields that every one of them carries."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import orjson
from litestar.types import Receive, Scope, Send

Headers = Iterable[tuple[bytes, bytes]]

JSON_TYPE = b"application/json"
NO_STORE = (b"cache-control", b"no-store")
# May be kept by the one client it is for, and must be revalidated with its ETag each time (RFC 9111, section 5.2.2.4).
REVALIDATE = (b"cache-control", b"private, no-cache")
CLOSING: Final = b"connection: close\r\n"
"""The line that says so."""

_STATUS_LINES: Final = {
    int(each): b"HTTP/1.1 %d %b\r\n" % (each, each.phrase.encode()) for each in HTTPStatus if each >= 200
}


def header_lines(headers: Headers) -> bytes:
    """`headers` as HTTP/1.1 sends them, with the last one's line end."""
    return b"".join([b"%b: %b\r\n" % each for each in headers])


class Finished:
    """An ASGI application that sends one finished answer; Litestar runs it as it is."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self, body: bytes, headers: Headers, *, status: int = 200) -> None:
        self._body = body
        self.status = status
        # RFC 9110, section 8.6: never in a 204; in a 304 it would be the length of what is left out.
        self.headers = [*headers] if status in {204, 304} else [(b"content-length", b"%d" % len(body)), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        start: Any = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self._body, "more_body": False})

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return (b"connection", b"close") in self.headers

    def as_bytes(self, before: bytes, after: bytes, *, content: bool = True) -> bytes:
        """The answer as HTTP/1.1 sends it, for where no ASGI server does.

        `before` and `after` are lines of further header fields; without `content` it is the answer to a HEAD.

        Raises:
            ValueError: a header field holds a line break.
        """
        head = b"".join([_STATUS_LINES[self.status], before, header_lines(self.headers), after])
        if head.count(b"\n") != 1 + before.count(b"\n") + len(self.headers) + after.count(b"\n"):
            raise ValueError("a header field holds a line break")
        return b"%b\r\n%b" % (head, self._body) if content else head + b"\r\n"


def json_answer(
    content: Any, *, status: int = 200, headers: Headers = (NO_STORE,), media_type: bytes = JSON_TYPE
) -> Finished:
    """`content` as JSON (what orjson can write), which no cache keeps unless `headers` say otherwise."""
    return Finished(orjson.dumps(content), [(b"content-type", media_type), *headers], status=status)
