"""Makes a model of a JSON Schema document, so that a worker in any language can bring its settings along.

The document is an object with `properties`, one for each setting, and optionally `$schema`, `$id`, `title`,
`description`, `type: "object"` and `additionalProperties: false`. Of JSON Schema (draft 2020-12) a setting has:

- `type`: `string`, `integer`, `number` or `boolean`, or a list of one of these and `"null"`; left out, it is `string`
  where `enum` is given;
- `enum` (texts), `minimum`, `maximum`, `exclusiveMinimum`, `minLength`, `maxLength`, `pattern` (searched for, not
  anchored; without look-around and back-references, so that matching takes linear time);
- `default`, required but for secrets and what may be null; `title`, `description`, `examples`;
- `format: "path"`, and `writeOnly: true` for a secret;
- `x-apply` (`live` or `restart`, the default), `x-complexity` (`simple`, the default, or `advanced`), `x-unit`, `x-help`.

Anything else is refused, since a rule that is silently not kept is worse than none.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, SecretStr, StringConstraints, TypeAdapter, create_model
from pydantic_core import SchemaError

from schemas.model_reader import KEY, KEY_WORDS, MAX_SETTINGS
from schemas.problems import SchemaInvalid, did_you_mean, listed
from schemas.settings import PathText, ServiceModel

_TYPES: Final[dict[str, Any]] = {"string": str, "integer": int, "number": float, "boolean": bool}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**31


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# Keyword to what its value must be; the check comes with the words for it.
_Check = tuple[Callable[[Any], bool], str]
_TEXT: Final[_Check] = (_is_text, "a text")
_NUMBER: Final[_Check] = (_is_number, "a number")
_COUNT: Final[_Check] = (_is_count, "a whole number from 0")

_DOCUMENT: Final[dict[str, _Check]] = {
    "$schema": _TEXT,
    "$id": _TEXT,
    "title": _TEXT,
    "description": _TEXT,
    "type": (lambda value: value == "object", '"object"'),
    "additionalProperties": (lambda value: value is False, "false: unknown keys are always refused"),
    "properties": (lambda value: isinstance(value, Mapping), "an object"),
}
_SETTING: Final[dict[str, _Check]] = {
    "type": (lambda value: _type_and_null(value) is not None, f"{listed(tuple(_TYPES))}, or a list of one and null"),
    "enum": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)),
        "a list of at least one text",
    ),
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _NUMBER,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "pattern": _TEXT,
    "default": (lambda _: True, ""),
    "title": _TEXT,
    "description": _TEXT,
    "examples": (lambda value: isinstance(value, list), "a list"),
    "format": (lambda value: value == "path", '"path"'),
    "writeOnly": (lambda value: isinstance(value, bool), "true or false"),
    "x-apply": (lambda value: value in ("live", "restart"), '"live" or "restart"'),
    "x-complexity": (lambda value: value in ("simple", "advanced"), '"simple" or "advanced"'),
    "x-unit": _TEXT,
    "x-help": _TEXT,
}
# Keyword to the types that it says something about.
_ONLY_FOR: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum"), ("integer", "number")),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "enum", "format", "writeOnly"), ("string",)),
}
_ARGUMENTS: Final = {
    "title": "title",
    "description": "description",
    "examples": "examples",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
}


def model_from_json_schema(document: Mapping[str, Any], source: str) -> type[BaseModel]:
    """The model that `document` describes; `source` names it in errors.

    Raises:
        SchemaInvalid: with every problem, each naming its key.
    """
    problems = _wrong_keywords("", document, _DOCUMENT)
    properties = document.get("properties", {})
    if not isinstance(properties, Mapping) or not properties:
        raise SchemaInvalid(source, [*problems, '"properties" must be an object with at least one setting'])
    if len(properties) > MAX_SETTINGS:
        raise SchemaInvalid(source, [f"it has {len(properties)} settings; at most {MAX_SETTINGS} are allowed"])
    fields: dict[str, Any] = {}
    for key, raw in properties.items():
        where = f'setting "{key[:80]}": '
        found = _name_problems(key) or _setting_problems(raw)
        problems += [where + problem for problem in found]
        if not found:
            fields[key] = _field(raw)
    if problems:
        raise SchemaInvalid(source, problems)
    return create_model("Settings", __base__=ServiceModel, __module__=__name__, **fields)


def _name_problems(key: str) -> list[str]:
    if not KEY.fullmatch(key):
        return [KEY_WORDS]
    if hasattr(ServiceModel, key):
        return ["the name is taken by the model class; give the setting another, for example a longer one"]
    return []


def _setting_problems(raw: object) -> list[str]:
    if not isinstance(raw, Mapping):
        return ["it must be an object"]
    problems = _wrong_keywords("", raw, _SETTING)
    if "type" not in raw and "enum" not in raw:
        problems.append(f'"type" is missing; it can be {listed(tuple(_TYPES))}')
    if problems:
        return problems
    type_, nullable = _kind(raw)
    problems += [
        f'"{keyword}" says nothing about the type {type_}; remove it'
        for keyword, types in _ONLY_FOR.items()
        if keyword in raw and type_ not in types
    ]
    special = [keyword for keyword in ("enum", "format", "writeOnly") if raw.get(keyword)]
    if len(special) > 1:
        problems.append(f"{listed(special, 'and')} cannot be combined")
    if "default" not in raw and not nullable and not raw.get("writeOnly"):
        problems.append('"default" is missing')
    for low, high in (("minimum", "maximum"), ("exclusiveMinimum", "maximum"), ("minLength", "maxLength")):
        if low in raw and high in raw and raw[low] > raw[high]:
            problems.append(f'"{low}" {raw[low]} is more than "{high}" {raw[high]}')
    if type_ == "integer":
        problems += [
            f'"{keyword}" must be a whole number, since the type is integer'
            for keyword in ("minimum", "maximum", "exclusiveMinimum")
            if isinstance(raw.get(keyword), float) and not raw[keyword].is_integer()
        ]
    if "pattern" in raw and (reason := _pattern_problem(raw["pattern"])):
        problems.append(f'"pattern" is not a regular expression that can be used: {reason}')
    return problems


def _wrong_keywords(where: str, raw: Mapping[str, Any], known: Mapping[str, _Check]) -> list[str]:
    problems = []
    for keyword, value in raw.items():
        if keyword not in known:
            suggestion = did_you_mean(str(keyword), known) or f"; supported are {listed(tuple(known), 'and')}"
            problems.append(f'{where}keyword "{str(keyword)[:80]}" is not supported{suggestion}')
            continue
        fits, words = known[keyword]
        if not fits(value):
            problems.append(f'{where}"{keyword}" must be {words}')
    return problems


def _type_and_null(value: object) -> tuple[str, bool] | None:
    """A `type`'s name and whether null is allowed; None where it is not one of ours."""
    if isinstance(value, str):
        return (value, False) if value in _TYPES else None
    if isinstance(value, list) and len(value) == 2 and "null" in value:
        other = value[0] if value[1] == "null" else value[1]
        return (other, True) if isinstance(other, str) and other in _TYPES else None
    return None


