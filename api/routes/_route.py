"""One route: its handler, who may call it, and what the documentation says of it, in one place."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope

from api.documents import Operation
from api.headers import fields
from api.problems import Problem
from api.responses import Finished
from api.tokens import Identity, Tokens
from schemas.states import Role

Method = Literal["GET", "PUT", "PATCH", "POST", "DELETE"]
Read = Callable[[Scope], Finished]
"""Answers a GET from memory: it neither waits nor asks, nor writes a line of log. The path's parameter is in the scope."""
Change = Callable[[Scope, Receive], Awaitable[Finished]]
"""Reads a request's content and answers it."""
AuthorizedRead = Callable[[Scope, Identity], Finished]
AuthorizedChange = Callable[[Scope, Receive, Identity], Awaitable[Finished]]
AuthorizedWait = Callable[[Scope, Identity], Awaitable[ASGIApp]]
"""Answers a GET that something has to be waited for, or whose answer is a `Stream`."""

_Bare = Request[Any, Any, Any]
_OPERATION = "operation"
_CALL = "call"


def open_read(path: str, operation: Operation, answer: Read) -> HTTPRouteHandler:
    """A GET that asks nobody who they are."""
    assert operation.role is None, "a route with a role is made with `read`"
    return _read(path, operation, answer)


def read(path: str, operation: Operation, answer: AuthorizedRead, tokens: Tokens) -> HTTPRouteHandler:
    """A GET for those with `operation.role`; `answer` gets who it is."""
    role = operation.role
    assert role is not None, "a route without a role is made with `open_read`"

    def authorized(scope: Scope) -> Finished:
        return answer(scope, authorize(scope, tokens, role))

    return _read(path, operation, authorized)


def waiting_read(path: str, operation: Operation, answer: AuthorizedWait, tokens: Tokens) -> HTTPRouteHandler:
    """A GET for those with `operation.role`, which Litestar answers: the table holds only what needs no waiting."""
    role = operation.role
    assert role is not None, "a route without a role is made with `open_read`"

    async def handle(request: _Bare) -> ASGIApp:
        return await answer(request.scope, authorize(request.scope, tokens, role))

    return _litestar("GET", path, operation, None, handle)


def change(
    method: Method, path: str, operation: Operation, answer: AuthorizedChange, tokens: Tokens
) -> HTTPRouteHandler:
    """A call that changes something, for those with `operation.role`; `answer` gets who it is.

    Not a Litestar guard: for those, Litestar copies the handler at every request (9 of a GET's 21 microseconds).
    """
    role = operation.role
    assert role is not None, "nobody changes anything without a role"

    async def authorized(scope: Scope, receive: Receive) -> Finished:
        return await answer(scope, receive, authorize(scope, tokens, role))

    async def handle(request: _Bare) -> Finished:
        return await authorized(request.scope, request.receive)

    return _litestar(method, path, operation, authorized, handle)


def options_routes(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """For every path, an answer to OPTIONS (RFC 9110, section 9.3.7). Litestar's own knows a path's first method only."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            methods.setdefault(path, {"HEAD", "OPTIONS"} if "GET" in handler.http_methods else {"OPTIONS"})
            methods[path] |= {str(method) for method in handler.http_methods}
    return [_options(path, ", ".join(sorted(allowed))) for path, allowed in methods.items()]


def _options(path: str, allowed: str) -> HTTPRouteHandler:
    async def handle() -> Finished:
        return Finished(b"", [(b"allow", allowed.encode())], status=204)

    return HTTPRouteHandler(path, http_method="OPTIONS", status_code=200, name=f"options {path}")(handle)


def operation_of(handler: HTTPRouteHandler) -> Operation | None:
    """What the route says of itself; None where it was not made here."""
    operation: Operation | None = handler.opt.get(_OPERATION)
    return operation


def call_of(handler: HTTPRouteHandler) -> Read | Change | None:
    """What answers; None where it is left to Litestar. A GET's is a `Read`, every other method's a `Change`."""
    found: Read | Change | None = handler.opt.get(_CALL)
    return found


def _read(path: str, operation: Operation, answer: Read) -> HTTPRouteHandler:
    async def handle(request: _Bare) -> Finished:
        return answer(request.scope)

    return _litestar("GET", path, operation, answer, handle)


def _litestar(
    method: Method,
    path: str,
    operation: Operation,
    call: Read | Change | None,
    handle: Callable[[_Bare], Awaitable[ASGIApp]],
) -> HTTPRouteHandler:
    decorate = HTTPRouteHandler(
        path,
        http_method=method,
        name=operation.id,
        # Not used: the answer is an ASGI application with a status of its own, which Litestar sends as it is.
        status_code=200,
        opt={_OPERATION: operation, _CALL: call},
    )
    return decorate(handle)


def authorize(scope: Scope, tokens: Tokens, role: Role) -> Identity:
    """Whoever calls; the access log finds it in the scope.

    Raises:
        Problem: 401 without exactly one token, or with an unknown one; 403 where its role does not include `role`.
    """
    presented = fields(scope, b"x-api-token")
    identity = tokens.identify(presented[0]) if len(presented) == 1 else None
    if identity is None:
        said = "X-API-Token is missing." if not presented else "X-API-Token holds no token of this server."
        raise Problem(
            "unauthorized",
            f"{said} Send a token of CONFIG_API_TOKENS or CONFIG_API_TOKEN in it.",
            headers={"www-authenticate": 'ApiKey realm="tars-supervisor", header="X-API-Token"'},
        )
    scope["auth"] = identity
    if not identity.may(role):
        raise Problem("forbidden", f"This needs the role {role}; the token {identity.name} has {identity.role}.")
    return identity
