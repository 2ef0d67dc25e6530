"""A JSON Schema document as a service's model."""

from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from schemas.problems import ConfigInvalid, SchemaInvalid
from schemas.registry import BUILT_IN, schema_for

KITCHEN: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Kitchen display",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "brightness": {
            "type": "integer",
            "title": "Brightness",
            "description": "How bright the display is.",
            "minimum": 0,
            "maximum": 100,
            "default": 80,
            "examples": [20, 80],
            "x-apply": "live",
            "x-complexity": "advanced",
            "x-unit": "%",
            "x-help": "Higher is brighter.",
        },
        "gamma": {"type": "number", "exclusiveMinimum": 0, "default": 1},
        "theme": {"enum": ["dark", "light"], "default": "dark"},
        "greeting": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[A-Z]", "default": "Hello"},
        "weather": {"type": ["string", "null"], "default": None},
        "night": {"type": "boolean", "default": False},
        "pictures": {"type": "string", "format": "path", "default": "/srv/pictures"},
        "api_key": {"type": "string", "writeOnly": True, "minLength": 8},
    },
}


def test_a_document_becomes_a_schema_like_any_other() -> None:
    schema = schema_for("kitchen", KITCHEN)
    types = [spec.type for spec in schema.fields.values()]
    assert types == ["integer", "float", "enum", "string", "string", "boolean", "path", "secret"]
    assert schema.restart_keys == set(schema.keys) - {"brightness"}
    assert schema.defaults() == {
        "brightness": 80,
        "gamma": 1.0,
        "theme": "dark",
        "greeting": "Hello",
        "weather": None,
        "night": False,
        "pictures": "/srv/pictures",
    }
    brightness = schema.fields["brightness"]
    assert (brightness.unit, brightness.complexity, brightness.help_text) == ("%", "advanced", "Higher is brighter.")
    assert schema.fields["gamma"].title == "Gamma"
    with pytest.raises(ConfigInvalid) as caught:
        schema.check(
            {"brightness": 101, "gamma": 0, "theme": "red", "greeting": "hello", "nite": True, "pictures": "a\0"},
            secrets={"api_key": "short"},
        )
    assert [error.message for error in caught.value.errors] == [
        "Brightness is 101 %. It can be 0 to 100 %.",
        "Gamma is 0. It must be more than 0.",
        'Theme is "red". It can be dark or light.',
        'Greeting is "hello". It must match the pattern ^[A-Z].',
        "Pictures holds a NUL character. It must not.",
        "Api key: It must have at least 8 characters.",
        'unknown key "nite"; did you mean "night"?',
    ]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (3, "it must be an object"),
        ({}, '"type" is missing; it can be string, integer, number or boolean'),
        (
            {"type": "text", "default": ""},
            '"type" must be string, integer, number or boolean, or a list of one and null',
        ),
        ({"type": "integer"}, '"default" is missing'),
        (
            {"type": "integer", "default": 1, "minumum": 0},
            'keyword "minumum" is not supported; did you mean "minimum"?',
        ),
        ({"type": "integer", "default": 1, "multipleOf": 2}, 'keyword "multipleOf" is not supported'),
        ({"type": "integer", "default": 1, "minimum": "0"}, '"minimum" must be a number'),
        ({"type": "integer", "default": 1, "minimum": 0.5}, '"minimum" must be a whole number'),
        ({"type": "integer", "default": 1, "minimum": 3, "maximum": 2}, '"minimum" 3 is more than "maximum" 2'),
        ({"type": "integer", "default": 1, "pattern": "a"}, '"pattern" says nothing about the type integer'),
        ({"type": "string", "default": "", "minLength": -1}, '"minLength" must be a whole number from 0'),
        (
            {"type": "string", "default": "", "pattern": "(?=a)"},
            '"pattern" is not a regular expression that can be used',
        ),
        ({"type": "string", "default": "", "format": "email"}, '"format" must be "path", "file-path"'),
        (
            {"type": "number", "default": 1, "exclusiveMinimum": 1, "exclusiveMaximum": 1},
            '"exclusiveMinimum" and "exclusiveMaximum" are both 1, which leaves no number',
        ),
        ({"type": "integer", "default": 1, "exclusiveMaximum": 0.5}, '"exclusiveMaximum" must be a whole number'),
        ({"type": "string", "default": "", "exclusiveMaximum": 1}, '"exclusiveMaximum" says nothing about the type'),
        ({"const": 3, "default": "a"}, '"const" must be a text'),
        ({"const": "a", "enum": ["a"], "default": "a"}, "enum and const cannot be combined"),
        (
            {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 1},
            '"anyOf" must be a list of one schema and {"type": "null"}',
        ),
        ({"anyOf": [{}, {"type": "null"}]}, '"type" is missing'),
        ({"anyOf": 3}, '"anyOf" must be a list of one schema'),
        ({"anyOf": [3, {"type": "null"}]}, '"anyOf" must hold an object'),
        ({"anyOf": [{"type": "string", "anyOf": []}, {"type": "null"}]}, 'keyword "anyOf" is not supported'),
        (
            {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "minimum": 1},
            '"minimum" stands beside and inside "anyOf" with two values; remove one',
        ),
        ({"allOf": [{}, {}]}, '"allOf" must be a list of one schema'),
        ({"$ref": "#/$defs/Loop", "type": "string", "default": ""}, 'keyword "$ref" is not supported'),
        ({"$ref": "other.json"}, '"$ref" must be "#/$defs/…" and name one of the document\'s "$defs"'),
        ({"$ref": 3}, '"$ref" must be "#/$defs/…"'),
        ({"type": "string", "default": "", "x-apply": "later"}, '"x-apply" must be "live" or "restart"'),
        ({"enum": [], "default": ""}, '"enum" must be a list of at least one text'),
        ({"enum": ["a"], "default": "a", "writeOnly": True}, "enum and writeOnly cannot be combined"),
        ({"type": "string", "writeOnly": True, "default": "x"}, "a secret's default must be null"),
        (
            {"type": "integer", "default": 11, "maximum": 10},
            "a default is invalid: Volume is 11. It must be at most 10.",
        ),
        ({"type": "integer", "default": "1"}, 'a default is invalid: Volume is "1". It must be a whole number.'),
    ],
)
def test_a_mistake_is_named(setting: object, problem: str) -> None:
    document = {"properties": {"volume": setting}, "$defs": {"Loop": {"$ref": "#/$defs/Loop"}}}
    with pytest.raises(SchemaInvalid) as caught:
        schema_for("kitchen", document, source="kitchen.json")
    (found,) = caught.value.problems
    assert problem in found
    assert "volume" in found.lower()
    assert str(caught.value).startswith("kitchen.json: ")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("Volume", "the name must be a lower-case letter"),
        ("_x", "the name must be a lower-case letter"),
        ("model_fields", "the name is taken by the model class"),
        ("rules", "the name is taken by the model class"),
        ("log_level", "the environment variable LOG_LEVEL has another meaning already"),
        ("ld_preload", "the environment variable LD_PRELOAD has another meaning already"),
        ("pythonpath", "the environment variable PYTHONPATH has another meaning already"),
        ("tars_x", "the environment variable TARS_X has another meaning already"),
        ("home", "the environment variable HOME has another meaning already"),
    ],
)
def test_names_that_are_taken(key: str, problem: str) -> None:
    with pytest.raises(SchemaInvalid, match=problem):
        schema_for("kitchen", {"properties": {key: {"type": "string", "default": ""}}})