def _kind(raw: Mapping[str, Any]) -> tuple[str, bool]:
    return _type_and_null(raw.get("type", "string")) or ("string", False)


def _pattern_problem(pattern: str) -> str | None:
    try:
        TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError as error:
        # The engine's last line says what is wrong; those before it draw an arrow.
        return str(error).strip().splitlines()[-1].strip().removeprefix("error: ")
    return None


def _field(raw: Mapping[str, Any]) -> tuple[Any, Any]:
    name, nullable = _kind(raw)
    type_ = _TYPES[name]
    if raw.get("writeOnly"):
        type_, nullable = SecretStr, True
    elif "enum" in raw:
        type_ = Literal[tuple(raw["enum"])]
    elif "format" in raw:
        type_ = PathText
    arguments = {_ARGUMENTS[keyword]: value for keyword, value in raw.items() if keyword in _ARGUMENTS}
    if name == "integer":
        arguments |= {bound: int(arguments[bound]) for bound in ("ge", "gt", "le") if bound in arguments}
    extra = {keyword: value for keyword, value in raw.items() if keyword.startswith("x-")}
    # Nothing but the document's own values goes in, and those were checked above.
    info = Field(default=raw.get("default"), json_schema_extra=extra, **arguments)
    return (type_ | None if nullable else type_), info
