"""What every request passes on its way in, and every answer on its way out.

Request id, Host, security header fields, HEAD, one access log line, and no exception that leaves it. A call that is found in
the table of calls is made directly; any other request, which mostly is refused, goes to Litestar as an ASGI application.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, bound_contextvars

from api.errors import problem_of
from api.problems import Problem, quoted
from api.responses import CLOSING, Finished, Headers, header_lines
from api.state import ApiState
from api.streams import WITHOUT_CONTENT
from api.tokens import Identity

# Characters. No path of ours is nearly as long, and Litestar remembers a thousand that clients chose.
_MAX_PATH: Final = 1024
REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")

Read: TypeAlias = Callable[[Scope], Finished]
Change: TypeAlias = Callable[[Scope, Receive], Awaitable[Finished]]
Sent: TypeAlias = Callable[[Finished, bytes], None]
"""Sends an answer, with these header lines behind its own."""
SentInTime: TypeAlias = Callable[[Finished, bytes], Awaitable[None]]
"""The same, as soon as the client takes it."""


class Calls(Protocol):
    """Finds what answers a request without waiting (`read`), or in a task of its own (`change`)."""

    def read(self, scope: HTTPScope) -> Read | None: ...
    def change(self, scope: HTTPScope) -> Change | None: ...


def new_request_id() -> bytes:
    """16 hexadecimal digits of chance."""
    return secrets.token_hex(8).encode()


def security_headers(style_source: str) -> tuple[tuple[bytes, bytes], ...]:
    """Fields for every answer. No script, no frame, no form, and no style but `style_source` (CSP level 3)."""
    policy = (
        f"default-src 'none'; style-src {style_source}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", policy.encode()),
    )


class _Visit:
    """One request, and what is told of it in the end."""

    __slots__ = ("began", "hosts", "path", "request_id", "scope", "status")

    def __init__(self, scope: HTTPScope) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        # Litestar writes another one into the scope.
        self.path = scope["path"]
        self.status = 0
        self.hosts: list[bytes] = []
        asked: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"host":
                self.hosts.append(value)
            elif name == b"x-request-id":
                asked.append(value)
        known = len(asked) == 1 and REQUEST_ID.fullmatch(asked[0]) is not None
        self.request_id = asked[0] if known else new_request_id()

    def told(self, identity: Identity | None) -> dict[str, Any]:
        """The line of the access log."""
        client = self.scope["client"]
        return {
            "method": self.scope["method"],
            "path": self.path[:200],
            "status": self.status,
            "ms": round((time.perf_counter() - self.began) * 1000, 2),
            "caller": identity.name if identity is not None else None,
            # Of whoever connects, which is the proxy where there is one: what it says of others is not believed.
            "address": client[0] if client else None,
            "request_id": self.request_id.decode(),
        }


class Door:
    """`calls`, and `app` for what is not among them, with all that; `headers` go into every answer."""

    def __init__(self, app: ASGIApp, calls: Calls, state: ApiState, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._app = app
        self._calls = calls
        self._hosts = state.hosts
        self._headers = headers
        self._lines = header_lines(headers)
        self._log = state.access_log
        self._streams = state.streams

    def end_streams(self) -> None:
        """End the answers that would never end by themselves, and let none begin any more: the server stops."""
        self._streams.close()

    def at_once(self, scope: HTTPScope, send: Sent) -> bool:
        """Answer a read here and now. False: `scope` is none, and nothing was done."""
        read = self._calls.read(scope)
        if read is None:
            return False
        visit = _Visit(scope)
        try:
            self._check(visit)
            answer = read(scope)
        except Exception as error:  # noqa: BLE001 - each is an answer, as below; there is no task that could tell of it
            request_id = visit.request_id.decode()
            # There is no task, and so no context, that is the request's alone.
            with bound_contextvars(request_id=request_id):
                answer = problem_of(error, path=visit.path, request_id=request_id).answer(request_id)
        visit.status = answer.status
        send(answer, self._own_lines(visit))
        self._tell(visit, scope.get("auth"))
        return True

    def change(self, scope: HTTPScope, send: SentInTime) -> ASGIApp | None:
        """What answers `scope` by `send`, in a task of its own; None where that is no change, or one for Litestar."""
        change = self._calls.change(scope)
        if change is None:
            return None

        async def app(_: Scope, receive: Receive, __: Send) -> None:
            visit = _Visit(scope)
            request_id = visit.request_id.decode()
            bind_contextvars(request_id=request_id)
            try:
                try:
                    self._check(visit)
                    answer = await change(scope, receive)
                except Exception as error:  # noqa: BLE001 - each is an answer
                    answer = problem_of(error, path=visit.path, request_id=request_id).answer(request_id)
                visit.status = answer.status
                await send(answer, self._own_lines(visit))
            except asyncio.CancelledError:
                self._cut_off(visit)
            finally:
                self._tell(visit, scope.get("auth"))

        return app

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            raise TypeError(f"this server speaks HTTP only, not {scope['type']}")
        visit = _Visit(scope)
        request_id = visit.request_id.decode()
        # The request has a task, and so a context, of its own: nothing needs to be taken back afterwards.
        bind_contextvars(request_id=request_id)
        own_headers = self._own(visit.request_id)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message = {**message, "headers": [*message["headers"], *own_headers]}
            await send(message)

        inner = scope
        try:
            self._check(visit)
            if scope["method"] == "HEAD":
                # A GET whose content the server leaves out (RFC 9110, section 9.3.2). The server knows the method
                # from the scope that it made, so ours is another one.
                inner = scope.copy()
                inner["method"] = HttpMethod.GET
                inner["extensions"] = {**(scope.get("extensions") or {}), WITHOUT_CONTENT: {}}
            await self._app(inner, receive, answer)
        except asyncio.CancelledError:
            self._cut_off(visit)
        except Exception as error:
            problem = problem_of(error, path=visit.path, request_id=request_id)
            if visit.status:
                raise  # half an answer is out; the server cuts the connection, which the client can see
            await problem.answer(request_id)(scope, receive, answer)
        finally:
            self._tell(visit, inner.get("auth"))

    async def overloaded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Instead of the application, where too many connections are open."""
        problem = Problem(
            "busy",
            "Too many connections are open. Send it again later.",
            headers={"retry-after": "5", "connection": "close"},
        )
        request_id = new_request_id()
        await problem.answer(request_id.decode(), self._own(request_id))(scope, receive, send)

    def refusal(self, problem: Problem, before: bytes) -> bytes:
        """`problem` with every field that an answer has, for what never comes in; its connection is closed behind it.

        `before`: the lines of the fields that the server adds to every answer.
        """
        request_id = new_request_id()
        answer = problem.answer(request_id.decode(), self._own(request_id))
        return answer.as_bytes(before, CLOSING)

    def _tell(self, visit: _Visit, identity: Identity | None) -> None:
        if self._log is not None:
            self._log(visit.told(identity))

    def _cut_off(self, visit: _Visit) -> None:
        # Only the server's end cancels a request, after the grace; who is told is its task's outermost frame.
        structlog.get_logger("api").warning("request cut off by the end of the server", path=visit.path[:200])

    def _own_lines(self, visit: _Visit) -> bytes:
        return b"%bx-request-id: %b\r\n" % (self._lines, visit.request_id)

    def _own(self, request_id: bytes) -> Headers:
        return (*self._headers, (b"x-request-id", request_id))

    def _check(self, visit: _Visit) -> None:
        hosts = visit.hosts
        if len(hosts) != 1:
            # RFC 9112, section 3.2: exactly one, or 400.
            raise Problem("malformed", "A request needs exactly one Host header field.")
        if not self._hosts.allows(hosts[0]):
            raise Problem(
                "unknown-host",
                f"{quoted(hosts[0].decode('latin-1'))} is not a name of this server. Call it by its address, by localhost, by "
                "the machine's name, or set CONFIG_API_HOST to the name.",
            )
        if len(visit.path) > _MAX_PATH:
            raise NotFoundException
