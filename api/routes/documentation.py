"""The OpenAPI document, and a page that shows it."""

import hashlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson
from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.docs_page import docs_page
from api.documents import IF_NONE_MATCH, Answer, Content, Operation
from api.etags import revalidated
from api.openapi import Described, openapi_document
from api.responses import Finished
from api.routes._route import open_read, operation_of

Finishable = tuple[bytes, str, bytes]
"""A body, its ETag, and its media type."""

_TAG = "Documentation"
_VALIDATOR = {"ETag": "It changes with the program."}

GET_SCHEMA = Operation(
    id="getOpenApi",
    summary="This description as OpenAPI",
    description="OpenAPI 3.1, in JSON.",
    tag=_TAG,
    role=None,
    parameters=(IF_NONE_MATCH,),
    answers={
        200: Answer("The document.", Content(None, {"openapi": "3.1.0"}), _VALIDATOR),
        304: Answer("You have it already.", headers=_VALIDATOR),
    },
)
GET_DOCS = Operation(
    id="getDocs",
    summary="This description as a page",
    description="The same, to be read. It needs neither script nor network.",
    tag=_TAG,
    role=None,
    parameters=(IF_NONE_MATCH,),
    answers={
        200: Answer("The page.", Content(None, "<!doctype html>…", ("text/html",)), _VALIDATOR),
        304: Answer("You have it already.", headers=_VALIDATOR),
    },
)


def routes(others: Iterable[HTTPRouteHandler], version: str) -> list[HTTPRouteHandler]:
    """The routes that describe `others`, and themselves."""
    handlers: list[HTTPRouteHandler] = []

    # Made when somebody asks, once: together they take longer than the rest of the application's start.
    @cache
    def document() -> dict[str, Any]:
        return openapi_document(described_by(handlers), version)

    @cache
    def finished_schema() -> Finishable:
        return _finishable(orjson.dumps(document()), b"application/json")

    @cache
    def finished_page() -> Finishable:
        return _finishable(docs_page(document()).encode(), b"text/html; charset=utf-8")

    def schema(scope: Scope) -> Finished:
        return revalidated(scope, *finished_schema())

    def page(scope: Scope) -> Finished:
        return revalidated(scope, *finished_page())

    own = [open_read("/schema", GET_SCHEMA, schema), open_read("/docs", GET_DOCS, page)]
    handlers += [*others, *own]
    return own


def described_by(handlers: Iterable[HTTPRouteHandler]) -> list[Described]:
    """Path, method and description of each of `handlers`."""
    described: list[Described] = []
    for handler in handlers:
        operation = operation_of(handler)
        assert operation is not None, f"{handler} was not made by `_route`"
        for path in handler.paths:
            shown = operation.path or path.replace(":str}", "}")
            described += [(shown, str(method), operation) for method in handler.http_methods]
    return described


def _finishable(body: bytes, media_type: bytes) -> Finishable:
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"', media_type
