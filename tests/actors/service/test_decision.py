"""What a PUT or PATCH comes to: contract section 4 and 6, rule by rule, and as properties."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from actors.service._decision import Decision, InForce, decide, run_with
from schemas.changes import ConfigChange, OverriddenByEnvironment
from schemas.problems import ConfigInvalid
from schemas.records import ABSENT, SECRET_MARK
from schemas.service_schema import ServiceSchema


class Model(BaseModel):
    volume: Annotated[int, Field(ge=0, le=200, json_schema_extra={"x-apply": "live"})] = 100
    speed: Annotated[float, Field(ge=0, json_schema_extra={"x-apply": "live"})] = 1.0
    engine: Literal["piper", "other"] = "piper"
    url: Annotated[str | None, Field(json_schema_extra={"x-apply": "live"})] = None
    api_key: SecretStr | None = None
    pin: SecretStr | None = None


SCHEMA = ServiceSchema("svc", Model)


def in_force(
    stored: dict[str, Any] | None = None,
    *,
    secrets: dict[str, str] | None = None,
    overrides: dict[str, Any] | None = None,
) -> InForce:
    secrets = secrets or {}
    overrides = overrides or {}
    return InForce(stored or {}, overrides, frozenset(overrides), frozenset(secrets), secrets.__getitem__)


def ask(config: dict[str, Any], *, merge: bool) -> ConfigChange:
    return ConfigChange(
        service="svc",
        config=config,
        merge=merge,
        expected_version=1,
        expected_epoch=None,
        changed_by="me",
        origin="rest",
        request_id="r",
    )


def put(now: InForce, config: dict[str, Any]) -> Decision:
    return decide(SCHEMA, now, ask(config, merge=False))


def patch(now: InForce, config: dict[str, Any]) -> Decision:
    return decide(SCHEMA, now, ask(config, merge=True))


def shown(now: InForce) -> dict[str, Any]:
    return dict(run_with(SCHEMA, now))


def test_a_put_of_what_get_shows_changes_nothing() -> None:
    now = in_force({"volume": 50}, secrets={"api_key": "s3cret"}, overrides={"speed": 2.0})
    assert not put(now, shown(now)).changes_anything


def test_a_value_that_was_not_set_and_is_sent_back_stays_unset() -> None:
    now = in_force()
    decision = put(now, {**shown(now), "volume": 50})
    assert decision.stored == {"volume": 50}
    assert [(h.key, h.old, h.new) for h in decision.history] == [("volume", ABSENT, 50)]
    assert decision.live == ("volume",)
    assert decision.restart == ()


def test_a_key_left_out_of_a_put_returns_to_its_default() -> None:
    now = in_force({"volume": 50, "engine": "other"})
    config = shown(now)
    del config["volume"]
    decision = put(now, config)
    assert decision.stored == {"engine": "other"}
    assert decision.wire.config["volume"] == 100
    assert decision.live == ("volume",)


def test_a_set_value_stays_set_when_it_is_put_to_the_default() -> None:
    now = in_force({"volume": 50})
    assert put(now, {**shown(now), "volume": 100}).stored == {"volume": 100}


def test_a_patch_pins_a_value_that_equals_the_default() -> None:
    decision = patch(in_force(), {"volume": 100})
    assert decision.stored == {"volume": 100}
    assert decision.changes_anything
    assert decision.live == decision.restart == ()


def test_null_in_a_patch_returns_to_the_default() -> None:
    assert patch(in_force({"volume": 50, "url": "x"}), {"volume": None, "url": None}).stored == {}


def test_null_in_a_put_is_a_value_where_the_setting_may_have_it() -> None:
    now = in_force({"url": "x"})
    assert put(now, {**shown(now), "url": None}).stored == {"url": None}
    with pytest.raises(ConfigInvalid) as refused:
        put(now, {**shown(now), "volume": None})
    assert refused.value.errors[0].field == "volume"


def test_a_restart_only_change_is_named_as_such() -> None:
    decision = patch(in_force(), {"engine": "other", "volume": 1})
    assert decision.restart == ("engine",)
    assert decision.live == ("volume",)


@pytest.mark.parametrize("merge", [False, True])
def test_secrets_absent_or_masked_are_unchanged(merge: bool) -> None:
    now = in_force(secrets={"api_key": "old"})
    for config in ({}, {"api_key": SECRET_MARK, "pin": SECRET_MARK}):
        assert dict(decide(SCHEMA, now, ask(config, merge=merge)).secrets) == {}


@pytest.mark.parametrize("merge", [False, True])
def test_secrets_are_set_replaced_and_deleted(merge: bool) -> None:
    now = in_force(secrets={"api_key": "old"})
    decision = decide(SCHEMA, now, ask({"api_key": None, "pin": "1234"}, merge=merge))
    assert dict(decision.secrets) == {"api_key": None, "pin": "1234"}
    assert set(decision.restart) == {"api_key", "pin"}
    assert "1234" not in repr(decision)
    same = decide(SCHEMA, now, ask({"api_key": "old", "pin": None}, merge=merge))
    assert not same.changes_anything


def test_a_secret_never_comes_into_what_is_stored_in_clear() -> None:
    decision = patch(in_force(), {"api_key": "s3cret-value"})
    assert b"s3cret-value" not in decision.wire.canonical
    assert "s3cret-value" not in str(dict(decision.stored))
    assert all("s3cret-value" not in str(item) for item in (*decision.items, *decision.history))


@pytest.mark.parametrize("merge", [False, True])
def test_what_the_environment_overrides_cannot_be_changed(merge: bool) -> None:
    now = in_force({"speed": 3.0}, overrides={"speed": 2.0})
    with pytest.raises(OverriddenByEnvironment) as refused:
        decide(SCHEMA, now, ask({**shown(now), "speed": 4.0}, merge=merge))
    assert refused.value.keys == ("speed",)
    assert "SPEED" in str(refused.value)
    kept = decide(SCHEMA, now, ask({**shown(now), "volume": 7}, merge=merge))
    assert kept.stored["speed"] == 3.0
    assert kept.stored["volume"] == 7


def test_every_problem_is_named_at_once_with_a_suggestion() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        patch(in_force(), {"volume": 240, "speeed": 1, "engine": "x"})
    errors = {error.field: error.message for error in refused.value.errors}
    assert set(errors) == {"volume", "speeed", "engine"}
    assert 'did you mean "speed"' in errors["speeed"]


def test_a_configuration_that_no_reader_would_take_is_refused() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        patch(in_force(), {"url": "\U0001f600" * 65_536})
    assert refused.value.errors[0].field == "config"


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "volume": st.integers(0, 200),
        "speed": st.floats(0, 1e6),
        "engine": st.sampled_from(["piper", "other"]),
        "url": st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    },
)


@given(before=VALUES, change=VALUES)
def test_put_then_put_back_restores_what_the_worker_runs_with(before: dict[str, Any], change: dict[str, Any]) -> None:
    now = in_force(before)
    there = in_force(dict(put(now, {**shown(now), **change}).stored))
    assert shown(there) == {**shown(now), **change}
    back = in_force(dict(put(there, shown(now)).stored))
    assert shown(back) == shown(now)


@given(before=VALUES, change=VALUES)
def test_live_and_restart_name_exactly_what_moves(before: dict[str, Any], change: dict[str, Any]) -> None:
    now = in_force(before)
    decision = patch(now, change)
    after = shown(in_force(dict(decision.stored)))
    moved = {key for key in SCHEMA.keys if after[key] != shown(now)[key]}
    assert {*decision.live, *decision.restart} == moved
    assert not set(decision.live) & set(decision.restart)


@given(before=VALUES, change=VALUES)
def test_history_turns_the_old_layer_into_the_new_one(before: dict[str, Any], change: dict[str, Any]) -> None:
    decision = patch(in_force(before), change)
    layer = dict(before)
    for entry in decision.history:
        assert layer.get(entry.key, ABSENT) == entry.old
        if entry.new is ABSENT:
            del layer[entry.key]
        else:
            layer[entry.key] = entry.new
    assert layer == decision.stored
