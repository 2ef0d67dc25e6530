"""Takes out of a setting's JSON Schema the ways round that Pydantic goes: for what may be null, and for enumerations."""

from collections.abc import Mapping
from typing import Any


def flat_setting(raw: object, definitions: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`raw` without `anyOf`, `allOf` and `$ref`, and problems where these say something else than Pydantic does.

    What may be null has the type `[..., "null"]` then. What a reference leads to is not followed any further.
    """
    if not isinstance(raw, Mapping):
        return {}, ["it must be an object"]
    flat, nullable, problems = dict(raw), False, list[str]()
    if "anyOf" in flat:
        choices = flat.pop("anyOf")
        choices = choices if isinstance(choices, list) else []
        others = [choice for choice in choices if choice != {"type": "null"}]
        if len(choices) != 2 or len(others) != 1:
            return {}, ['"anyOf" must be a list of one schema and {"type": "null"}']
        nullable = True
        problems += _merge(flat, others[0], "anyOf")
    if "allOf" in flat:
        choices = flat.pop("allOf")
        if not isinstance(choices, list) or len(choices) != 1:
            return {}, ['"allOf" must be a list of one schema']
        problems += _merge(flat, choices[0], "allOf")
    if "$ref" in flat:
        reference = flat.pop("$ref")
        target = definitions.get(reference.removeprefix("#/$defs/")) if isinstance(reference, str) else None
        if target is None:
            return {}, ['"$ref" must be "#/$defs/…" and name one of the document\'s "$defs"']
        problems += _merge(flat, target, "$ref")
    if {"enum", "const"} & flat.keys():
        flat.setdefault("type", "string")
    if nullable and isinstance(flat.get("type"), str):
        flat["type"] = [flat["type"], "null"]
    return flat, problems


def _merge(flat: dict[str, Any], inner: object, where: str) -> list[str]:
    """Adds what `inner` says; both have to hold, so a keyword may not say two things."""
    if not isinstance(inner, Mapping):
        return [f'"{where}" must hold an object']
    found = []
    for keyword, value in inner.items():
        if where == "$ref" and keyword in {"title", "description"}:
            continue  # those of an enumeration class say nothing about this setting
        if keyword not in {"title", "description"} and flat.get(keyword, value) != value:
            found.append(f'"{keyword}" stands beside and inside "{where}" with two values; remove one')
        flat.setdefault(keyword, value)
    return found
