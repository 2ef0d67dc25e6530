"""The OpenAPI 3.1 document, from what the routes say of themselves.

Litestar could make one from handlers' signatures, but ours take the bare request, which is faster.
"""

from collections.abc import Iterable
from http import HTTPStatus
from itertools import groupby
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.documents import Answer, Content, Operation, Parameter
from api.models import ProblemDetails
from api.problems import PREFIX, Kind

SECURITY_SCHEME = "token"
_REQUEST_ID_EXAMPLE = "3f9c1d0e5a7b2468"
_REF = "#/components/schemas/{model}"

Described = tuple[str, str, Operation]
"""Path with `{name}` for parameters, method in upper case, and what the route says of itself."""


def openapi_document(routes: Iterable[Described], version: str) -> dict[str, Any]:
    """The document. `version` is the program's, which is the API's too."""
    routes = list(routes)
    names, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in routes:
        paths.setdefault(path, {})[method.lower()] = _operation(operation, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TARS supervisor",
            "version": version,
            "summary": "Runs a voice assistant's workers and owns their configuration.",
            "description": (
                "Errors are problem details (RFC 9457). Every answer carries `X-Request-ID`: yours, where it is 1 to 64 "
                "letters, digits, dots, hyphens and underscores, else one made here; the log has it too. "
                "HEAD is answered wherever GET is."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for _, _, operation in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                SECURITY_SCHEME: {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Token",
                    "description": "A token of CONFIG_API_TOKENS or CONFIG_API_TOKEN.",
                }
            },
        },
    }


def _schemas(routes: list[Described]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """By model, the reference to its schema; and all schemas by name."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ProblemDetails, "serialization")]
    for _, _, operation in routes:
        contents = [(operation.body, "validation")]
        contents += [(answer.content, "serialization") for answer in operation.answers.values()]
        for content, mode in contents:
            if content is not None and content.model is not None:
                wanted.append((content.model, "validation" if mode == "validation" else "serialization"))
    references, document = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_REF)
    by_model = {model: references[model, mode] for model, mode in wanted}
    schemas: dict[str, Any] = document["$defs"]
    sent = [references[model, mode] for model, mode in wanted if mode == "validation"]
    for name in schemas.keys() - _reachable(sent, schemas):
        # Of an answer: a later release may add members.
        if schemas[name].get("additionalProperties") is False:
            del schemas[name]["additionalProperties"]
    return by_model, schemas


def _reachable(parts: Any, schemas: dict[str, Any]) -> set[str]:
    """Names of the schemas that `parts` refer to, directly or not."""
    found: set[str] = set()
    open_ends = [parts]
    while open_ends:
        part = open_ends.pop()
        if isinstance(part, list):
            open_ends += part
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                open_ends.append(schemas[name])
            open_ends += part.values()
    return found


def _operation(operation: Operation, names: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    description: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.tag],
        "security": [] if operation.role is None else [{SECURITY_SCHEME: []}],
        "responses": {
            **{str(status): _answer(answer, names) for status, answer in operation.answers.items()},
            **_problems(operation.all_problems(), names),
        },
    }
    if operation.role is not None:
        description["description"] += f" Needs the role `{operation.role}`."
    if operation.parameters:
        description["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body is not None:
        description["requestBody"] = {"required": operation.body_required, "content": _content(operation.body, names)}
    return description


def _answer(answer: Answer, names: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description, "headers": {**_REQUEST_ID_HEADER}}
    for name, meaning in (answer.headers or {}).items():
        described["headers"][name] = {"description": meaning, "schema": {"type": "string"}}
    if answer.content is not None:
        described["content"] = _content(answer.content, names)
    return described


def _content(content: Content, names: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    bare = {"type": "object" if isinstance(content.example, dict) else "string"}
    schema = bare if content.model is None else names[content.model]
    return {media_type: {"schema": schema, "example": content.example} for media_type in content.media_types}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required or parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
        "example": parameter.example,
    }


def _problems(kinds: Iterable[Kind], names: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    """One answer for each status, with an example for each kind of problem."""
    answers = {}
    for status, group in groupby(sorted(kinds, key=lambda kind: kind.status), key=lambda kind: kind.status):
        same = list(group)
        headers = {**_REQUEST_ID_HEADER}
        for name, meaning in _HEADERS_OF.get(status, {}).items():
            headers[name] = {"description": meaning, "schema": {"type": "string"}}
        answers[str(status)] = {
            "description": "\n\n".join(f"**{kind.title}.** {kind.meaning}" for kind in same),
            "headers": headers,
            "content": {
                "application/problem+json": {
                    "schema": names[ProblemDetails],
                    "examples": {kind.code: {"summary": kind.title, "value": _example(kind)} for kind in same},
                }
            },
        }
    return answers


_REQUEST_ID_HEADER = {
    "X-Request-ID": {
        "description": "The request's id.",
        "schema": {"type": "string"},
        "example": _REQUEST_ID_EXAMPLE,
    }
}
_HEADERS_OF = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "How to authenticate."},
    HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": "The methods that the path has."},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "Seconds after which it is worth asking again."},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "Seconds after which it is worth asking again."},
}
_DETAILS: dict[str, tuple[str, dict[str, Any]]] = {
    "malformed": (
        "config.vad_threshold: NaN is not a JSON number; numbers must be finite.",
        {
            "errors": [
                {
                    "field": "vad_threshold",
                    "message": "NaN is not a JSON number; numbers must be finite.",
                    "type": "wrong_type",
                }
            ]
        },
    ),
    "stale-version": (
        "Version mismatch: expected 1, current is 2",
        {
            "current": {
                "version": 2,
                "config_epoch": "0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20",
                "request_id": "9f86d081884c7d65",
            }
        },
    ),
    "unknown-service": ('There is no service "stt-wroker"; did you mean "stt-worker"?', {}),
    "invalid": (
        'unknown key "vad_treshold"; did you mean "vad_threshold"?',
        {
            "errors": [
                {
                    "field": "vad_treshold",
                    "message": 'unknown key "vad_treshold"; did you mean "vad_threshold"?',
                    "type": "unknown_key",
                }
            ]
        },
    ),
}


def _example(kind: Kind) -> dict[str, Any]:
    detail, members = _DETAILS.get(kind.code, (kind.meaning, {}))
    return {
        "type": f"{PREFIX}{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": _REQUEST_ID_EXAMPLE,
        **members,
    }
