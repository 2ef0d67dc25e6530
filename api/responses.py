"""Answers that are finished before they are sent, and the header fields that every one of them carries."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson
from litestar.types import Receive, Scope, Send

Headers = Iterable[tuple[bytes, bytes]]

JSON_TYPE = b"application/json"
NO_STORE = (b"cache-control", b"no-store")
# May be kept by the one client it is for, and must be revalidated with its ETag each time (RFC 9111, section 5.2.2.4).
REVALIDATE = (b"cache-control", b"private, no-cache")


class Finished:
    """An ASGI application that sends one finished answer; Litestar runs it as it is."""

    __slots__ = ("_body", "_start")

    def __init__(self, body: bytes, headers: Headers, *, status: int = 200) -> None:
        length = (b"content-length", str(len(body)).encode())
        # RFC 9110, section 8.6: never in a 204; in a 304 it would be the length of what is left out.
        fields = [*headers] if status in {204, 304} else [length, *headers]
        self._start: Any = {"type": "http.response.start", "status": status, "headers": fields}
        self._body: Any = {"type": "http.response.body", "body": body, "more_body": False}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await send(self._start)
        await send(self._body)

    def as_bytes(self, more: Headers) -> bytes:
        """The answer as it is sent (HTTP/1.1), for where no server sends it; the connection ends with it."""
        status = HTTPStatus(self._start["status"])
        fields = [*more, *self._start["headers"], (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), head, self._body["body"])


def json_answer(
    content: Any, *, status: int = 200, headers: Headers = (NO_STORE,), media_type: bytes = JSON_TYPE
) -> Finished:
    """`content` as JSON (what orjson can write), which no cache keeps unless `headers` say otherwise."""
    return Finished(orjson.dumps(content), [(b"content-type", media_type), *headers], status=status)
