"""The JSON Schema of a manifest, for editors (draft 2020-12): made from the models, with their words."""

from collections.abc import Mapping
from typing import Any, Final

from schemas.manifest._models import MAX_SERVICES, Manifest, Service
from schemas.manifest._rules import KEYS_OF, SHARED_KEYS
from schemas.states import Kind
from schemas.types import SERVICE_NAME_PATTERN

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def editor_schema() -> dict[str, Any]:
    """Give the document that `deploy/services.schema.json` holds.

    It refuses what an editor can see in one place; rules between services are `parse_manifest`'s alone.
    """
    service = Service.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
    manifest = Manifest.model_json_schema(mode="validation")
    definitions = service.pop("$defs")
    service["properties"].pop("name")
    # They follow from the service's name.
    service.pop("required")
    service["description"] = "One service."
    for definition in definitions.values():
        if "const" in definition.get("properties", {}).get("kind", {}):
            # By it a probe's table is read, so it cannot be left out.
            definition["required"] = ["kind", *definition.get("required", [])]
    service["allOf"] = _by_kind(service["properties"])
    concurrent_starts = _without_null(manifest["properties"]["concurrent_starts"])
    document = {
        "$schema": _DIALECT,
        "title": "Manifest of tars-supervisor",
        "description": "Which services there are, and how their workers are run.",
        "type": "object",
        "additionalProperties": False,
        "required": ["services"],
        "properties": {
            "supervisor": {
                "description": "What holds for all services together.",
                "type": "object",
                "additionalProperties": False,
                "properties": {"concurrent_starts": concurrent_starts},
            },
            "defaults": {
                "description": "What services of kind `process` have where they do not say otherwise.",
                "type": "object",
                "additionalProperties": False,
                "properties": {key: service["properties"][key] for key in SHARED_KEYS},
            },
            "services": {
                "description": "One table for each service, by its name.",
                "type": "object",
                "minProperties": 1,
                "maxProperties": MAX_SERVICES,
                "propertyNames": {"pattern": SERVICE_NAME_PATTERN},
                "additionalProperties": {"$ref": "#/$defs/Service"},
            },
        },
        "$defs": {"Service": service, **definitions},
    }
    tidied: dict[str, Any] = _tidied(document)
    return {**tidied, "title": document["title"]}


def _by_kind(properties: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which keys a kind does not have, and that a process needs a command."""
    conditions: list[dict[str, Any]] = []
    for kind in Kind:
        refused = {key: False for key in properties if key not in KEYS_OF[kind]}
        then: dict[str, Any] = {"properties": refused}
        condition: dict[str, Any] = {"properties": {"kind": {"const": kind.value}}}
        if kind is Kind.PROCESS:
            # It is the kind of those that do not say one: a condition on a key that is not there holds.
            then["required"] = ["command"]
            then["properties"] = {**refused, "command": {"minItems": 1}}
        else:
            condition["required"] = ["kind"]
        conditions.append({"if": condition, "then": then})
    return conditions


def _tidied(node: Any, *, names: bool = False) -> Any:
    """Without Pydantic's titles, which say a key again, and without null, which TOML does not have.

    `names`: the keys of `node` are names of somebody's, not keywords.
    """
    if isinstance(node, list):
        return [_tidied(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = node if names else _without_null(node)
    return {
        key: value
        if key in {"default", "examples", "const", "enum"} and not names
        else _tidied(value, names=not names and key in {"properties", "$defs"})
        for key, value in node.items()
        if names or key not in {"title", "discriminator"}
    }


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    choices = plain.get("anyOf", [])
    left = [each for each in choices if each != {"type": "null"}]
    if len(left) == 1 and len(choices) == 2:
        del plain["anyOf"]
        return {**left[0], **plain}
    if len(left) < len(choices):
        plain["anyOf"] = left
    return plain
