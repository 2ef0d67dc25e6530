"""Makes a model of a JSON Schema document, so that a worker in any language can bring its settings along.

The document is an object with `properties`, one for each setting, and optionally `$schema`, `$id`, `$defs`, `$comment`,
`title`, `description`, `type: "object"`, `required` and `additionalProperties: false`. Of JSON Schema (draft 2020-12) a
setting has:

- `type`: `string`, `integer`, `number` or `boolean`, or a list of one of these and `"null"`; left out, it is `string`
  where `enum` or `const` is given;
- `anyOf` of one schema and `{"type": "null"}`, `$ref` to one of `$defs`, or `allOf` of one schema, as Pydantic writes them;
- `enum` (texts), `const` (a text), `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength`,
  `pattern` (searched for, not anchored; without look-around and back-references, so that matching takes linear time);
- `default`, required but for secrets and what may be null; `title`, `description`, `examples`, `$comment`;
- `format: "path"` (also `file-path`, `directory-path`), and `writeOnly: true` or `format: "password"` for a secret;
- `x-apply` (`live` or `restart`, the default), `x-complexity` (`simple`, the default, or `advanced`), `x-unit`, `x-help`.

Anything else is refused, since a rule that is silently not kept is worse than none. `required` says nothing here: a
configuration is always whole, since every setting has a default.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, SecretStr, StringConstraints, TypeAdapter, create_model
from pydantic_core import SchemaError

from schemas._flat_json_schema import flat_setting
from schemas.model_reader import KEY, KEY_WORDS, MAX_SETTINGS
from schemas.problems import SchemaInvalid, did_you_mean, listed, unknown_key
from schemas.settings import PathText, ServiceModel

_FORMATS: Final = ("path", "file-path", "directory-path", "password")
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
    "$comment": _TEXT,
    "$defs": (lambda value: isinstance(value, Mapping), "an object"),
    "title": _TEXT,
    "description": _TEXT,
    "type": (lambda value: value == "object", '"object"'),
    "additionalProperties": (lambda value: value is False, "false: unknown keys are always refused"),
    "properties": (lambda value: isinstance(value, Mapping), "an object"),
    "required": (lambda value: isinstance(value, list) and all(map(_is_text, value)), "a list of settings"),
}
_SETTING: Final[dict[str, _Check]] = {
    "type": (lambda value: _type_and_null(value) is not None, f"{listed(tuple(_TYPES))}, or a list of one and null"),
    "enum": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)),
        "a list of at least one text",
    ),
    "const": _TEXT,
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _NUMBER,
    "exclusiveMaximum": _NUMBER,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "pattern": _TEXT,
    "default": (lambda _: True, ""),
    "title": _TEXT,
    "description": _TEXT,
    "$comment": _TEXT,
    "examples": (lambda value: isinstance(value, list), "a list"),
    "format": (lambda value: value in _FORMATS, listed([f'"{each}"' for each in _FORMATS])),
    "writeOnly": (lambda value: isinstance(value, bool), "true or false"),
    "x-apply": (lambda value: value in ("live", "restart"), '"live" or "restart"'),
    "x-complexity": (lambda value: value in ("simple", "advanced"), '"simple" or "advanced"'),
    "x-unit": _TEXT,
    "x-help": _TEXT,
}
# The whole language, for the documentation.
DOCUMENT_KEYWORDS: Final = frozenset(_DOCUMENT)
SETTING_KEYWORDS: Final = frozenset(_SETTING) | {"anyOf", "allOf", "$ref"}

# JSON Schema's other keywords, of which nobody may be told that they were meant as one of ours.
_UNSUPPORTED: Final = frozenset(
    """
    $anchor $dynamicAnchor $dynamicRef $recursiveRef $vocabulary additionalItems contains contentEncoding
    contentMediaType contentSchema definitions dependencies dependentRequired dependentSchemas deprecated else if items
    maxContains maxItems maxProperties minContains minItems minProperties multipleOf not oneOf patternProperties
    prefixItems propertyNames readOnly then unevaluatedItems unevaluatedProperties uniqueItems
    """.split()  # noqa: SIM905 - a list takes a line for each word
) | {"anyOf", "allOf", "$ref"}
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
# Keyword to the types that it says something about.
_ONLY_FOR: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(_BOUNDS, ("integer", "number")),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "enum", "const", "format", "writeOnly"), ("string",)),
}
_NO_NUMBER_BETWEEN: Final = (
    ("minimum", "maximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "maximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
    ("minLength", "maxLength"),
)
_ARGUMENTS: Final = {
    "title": "title",
    "description": "description",
    "examples": "examples",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
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
    definitions = document.get("$defs")
    fields: dict[str, Any] = {}
    for key, raw in properties.items():
        where = f'setting "{key[:80]}": '
        flat, found = flat_setting(raw, definitions if isinstance(definitions, Mapping) else {})
        found = _name_problems(key) or found or _setting_problems(flat)
        problems += [where + problem for problem in found]
        if not found:
            fields[key] = _field(flat)
    problems += _required_problems(document.get("required"), properties)
    if problems:
        raise SchemaInvalid(source, problems)
    return create_model("Settings", __base__=ServiceModel, __module__=__name__, **fields)


def _name_problems(key: str) -> list[str]:
    if not KEY.fullmatch(key):
        return [KEY_WORDS]
    if hasattr(ServiceModel, key):
        return ["the name is taken by the model class; give the setting another, for example a longer one"]
    return []


def _required_problems(required: object, properties: Mapping[str, Any]) -> list[str]:
    # Of another type, it was told already.
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return [f'"required": {unknown_key(name, properties)}' for name in names if name not in properties]


def _setting_problems(raw: Mapping[str, Any]) -> list[str]:
    problems = _wrong_keywords("", raw, _SETTING)
    if not {"type", "enum", "const"} & raw.keys():
        problems.append(f'"type" is missing; it can be {listed(tuple(_TYPES))}')
    if problems:
        return problems
    type_, nullable = _kind(raw)
    problems += [
        f'"{keyword}" says nothing about the type {type_}; remove it'
        for keyword, types in _ONLY_FOR.items()
        if keyword in raw and type_ not in types
    ]
    special = [keyword for keyword in ("enum", "const", "format", "writeOnly") if raw.get(keyword)]
    if len(special) > 1 and not (
        _is_secret(raw) and special == ["format", "writeOnly"] and raw["format"] == "password"
    ):
        problems.append(f"{listed(special, 'and')} cannot be combined")
    if "default" not in raw and not nullable and not _is_secret(raw):
        problems.append('"default" is missing: nobody has to set it, so it needs one, or may be null')
    for low, high in _NO_NUMBER_BETWEEN:
        if low in raw and high in raw:
            if raw[low] > raw[high]:
                problems.append(f'"{low}" {raw[low]} is more than "{high}" {raw[high]}')
            elif raw[low] == raw[high] and "exclusive" in low + high:
                problems.append(f'"{low}" and "{high}" are both {raw[low]}, which leaves no number')
    if type_ == "integer":
        problems += [
            f'"{keyword}" must be a whole number, since the type is integer'
            for keyword in _BOUNDS
            if isinstance(raw.get(keyword), float) and not raw[keyword].is_integer()
        ]
    if "pattern" in raw and (reason := _pattern_problem(raw["pattern"])):
        problems.append(f'"pattern" is not a regular expression that can be used: {reason}')
    return problems


def _wrong_keywords(where: str, raw: Mapping[str, Any], known: Mapping[str, _Check]) -> list[str]:
    problems = []
    for keyword, value in raw.items():
        if keyword not in known:
            suggestion = "" if keyword in _UNSUPPORTED | _SETTING.keys() else did_you_mean(str(keyword), known)
            suggestion = suggestion or f"; supported are {listed(tuple(known), 'and')}"
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


def _is_secret(raw: Mapping[str, Any]) -> bool:
    return bool(raw.get("writeOnly")) or raw.get("format") == "password"


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
    if _is_secret(raw):
        type_, nullable = SecretStr, True
    elif "enum" in raw or "const" in raw:
        type_ = Literal[tuple(raw.get("enum", [raw.get("const")]))]
    elif "format" in raw:
        type_ = PathText
    arguments = {_ARGUMENTS[keyword]: value for keyword, value in raw.items() if keyword in _ARGUMENTS}
    if name == "integer":
        arguments |= {bound: int(arguments[bound]) for bound in ("ge", "gt", "le", "lt") if bound in arguments}
    extra = {keyword: value for keyword, value in raw.items() if keyword.startswith("x-")}
    # Nothing but the document's own values goes in, and those were checked above.
    info = Field(default=raw.get("default"), json_schema_extra=extra, **arguments)
    return (type_ | None if nullable else type_), info
