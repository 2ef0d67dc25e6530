"""What holds for any input: nothing but the promised errors, and results that are stable."""

import string
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.field_spec import MAX_INTEGER, FieldSpec
from schemas.json_schema import model_from_json_schema
from schemas.problems import ConfigInvalid, FieldError, SchemaInvalid
from schemas.registry import BUILT_IN, schema_for
from schemas.service_schema import ServiceSchema

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SCHEMAS = st.sampled_from([schema_for(name) for name in BUILT_IN])
# Settings that take part in a rule, or whose text has a format of its own, are drawn from their examples.
BOUND = {"stt_backend", "ws_url", "router_stream_min_chars", "router_stream_max_chars", "eleven_api_base"}


def valid_values(spec: FieldSpec) -> st.SearchStrategy[Any]:
    """Values that `spec` allows."""
    if spec.key in BOUND:
        return st.just(spec.default)
    if spec.type == "boolean":
        return st.booleans()
    if spec.type == "integer":
        return st.integers(int(spec.minimum or 0), int(MAX_INTEGER if spec.maximum is None else spec.maximum))
    if spec.type == "float":
        return st.floats(spec.minimum, spec.maximum, allow_nan=False)
    if spec.type == "enum" or spec.pattern or spec.type == "path" or "regex" in spec.key or "phrase" in spec.key:
        return st.sampled_from([*spec.examples])
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(letters, min_size=spec.min_length or 0, max_size=min(spec.max_length or 80, 80))


def settings_of(schema: ServiceSchema) -> st.SearchStrategy[dict[str, Any]]:
    plain = {key: valid_values(spec) for key, spec in schema.fields.items() if not spec.is_secret}
    return st.fixed_dictionaries({}, optional=plain)


@given(st.data())
def test_whatever_comes_check_refuses_or_returns_a_whole_stable_configuration(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    keys = st.sampled_from(schema.keys) | st.text(max_size=10)
    values = data.draw(st.dictionaries(keys, JSON_VALUES, max_size=6))
    refused: tuple[FieldError, ...] = ()
    try:
        checked = schema.check(values)
    except ConfigInvalid as error:
        refused = error.errors
    if refused:
        assert all(each.field in schema.fields or each.type == "unknown_key" for each in refused)
        assert all(each.message.encode() for each in refused)
        return
    assert set(checked) == set(schema.keys) - schema.secret_keys
    encoded = orjson.dumps(checked)
    assert orjson.dumps(schema.check(checked)) == encoded
    assert orjson.dumps(schema.check(orjson.loads(encoded))) == encoded


@given(st.data())
def test_whatever_is_allowed_is_accepted_and_kept(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    values = data.draw(settings_of(schema))
    checked = schema.check(values)
    assert checked == {**schema.defaults(), **values}
    assert schema.effective(values) == checked


@given(st.data())
def test_one_wrong_value_is_one_error_at_its_key(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    spec = data.draw(st.sampled_from([spec for spec in schema.fields.values() if not spec.is_secret]))
    values = data.draw(settings_of(schema))
    wrong = data.draw(st.lists(st.none(), max_size=2) | st.dictionaries(st.text(), st.none(), max_size=2))
    with pytest.raises(ConfigInvalid) as caught:
        schema.check({**values, spec.key: wrong})
    assert [(error.field, error.type) for error in caught.value.errors] == [(spec.key, "wrong_type")]


@given(st.data())
def test_a_value_written_into_the_environment_is_read_back(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    values = data.draw(settings_of(schema))
    values = {key: value for key, value in values.items() if value is not None}
    environment = {
        key.upper(): str(value).lower() if isinstance(value, bool) else str(value) for key, value in values.items()
    }
    expected = {
        key: value for key, value in values.items() if not schema.fields[key].unset_by(environment[key.upper()])
    }
    assert schema.from_environment(environment) == expected
    assert schema.overridden(environment) == set(expected)


@given(st.data())
def test_whatever_stands_in_the_environment_the_variable_is_named(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    variables = st.sampled_from([spec.variable for spec in schema.fields.values()])
    environment = data.draw(st.dictionaries(variables, st.text() | st.floats().map(str) | st.integers().map(str)))
    for read in (schema.from_environment, schema.secrets_from_environment):
        refused: tuple[FieldError, ...] = ()
        values: dict[str, Any] = {}
        try:
            values = read(environment)
        except ConfigInvalid as error:
            refused = error.errors
        assert all(each.field.upper() in environment for each in refused)
        assert all(each.message.startswith(f"environment variable {each.field.upper()}: ") for each in refused)
        assert set(values) <= schema.overridden(environment)
        assert orjson.dumps(values)


@given(st.data(), st.text(string.ascii_uppercase + "§", min_size=6, max_size=9))
def test_no_message_holds_a_secret(data: st.DataObject, secret: str) -> None:
    schema = schema_for("llm-worker")
    values = data.draw(st.dictionaries(st.sampled_from(schema.keys), JSON_VALUES, max_size=3))
    # What stands in a setting that is no secret may be quoted.
    assume(secret not in str(values))
    with pytest.raises(ConfigInvalid) as caught:
        schema.check({**values, "openai_api_key": secret, "openai_model": 1}, secrets={"openai_api_key": secret})
    assert secret not in str(caught.value)
    with pytest.raises(ConfigInvalid) as caught:
        schema.secrets_from_environment({"OPENAI_API_KEY": secret})
    assert secret not in str(caught.value)


KEYWORDS = st.sampled_from(
    [
        *("type", "enum", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "default"),
        *("title", "description", "examples", "format", "writeOnly", "x-apply", "x-complexity", "x-unit", "x-help"),
    ]
)
PLAUSIBLE = st.sampled_from(
    ["string", "integer", "number", "boolean", "path", "live", "simple", 0, 1, 2.5, True, ["a"]]
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "properties": st.dictionaries(
            st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True) | st.text(max_size=5),
            st.dictionaries(KEYWORDS | st.text(max_size=5), PLAUSIBLE | JSON_VALUES, max_size=6) | JSON_VALUES,
            max_size=3,
        )
    }
)


@given(DOCUMENTS | st.dictionaries(st.text(max_size=10), JSON_VALUES, max_size=3))
def test_whatever_a_json_schema_holds_it_is_refused_or_makes_a_schema(document: dict[str, Any]) -> None:
    try:
        schema = ServiceSchema("any", model_from_json_schema(document, "any.json"), source="any.json")
    except SchemaInvalid:
        return
    assert schema.check(schema.defaults()) == schema.defaults()
    assert orjson.dumps(schema.describe(stored={}, environment={}, secrets_set=()))
