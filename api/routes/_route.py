"""One route: its handler, who may call it, and what the documentation says of it, in one place."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.documents import Operation
from api.headers import fields
from api.problems import Problem
from api.responses import Finished
from api.tokens import Identity, Tokens
from schemas.states import Role

Method = Literal["GET", "PUT", "PATCH"]
Bare = Request[Any, Any, Any]
Handler = Callable[[Bare], Awaitable[Finished]]
Authorized = Callable[[Bare, Identity], Awaitable[Finished]]

_OPERATION = "operation"


def open_route(method: Method, path: str, operation: Operation, handler: Handler) -> HTTPRouteHandler:
    """A route that asks nobody who they are."""
    assert operation.role is None, "a route with a role is made with `route`"

    async def handle(request: Bare) -> Finished:
        return await handler(request)

    return _litestar(method, path, operation, handle)


def route(method: Method, path: str, operation: Operation, handler: Authorized, tokens: Tokens) -> HTTPRouteHandler:
    """A route for those with `operation.role`; `handler` gets who it is.

    Not a Litestar guard: for those, Litestar copies the handler at every request (9 of a GET's 21 microseconds).
    """
    role = operation.role
    assert role is not None, "a route without a role is made with `open_route`"

    async def handle(request: Bare) -> Finished:
        return await handler(request, authorize(request.scope, tokens, role))

    return _litestar(method, path, operation, handle)


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
    """What the route says of itself; None where it was not made by `route` or `open_route`."""
    operation: Operation | None = handler.opt.get(_OPERATION)
    return operation


def _litestar(method: Method, path: str, operation: Operation, handle: Handler) -> HTTPRouteHandler:
    decorate = HTTPRouteHandler(
        path,
        http_method=method,
        name=operation.id,
        # Not used: the answer is an ASGI application with a status of its own, which Litestar sends as it is.
        status_code=200,
        opt={_OPERATION: operation},
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
