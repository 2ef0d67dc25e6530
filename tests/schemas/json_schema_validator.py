"""As much of JSON Schema 2020-12 as the schema for editors uses; any other keyword is an error, not passed over."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool) and (isinstance(value, int) or value == value // 1),
}
_FOR_PEOPLE: Final = {"$schema", "$defs", "title", "description", "default", "examples", "format", "then"}


class Validator:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def accepts(self, value: Any) -> bool:
        return self._holds(self._document, value)

    def _holds(self, schema: Any, value: Any) -> bool:
        if isinstance(schema, bool):
            return schema
        return all(
            self._keyword(schema, keyword, said, value)
            for keyword, said in schema.items()
            if keyword not in _FOR_PEOPLE
        )

    def _keyword(self, schema: Mapping[str, Any], keyword: str, said: Any, value: Any) -> bool:  # a table of keywords
        number = _TYPES["number"](value)
        match keyword:
            case "$ref":
                return self._holds(self._document["$defs"][said.removeprefix("#/$defs/")], value)
            case "type":
                return (number or said not in {"number", "integer"}) and _TYPES[said](value)
            case "const":
                return type(value) is type(said) and value == said
            case "enum":
                return isinstance(value, str) and value in said
            case "anyOf":
                return any(self._holds(each, value) for each in said)
            case "oneOf":
                return sum(self._holds(each, value) for each in said) == 1
            case "allOf":
                return all(self._holds(each, value) for each in said)
            case "if":
                return not self._holds(said, value) or self._holds(schema["then"], value)
            case "minimum":
                return not number or value >= said
            case "maximum":
                return not number or value <= said
            case "pattern":
                return not isinstance(value, str) or re.search(said, value) is not None
            case "minLength" | "maxLength":
                return not isinstance(value, str) or _within(keyword, said, value)
            case "minItems" | "maxItems":
                return not isinstance(value, list) or _within(keyword, said, value)
            case "items":
                return not isinstance(value, list) or all(self._holds(said, each) for each in value)
        if not isinstance(value, dict):
            assert keyword in {
                "required", "minProperties", "maxProperties", "propertyNames", "properties", "additionalProperties",
            }, keyword  # fmt: skip
            return True
        return self._of_an_object(schema, keyword, said, value)

    def _of_an_object(self, schema: Mapping[str, Any], keyword: str, said: Any, value: dict[str, Any]) -> bool:
        match keyword:
            case "required":
                return set(said) <= value.keys()
            case "minProperties" | "maxProperties":
                return _within(keyword, said, value)
            case "propertyNames":
                return all(self._holds(said, key) for key in value)
            case "properties":
                return all(self._holds(each, value[key]) for key, each in said.items() if key in value)
            case "additionalProperties":
                others = value.keys() - schema.get("properties", {}).keys()
                return all(self._holds(said, value[key]) for key in others)
        raise AssertionError(f"{keyword} is not known here")


def _within(keyword: str, bound: int, value: Any) -> bool:
    return len(value) >= bound if keyword.startswith("min") else len(value) <= bound
