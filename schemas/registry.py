"""Which model describes which service."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from schemas.json_schema import model_from_json_schema
from schemas.problems import SchemaInvalid, did_you_mean, listed
from schemas.service_schema import ServiceSchema
from schemas.services import LlmWorker, MemoryWorker, Router, SttWorker, TtsWorker, WakeActivation
from schemas.settings import ServiceModel

BUILT_IN: Final[Mapping[str, type[ServiceModel]]] = MappingProxyType(
    {
        "stt-worker": SttWorker,
        "tts-worker": TtsWorker,
        "router": Router,
        "llm-worker": LlmWorker,
        "memory-worker": MemoryWorker,
        "wake-activation": WakeActivation,
    }
)


def schema_for(
    name: str, reference: str | type[BaseModel] | Mapping[str, Any] | None = None, *, source: str | None = None
) -> ServiceSchema:
    """The schema of the service `name`.

    Args:
        name: the service's name.
        reference: a built-in model's name (None: the service's own name), a Pydantic model class, or a parsed JSON
            Schema document (see `schemas.json_schema`). Who has a file or an import path in hand reads it first.
        source: what errors call the reference, such as the file's name.

    Raises:
        SchemaInvalid: there is no such built-in model, or it cannot describe settings; with every problem.
    """
    if reference is None or isinstance(reference, str):
        return _built_in(reference or name).of(name)
    if isinstance(reference, Mapping):
        source = source or f"JSON Schema of {name}"
        return ServiceSchema(name, model_from_json_schema(reference, source), source=source)
    return ServiceSchema(name, reference, source=source)


@cache
def _built_in(model: str) -> ServiceSchema:
    if model not in BUILT_IN:
        problem = (
            f"there is no built-in model of that name{did_you_mean(model, BUILT_IN) or '.'} "
            f"The built-in ones are {listed(tuple(BUILT_IN), 'and')}; a model of your own is named as "
            "package.module:Class or as a JSON Schema file that ends in .json."
        )
        raise SchemaInvalid(f'model "{model}"', [problem])
    return ServiceSchema(model, BUILT_IN[model])
