"""What a route says of itself, for the OpenAPI document and the guard alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from api.problems import KINDS, Kind
from schemas.states import Role


@dataclass(frozen=True, slots=True)
class Content:
    """What a body holds: a model (none where it is no JSON), an example of it, and the media types."""

    model: type[BaseModel] | None
    example: Any
    media_types: tuple[str, ...] = ("application/json",)


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: a sentence about it, its content, and header fields worth knowing with their meaning."""

    description: str
    content: Content | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A `path`, `query` or `header` parameter, with its JSON Schema."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any]
    example: Any


IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    "An `ETag` that you have; where it is still right, 304.",
    {"type": "string"},
    '"0b9d4c1e-3-8f14e45fceea167a"',
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. `role` is what it takes; every role includes `config.read`, and None asks for no token at all.

    `problems` are codes of `api.problems.KINDS`; those that every such call can end in are added.
    """

    id: str
    summary: str
    description: str
    tag: str
    role: Role | None
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    problems: tuple[str, ...] = ()

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
