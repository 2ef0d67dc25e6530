"""The ASGI application: all routes, behind one door."""

from typing import Any, NoReturn

from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol

from api.docs_page import STYLE_SOURCE
from api.door import Door, security_headers
from api.routes import (
    documentation,
    events,
    health,
    history,
    identity,
    logs,
    profiles,
    reload,
    restore,
    search,
    services,
    workers,
)
from api.routes._route import options_routes
from api.routes._table import Table
from api.state import ApiState


class _App(Litestar):
    """Without the plugins that Litestar adds of its own accord: they import `pydantic.v1`, 16 ms of a start.

    No handler here takes or returns a model. Where a release of Litestar looks for them elsewhere, the test of what a start
    imports tells.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins


def create_app(state: ApiState) -> Door:
    """The application over `state`; it starts and owns nothing, so there is nothing to close."""
    handlers = all_routes(state)
    app = _App(
        # OPTIONS first: else Litestar adds its own to a path's first handler, and refuses ours.
        [*options_routes(handlers), *handlers],
        # Each by its default would do something of its own: make a document out of signatures that tell nothing, set
        # the standard library's logging up, show tracebacks where an environment variable asks for it.
        openapi_config=None,
        logging_config=None,
        debug=False,
        exception_handlers={Exception: _pass_on},
    )
    return Door(app, Table(handlers), state, security_headers(STYLE_SOURCE))


def all_routes(state: ApiState) -> list[HTTPRouteHandler]:
    """Every call that the documentation describes."""
    handlers: list[HTTPRouteHandler] = [
        *health.routes(state),
        *identity.routes(state),
        *services.routes(state),
        *search.routes(state),
        *history.routes(state),
        *restore.routes(state),
        *profiles.routes(state),
        *workers.routes(state),
        *reload.routes(state),
        *logs.routes(state),
        *events.routes(state),
    ]
    return [*handlers, *documentation.routes(handlers, state.version)]


def _pass_on(_: Request[Any, Any, Any], error: Exception) -> NoReturn:
    """The door answers for every error, Litestar's own among them."""
    raise error