def test_mistakes_of_the_document_are_told_together() -> None:
    document = {
        "type": "array",
        "required": ["a", "c"],
        "additionalProperties": True,
        "properties": {"a": {"type": "x"}, "b": 1},
    }
    with pytest.raises(SchemaInvalid) as caught:
        schema_for("kitchen", document)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("document", [{}, {"properties": {}}, {"properties": []}])
def test_a_document_without_settings(document: dict[str, Any]) -> None:
    with pytest.raises(SchemaInvalid, match='"properties" must be an object with at least one setting'):
        schema_for("kitchen", document)


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_pydantic_prints_of_a_built_in_model_describes_the_same_settings(name: str) -> None:
    printed = schema_for(name, BUILT_IN[name].model_json_schema())
    assert dict(printed.fields) == dict(schema_for(name).fields)
    assert printed.digest == schema_for(name).digest


class Mood(Enum):
    """Its title and description are not the setting's."""

    WARM = "warm"
    COLD = "cold"


class Lamp(BaseModel):
    """What a worker's author writes who knows nothing of us."""

    percent: int = Field(5, title="Percent", gt=0, lt=100)
    share: float = Field(0.5, title="Share", gt=0, lt=1)
    steps: int | None = Field(None, title="Steps", ge=2, le=9)
    name: str | None = Field(None, title="Name", pattern="^[a-z]+$", max_length=9)
    token: SecretStr | None = Field(None, title="Token", min_length=8)
    folder: Path = Field(Path("/srv"), title="Folder")
    picture: Path | None = Field(None, title="Picture")
    mood: Mood = Field(Mood.WARM, title="Mood")
    scene: Literal["day", "night"] = Field("day", title="Scene")
    maker: Literal["us"] = Field("us", title="Maker")


def test_what_pydantic_prints_of_a_plain_model_describes_the_same_settings() -> None:
    printed = schema_for("lamp", Lamp.model_json_schema())
    assert dict(printed.fields) == dict(schema_for("lamp", Lamp).fields)
    for values in ({"percent": 100}, {"share": 1}, {"steps": 1}, {"name": "A"}, {"mood": "x"}, {"maker": "them"}):
        with pytest.raises(ConfigInvalid):
            printed.check(values)
    assert printed.check({"percent": 99, "steps": None, "mood": "cold"})["mood"] == "cold"


def test_a_required_setting_needs_a_default_or_may_be_null() -> None:
    properties = {"a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {"type": "string", "default": ""}}
    with pytest.raises(SchemaInvalid) as caught:
        schema_for("kitchen", {"properties": properties, "required": ["a", "b", "c", "bb"]})
    assert caught.value.problems == (
        'setting "a": "default" is missing: nobody has to set it, so it needs one, or may be null',
        '"required": unknown key "bb"; did you mean "b"?',
    )
    del properties["a"]
    assert schema_for("kitchen", {"properties": properties, "required": ["b", "c"]}).keys == ("b", "c")


@pytest.mark.parametrize(
    "keyword", ["multipleOf", "minItems", "maxProperties", "contentEncoding", "oneOf", "deprecated"]
)
def test_nobody_is_told_that_one_rule_was_meant_as_another(keyword: str) -> None:
    with pytest.raises(SchemaInvalid) as caught:
        schema_for("kitchen", {"properties": {"a": {"type": "string", "default": "", keyword: 1}}})
    (problem,) = caught.value.problems
    assert f'keyword "{keyword}" is not supported; supported are type,' in problem
    assert "did you mean" not in problem


def test_settings_beside_properties_are_not_taken_for_something_else() -> None:
    with pytest.raises(SchemaInvalid) as caught:
        schema_for("kitchen", {"proprties": {}, "default": 3, "properties": {"a": {"type": "string", "default": ""}}})
    first, second = caught.value.problems
    assert first == 'keyword "proprties" is not supported; did you mean "properties"?'
    assert "did you mean" not in second
