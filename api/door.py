"""What every request passes on its way in, and every answer on its way out.

One ASGI application around Litestar's, so that it also holds for what Litestar refuses by itself: request id, Host,
security header fields, HEAD, one access log line, and no exception that leaves it.
"""

import asyncio
import re
import secrets
import time
from typing import Any, Final

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from api.errors import problem_of
from api.problems import Problem, quoted
from api.responses import Finished
from api.state import ApiState

# Characters. No path of ours is nearly as long, and Litestar remembers a thousand that clients chose.
_MAX_PATH: Final = 1024
REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


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


class Door:
    """`app` with all that; `headers` go into every answer."""

    def __init__(self, app: ASGIApp, state: ApiState, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._app = app
        self._hosts = state.hosts
        self._headers = headers
        self._log = state.access_log

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            raise TypeError(f"this server speaks HTTP only, not {scope['type']}")
        began = time.perf_counter()
        host: list[bytes] = []
        asked: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"host":
                host.append(value)
            elif name == b"x-request-id":
                asked.append(value)
        known = len(asked) == 1 and REQUEST_ID.fullmatch(asked[0]) is not None
        request_id = asked[0] if known else new_request_id()
        # The request has a task, and so a context, of its own: nothing needs to be taken back afterwards.
        bind_contextvars(request_id=request_id.decode())
        own_headers = (*self._headers, (b"x-request-id", request_id))
        status = 0

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *own_headers]}
            await send(message)

        inner = scope
        try:
            self._check(scope, host)
            if scope["method"] == "HEAD":
                # A GET whose content the server leaves out (RFC 9110, section 9.3.2). The server knows the method
                # from the scope that it made, so ours is another one.
                inner = scope.copy()
                inner["method"] = HttpMethod.GET
            await self._app(inner, receive, answer)
        except asyncio.CancelledError:
            # Only the server's end cancels a request, after the grace; this is its task's outermost frame.
            structlog.get_logger("api").warning("request cut off by the end of the server", path=scope["path"][:200])
        except Exception as error:
            problem = problem_of(error, path=scope["path"], request_id=request_id.decode())
            if status:
                raise  # half an answer is out; the server cuts the connection, which the client can see
            await problem.answer(request_id.decode())(scope, receive, answer)
        finally:
            if self._log is not None:
                identity = inner.get("auth")
                client = scope.get("client")
                self._log(
                    {
                        "method": scope["method"],
                        "path": scope["path"][:200],
                        "status": status,
                        "ms": round((time.perf_counter() - began) * 1000, 2),
                        "caller": identity.name if identity is not None else None,
                        # Of whoever connects, which is the proxy where there is one: what it says of others is not believed.
                        "address": client[0] if client else None,
                        "request_id": request_id.decode(),
                    }
                )

    async def overloaded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Instead of the application, where too many connections are open."""
        problem = Problem(
            "busy",
            "Too many connections are open. Send it again later.",
            headers={"retry-after": "5", "connection": "close"},
        )
        await self.refusal(problem)(scope, receive, send)

    def refusal(self, problem: Problem) -> Finished:
        """`problem` with every field that an answer has, for what never comes in."""
        request_id = new_request_id()
        return problem.answer(request_id.decode(), (*self._headers, (b"x-request-id", request_id)))

    def _check(self, scope: HTTPScope, host: list[bytes]) -> None:
        if len(host) != 1:
            # RFC 9112, section 3.2: exactly one, or 400.
            raise Problem("malformed", "A request needs exactly one Host header field.")
        if not self._hosts.allows(host[0]):
            raise Problem(
                "unknown-host",
                f"{quoted(host[0].decode('latin-1'))} is not a name of this server. Call it by its address, by localhost, by "
                "the machine's name, or set CONFIG_API_HOST to the name.",
            )
        if len(scope["path"]) > _MAX_PATH:
            raise NotFoundException
