"""Reads the settings of a service out of a Pydantic model.

It reads the model's JSON Schema, so that our own models, anybody's plain Pydantic model and a JSON Schema
document are described in one vocabulary. `x-apply`, `x-complexity`, `x-unit` and `x-help` may be given by
`json_schema_extra`; without them a setting is simple and needs a restart.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.field_spec import FieldSpec, FieldType
from schemas.problems import SchemaInvalid, listed
from schemas.reserved import reserved_for_settings
from schemas.settings import Apply, Complexity

MAX_SETTINGS: Final = 500

KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
KEY_WORDS: Final = "the name must be a lower-case letter, then at most 62 lower-case letters, digits and underscores"
_SIMPLE_TYPES: Final[dict[str, FieldType]] = {
    "string": "string",
    "integer": "integer",
    "number": "float",
    "boolean": "boolean",
}


def read_fields(model: type[BaseModel], source: str) -> dict[str, FieldSpec]:
    """The settings of `model` in its order; `source` names it in errors.

    Raises:
        SchemaInvalid: it holds something that is no setting, with every problem.
    """
    problems: list[str] = []
    if not model.model_fields:
        raise SchemaInvalid(source, ["it has no settings; declare at least one field with a default"])
    if len(model.model_fields) > MAX_SETTINGS:
        raise SchemaInvalid(source, [f"it has {len(model.model_fields)} settings; at most {MAX_SETTINGS} are allowed"])
    try:
        schema = model.model_json_schema(by_alias=False, mode="validation")
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise SchemaInvalid(source, [f"a field has a type that JSON cannot carry: {error.message}"]) from error
    fields: dict[str, FieldSpec] = {}
    for key, info in model.model_fields.items():
        found = [*_key_problems(key, info), *_default_problems(key, info)]
        if not found:
            # Without a title of its own a field is called by its key in words, not as Pydantic capitalises it.
            raw = {
                **schema.get("properties", {}).get(key, {}),
                "title": info.title or key.replace("_", " ").capitalize(),
            }
            spec = _read(key, raw, schema.get("$defs", {}), found)
            if spec is not None:
                fields[key] = spec
        problems += found
    if problems:
        raise SchemaInvalid(source, problems)
    return fields


def _key_problems(key: str, info: FieldInfo) -> list[str]:
    if not KEY.fullmatch(key):
        return [f'setting "{key[:80]}": {KEY_WORDS}']
    if reserved_for_settings(key.upper()):
        return [
            (
                f'setting "{key}": the environment variable {key.upper()} has another meaning already; '
                "give the setting another name, for example one that begins with the service's name"
            )
        ]
    if info.alias or info.validation_alias or info.serialization_alias:
        return [f'setting "{key}": aliases are not supported; name the field as the setting shall be called']
    return []


def _default_problems(key: str, info: FieldInfo) -> list[str]:
    if info.default_factory is not None:
        return [f'setting "{key}": give it a fixed default in place of a default_factory']
    if info.default is PydanticUndefined:
        return [f'setting "{key}": it has no default; a secret\'s is None']
    return []


def _read(key: str, raw: Mapping[str, Any], definitions: Mapping[str, Any], problems: list[str]) -> FieldSpec | None:
    schema, nullable = _flatten(raw, definitions)
    type_ = _type_of(schema)
    if type_ is None:
        problems.append(
            f'setting "{key}": its type is not supported; a setting is text, a whole number, a number, true or '
            "false, one of several texts, a path or a secret, each of them optionally null"
        )
        return None
    allowed = _allowed(schema)
    default = schema.get("default")
    found = [
        _not_one_of("x-complexity", schema.get("x-complexity", "simple"), get_args(Complexity)),
        _not_one_of("x-apply", schema.get("x-apply", "restart"), get_args(Apply)),
        "a secret's default must be null: values of secrets are kept apart"
        if type_ == "secret" and default is not None
        else "",
        "it may be null, which cannot be combined with a list of allowed values"
        if nullable and allowed is not None
        else "",
        *(
            f"{name} must be text"
            for name in ("title", "description", "x-help", "x-unit")
            if not isinstance(schema.get(name, ""), str)
        ),
    ]
    if any(found):
        problems.extend(f'setting "{key}": {problem}' for problem in found if problem)
        return None
    minimum, exclusive_minimum = _bound(schema, "minimum", "exclusiveMinimum", type_, step=1)
    maximum, exclusive_maximum = _bound(schema, "maximum", "exclusiveMaximum", type_, step=-1)
    return FieldSpec(
        key=key,
        title=schema["title"],
        type=type_,
        complexity=cast(Complexity, schema.get("x-complexity", "simple")),
        apply=cast(Apply, schema.get("x-apply", "restart")),
        description=schema.get("description", ""),
        help_text=schema.get("x-help", ""),
        # An existing web client reads the allowed values of an enum here.
        examples=allowed if allowed is not None else () if type_ == "secret" else tuple(schema.get("examples", ())),
        default=default,
        nullable=nullable or type_ == "secret",
        unit=schema.get("x-unit"),
        minimum=minimum,
        maximum=maximum,
        exclusive_minimum=exclusive_minimum,
        exclusive_maximum=exclusive_maximum,
        min_length=schema.get("minLength"),
        max_length=schema.get("maxLength"),
        pattern=schema.get("pattern"),
        allowed=allowed,
    )


def _flatten(raw: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """One flat schema and whether null is allowed, out of `anyOf: [..., null]` and `$ref`."""
    schema = dict(raw)
    nullable = False
    if "anyOf" in schema:
        choices = [choice for choice in schema.pop("anyOf") if choice != {"type": "null"}]
        nullable = len(choices) < len(raw["anyOf"])
        if len(choices) != 1:
            return {}, nullable
        schema = {**choices[0], **schema}
    if "$ref" in schema:
        target = definitions.get(schema.pop("$ref").removeprefix("#/$defs/"), {})
        # The title and the description of an enumeration class say nothing about this setting.
        schema = {**{k: v for k, v in target.items() if k not in {"title", "description"}}, **schema}
    return schema, nullable


def _type_of(schema: Mapping[str, Any]) -> FieldType | None:
    type_ = schema.get("type")
    if schema.get("writeOnly") is True or schema.get("format") == "password":
        return "secret" if type_ == "string" else None
    if _allowed(schema) is not None:
        return "enum" if type_ == "string" else None
    if "enum" in schema or "const" in schema:
        return None
    if type_ == "string" and str(schema.get("format", "")).endswith("path"):
        return "path"
    return _SIMPLE_TYPES.get(str(type_))


def _allowed(schema: Mapping[str, Any]) -> tuple[str, ...] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not values or not all(isinstance(value, str) for value in values):
        return None
    return tuple(values)


def _bound(
    schema: Mapping[str, Any], inclusive: str, exclusive: str, type_: FieldType, *, step: int
) -> tuple[int | float | None, bool]:
    """A bound and whether it is exclusive itself; of an integer the nearest one that is allowed: `> 0` is 1."""
    if exclusive not in schema:
        return schema.get(inclusive), False
    value = schema[exclusive]
    if type_ == "integer" and isinstance(value, int):
        near = value + step
        other = schema.get(inclusive)
        return (near if other is None else (max if step > 0 else min)(near, other)), False
    return value, True


def _not_one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    return "" if value in allowed else f"{name} must be {listed(allowed)}"
