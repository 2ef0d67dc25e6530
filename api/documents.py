"""What a route says of itself, for the OpenAPI document and the guard alike."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from pydantic import BaseModel

from api.problems import KINDS, Kind
from schemas.states import Role


class Content(Struct, frozen=True):
    """What a body holds: a model (none where it is no JSON), an example of it, and the media types."""

    model: type[BaseModel] | None
    example: Any
    media_types: tuple[str, ...] = ("application/json",)


class Answer(Struct, frozen=True):
    """A successful answer: a sentence about it, its content, and header fields worth knowing with their meaning."""

    description: str
    content: Content | None = None
    headers: Mapping[str, str] | None = None


class Parameter(Struct, frozen=True):
    """A `path`, `query` or `header` parameter, with its JSON Schema. One of the path is always required."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any]
    example: Any
    required: bool = False


IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    "An `ETag` that you have; where it is still right, 304.",
    {"type": "string"},
    '"0b9d4c1e-3-8f14e45fceea167a"',
)


class Operation(Struct, frozen=True):
    """One call. `role` is what it takes; every role includes `config.read`, and None asks for no token at all.

    `problems` are codes of `api.problems.KINDS`; those that every such call can end in are added. `path` is what the call is
    documented under, where its route takes more than the call does.
    """

    id: str
    summary: str
    description: str
    tag: str
    role: Role | None
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    body_required: bool = True
    problems: tuple[str, ...] = ()
    path: str | None = None

    def all_problems(self) -> tuple[Kind, ...]:
        """Every error that this call can end in, by status."""
        codes = {"malformed", "unknown-host", "head-too-large", "internal", "busy", *self.problems}
        if self.role is not None:
            codes.add("unauthorized")
            if self.role is not Role.READ:
                codes.add("forbidden")
        if self.body is not None:
            codes |= {"timeout", "too-large", "unsupported-type", "invalid"}
        return tuple(kind for kind in KINDS.values() if kind.code in codes)
