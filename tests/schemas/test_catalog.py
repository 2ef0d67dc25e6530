"""Every built-in model is what the catalogue of settings says, and its texts are there."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.field_spec import FieldSpec
from schemas.registry import BUILT_IN, schema_for
from schemas.types import service_name

with (Path(__file__).parent / "service-settings.tsv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
SPECS = [pytest.param(spec, id=f"{name}.{spec.key}") for name in BUILT_IN for spec in schema_for(name).fields.values()]
# A wrong value for each format that the catalogue names, and a right one.
FORMATS = {
    "http(s) URL": ("ftp://example.org", "http://127.0.0.1:8080/v1"),
    "valid regular expression": ("([", r"[.!?]\s"),
    "absolute path": ("data/memory", "/data/memory"),
}


def test_services_and_settings_are_those_of_the_catalogue_in_its_order() -> None:
    assert len(ROWS) == 59
    assert [(name, key) for name in BUILT_IN for key in schema_for(name).keys] == [
        (row["service"], row["key"]) for row in ROWS
    ]
    assert [service_name(name) for name in BUILT_IN]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['service']}.{row['key']}")
def test_setting_is_that_of_the_catalogue(row: dict[str, str]) -> None:
    schema = schema_for(row["service"])
    spec = schema.fields[row["key"]]
    constraints: dict[str, Any] = json.loads(row["constraints_json"])
    default = json.loads(row["default_json"])

    assert (spec.type, spec.complexity, spec.apply) == (row["type"], row["complexity"], row["apply"])
    assert spec.default == default
    assert type(spec.default) is type(default)
    assert list(spec.allowed or ()) == constraints.get("enum", [])
    assert spec.nullable == constraints.get("nullable", False)
    assert spec.pattern == constraints.get("pattern")
    # Nothing at least is what nothing said means, too.
    assert (spec.min_length or 0) == constraints.get("minLength", 0)
    assert spec.max_length == constraints.get("maxLength")
    assert spec.maximum == constraints.get("maximum")
    if "exclusiveMinimum" in constraints:
        assert spec.minimum == constraints["exclusiveMinimum"] + 1
    else:
        assert spec.minimum == constraints.get("minimum")
    if format_ := constraints.get("format"):
        wrong, right = FORMATS[format_]
        assert schema.check({spec.key: right})[spec.key] == right
        with pytest.raises(Exception, match=spec.title):
            schema.check({spec.key: wrong})


@pytest.mark.parametrize("spec", SPECS)
def test_setting_tells_an_owner_what_it_does(spec: FieldSpec) -> None:
    assert len(spec.title) <= 40
    assert spec.description.endswith(".")
    assert spec.help_text.endswith(".")
    assert len(spec.help_text) > 60
    assert spec.description not in spec.help_text
    if spec.type == "enum":
        assert spec.examples == spec.allowed
    elif not spec.is_secret:
        assert spec.examples
    if spec.key.endswith("_ms"):
        assert spec.unit == "ms"
    if spec.key.endswith("_sec"):
        assert spec.unit == "s"


@pytest.mark.parametrize("spec", SPECS)
def test_examples_are_valid(spec: FieldSpec) -> None:
    schema = next(schema for schema in map(schema_for, BUILT_IN) if schema.fields.get(spec.key) is spec)
    for example in spec.examples:
        values = {spec.key: example}
        if spec.key == "stt_backend":
            values["ws_url"] = "ws://127.0.0.1:9090/asr"
        assert schema.check(values)[spec.key] == example


def test_titles_are_unique_within_a_service() -> None:
    for schema in map(schema_for, BUILT_IN):
        titles = [spec.title for spec in schema.fields.values()]
        assert len(set(titles)) == len(titles)


def test_at_least_half_of_the_settings_are_live() -> None:
    live = sum(row["apply"] == "live" for row in ROWS)
    assert live * 2 >= len(ROWS)
