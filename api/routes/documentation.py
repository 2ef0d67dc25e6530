"""The OpenAPI document, and a page that shows it."""

import hashlib
from collections.abc import Iterable

import orjson
from litestar.handlers import HTTPRouteHandler

from api.docs_page import docs_page
from api.documents import Answer, Content, Operation
from api.etags import revalidated
from api.openapi import Described, openapi_document
from api.responses import Finished
from api.routes._route import Bare, open_route, operation_of

_TAG = "Documentation"

GET_SCHEMA = Operation(
    id="getOpenApi",
    summary="This description as OpenAPI",
    description="OpenAPI 3.1, in JSON.",
    tag=_TAG,
    role=None,
    answers={200: Answer("The document.", Content(None, {"openapi": "3.1.0"}), {"ETag": "Changes with the program."})},
)
GET_DOCS = Operation(
    id="getDocs",
    summary="This description as a page",
    description="The same, to be read. It needs neither script nor network.",
    tag=_TAG,
    role=None,
    answers={
        200: Answer(
            "The page.", Content(None, "<!doctype html>…", ("text/html",)), {"ETag": "Changes with the program."}
        )
    },
)


def routes(others: Iterable[HTTPRouteHandler], version: str) -> list[HTTPRouteHandler]:
    """The routes that describe `others`, and themselves. Both answers are made here, once."""
    finished: dict[str, tuple[bytes, str, bytes]] = {}

    async def schema(request: Bare) -> Finished:
        return revalidated(request.scope, *finished["schema"])

    async def page(request: Bare) -> Finished:
        return revalidated(request.scope, *finished["page"])

    own = [open_route("GET", "/schema", GET_SCHEMA, schema), open_route("GET", "/docs", GET_DOCS, page)]
    document = openapi_document(_described([*others, *own]), version)
    finished["schema"] = _finished(orjson.dumps(document), b"application/json")
    finished["page"] = _finished(docs_page(document).encode(), b"text/html; charset=utf-8")
    return own


def _described(handlers: Iterable[HTTPRouteHandler]) -> list[Described]:
    described: list[Described] = []
    for handler in handlers:
        operation = operation_of(handler)
        assert operation is not None, f"{handler} was not made by `route`"
        for path in handler.paths:
            described += [(path.replace(":str}", "}"), str(method), operation) for method in handler.http_methods]
    return described


def _finished(body: bytes, media_type: bytes) -> tuple[bytes, str, bytes]:
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"', media_type
