"""A service's schema: what it accepts, what it refuses and in which words, and how it describes itself."""

from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from schemas.problems import MAX_UNKNOWN, ConfigInvalid, FieldError, SchemaInvalid
from schemas.registry import BUILT_IN, schema_for
from schemas.service_schema import ServiceSchema

# Contract, section 4.
FIELD_KEYS = [
    *("key", "title", "type", "complexity", "description", "help_text", "examples", "is_secret", "is_set", "source"),
    *("env_override", "apply", "default", "minimum", "maximum", "pattern", "allowed", "unit"),
]

stt = schema_for("stt-worker")
tts = schema_for("tts-worker")
router = schema_for("router")
llm = schema_for("llm-worker")
memory = schema_for("memory-worker")
wake = schema_for("wake-activation")


def errors(schema: ServiceSchema, values: dict[str, Any], **arguments: Any) -> tuple[FieldError, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        schema.check(values, **arguments)
    assert all(error.message in str(caught.value) for error in caught.value.errors)
    return caught.value.errors


def message(schema: ServiceSchema, key: str, value: object) -> str:
    (error,) = errors(schema, {key: value})
    assert error.field == key
    return error.message


@pytest.mark.parametrize("name", BUILT_IN)
def test_defaults_are_valid_and_complete_without_secrets(name: str) -> None:
    schema = schema_for(name)
    assert schema.check({}) == schema.check(schema.defaults()) == schema.effective({}) == schema.defaults()
    assert tuple(schema.defaults()) == tuple(key for key in schema.keys if key not in schema.secret_keys)


def test_secret_and_restart_keys() -> None:
    assert tts.secret_keys == {"eleven_api_key"}
    assert llm.restart_keys == {"llm_provider", "openai_api_key"}


@pytest.mark.parametrize(
    ("schema", "key", "value", "sentence"),
    [
        (tts, "volume_percent", 240, "Volume is 240 %. It can be 0 to 200 %."),
        (tts, "volume_percent", -1, "Volume is -1 %. It can be 0 to 200 %."),
        (tts, "volume_percent", "5", 'Volume is "5". It must be a whole number.'),
        (tts, "volume_percent", True, "Volume is true. It must be a whole number."),
        (tts, "volume_percent", 5.5, "Volume is 5.5 %. It must be a whole number."),
        (tts, "volume_percent", float("nan"), "Volume is not a number (NaN). It must be a whole number."),
        (tts, "volume_percent", float("inf"), "Volume is infinite. It must be a whole number."),
        (tts, "volume_percent", [1], "Volume is a list. It must be a whole number."),
        (
            tts,
            "volume_percent",
            None,
            "Volume: It cannot be null; leave it out to return to its default.",
        ),
        (wake, "wake_detection_threshold", 1.01, "Detection threshold is 1.01. It can be 0 to 1."),
        (wake, "wake_detection_threshold", "0.5", 'Detection threshold is "0.5". It must be a number.'),
        (wake, "wake_detection_threshold", False, "Detection threshold is false. It must be a number."),
        (
            wake,
            "wake_detection_threshold",
            float("nan"),
            "Detection threshold is not a number (NaN). It must be a number.",
        ),
        (wake, "wake_detection_threshold", float("-inf"), "Detection threshold is infinite. It must be a number."),
        (wake, "wake_speex_noise_suppression", 1, "Speex noise suppression is 1. It must be true or false."),
        (wake, "wake_speex_noise_suppression", "yes", 'Speex noise suppression is "yes". It must be true or false.'),
        (stt, "sample_rate", 0, "Sample rate is 0 Hz. It must be at least 1 Hz."),
        (
            stt,
            "sample_rate",
            2**53,
            "Sample rate is 9007199254740992 Hz. No setting can be beyond 9007199254740991 or -9007199254740991.",
        ),
        (
            stt,
            "sample_rate",
            10**100,
            "Sample rate is a number of more than 60 digits. No setting can be beyond 9007199254740991",
        ),
        (stt, "stt_backend", "wisper", 'Backend is "wisper". It can be whisper, ws or openai.'),
        (
            stt,
            "ws_url",
            "http://x",
            'WebSocket URL is "http://x". It must match the pattern ^wss?://[^\\s]+$, for example "ws://127.',
        ),
        (tts, "piper_voice", "", "Piper voice is empty. It must have 1 to 200 characters."),
        (tts, "piper_voice", "x" * 201, "Piper voice has 201 characters. It can have 1 to 200."),
        (tts, "piper_voice", 3, "Piper voice is 3. It must be text."),
        (
            memory,
            "memory_dir",
            "data",
            'Memory folder is not absolute. It must begin with "/", for example "/data/memory".',
        ),
        (
            memory,
            "memory_dir",
            "/a\0b",
            "Memory folder holds a NUL character. It must not.",
        ),
    ],
)
def test_refused_in_words(schema: ServiceSchema, key: str, value: object, sentence: str) -> None:
    assert message(schema, key, value).startswith(sentence)


@pytest.mark.parametrize(
    "address", ["", "x", "//host", "http://", "http://a b", "http://h:99999", "http://[::1", "http://h/\n", "HTTP//h"]
)
def test_no_web_address(address: str) -> None:
    assert errors(tts, {"eleven_api_base": address})


def test_regular_expression_that_python_refuses_late_is_refused_too() -> None:
    text = message(router, "router_stream_boundary_regex", "a{99999999999999999999}")
    assert "is not a regular expression" in text
    # What Python only warns of works.
    assert router.check({"router_stream_boundary_regex": "[[a]"})


def test_text_that_is_not_unicode_is_refused() -> None:
    assert message(tts, "piper_voice", "\ud800").startswith("Piper voice")


def test_numbers_come_back_as_one_kind_of_number() -> None:
    checked = wake.check({"wake_detection_threshold": 1, "wake_energy_boost_factor": 2})
    assert orjson.dumps(checked["wake_detection_threshold"]) == b"1.0"
    assert orjson.dumps(wake.check({"wake_vad_threshold": -0.0})["wake_vad_threshold"]) == b"0.0"
    volume = tts.check({"volume_percent": 5.0})["volume_percent"]
    assert (volume, type(volume)) == (5, int)


def test_all_problems_at_once_in_the_models_order() -> None:
    found = errors(
        router,
        {
            "router_wake_windw_sec": 3,
            "router_stream_min_chars": 300,
            "router_wake_ack_text": "x" * 101,
            "router_wake_ack_enabled": "on",
            "nonsense": 1,
        },
    )
    assert [(error.field, error.type) for error in found] == [
        ("router_stream_min_chars", "conflict"),
        ("router_wake_ack_enabled", "wrong_type"),
        ("router_wake_ack_text", "too_long"),
        ("router_wake_windw_sec", "unknown_key"),
        ("nonsense", "unknown_key"),
    ]
    assert found[3].message == 'unknown key "router_wake_windw_sec"; did you mean "router_wake_window_sec"?'
    assert found[4].message == 'unknown key "nonsense"'


def test_a_rule_about_a_wrong_value_is_not_judged() -> None:
    (error,) = errors(router, {"router_stream_min_chars": 0, "router_stream_max_chars": 1})
    assert error.type == "out_of_range"
    # Nor with the default in the wrong value's place, which would contradict the maximum.
    (error,) = errors(router, {"router_stream_min_chars": "few", "router_stream_max_chars": 1})
    assert error.type == "wrong_type"


def test_a_number_that_python_will_not_write_out_is_refused() -> None:
    assert "more than 60 digits" in message(stt, "sample_rate", 10**5000)


def test_many_unknown_keys_are_summed_up() -> None:
    found = errors(tts, {f"volume_percent{n}": n for n in range(5000)})
    assert len(found) == MAX_UNKNOWN + 1
    assert found[-1].message == "and 4980 more unknown keys"


@pytest.mark.parametrize(
    ("schema", "values", "field", "names"),
    [
        (stt, {"stt_backend": "ws"}, "ws_url", ["ws_url", "stt_backend"]),
        (
            router,
            {"router_stream_min_chars": 201},
            "router_stream_min_chars",
            ["router_stream_min_chars", "router_stream_max_chars", "201", "200"],
        ),
        (
            router,
            {"router_live_mode_exit_phrase": "Enter Live Mode "},
            "router_live_mode_exit_phrase",
            ["router_live_mode_exit_phrase", "router_live_mode_enter_phrase"],
        ),
    ],
)
def test_rules_between_settings(schema: ServiceSchema, values: dict[str, Any], field: str, names: list[str]) -> None:
    (error,) = errors(schema, values)
    assert (error.field, error.type) == (field, "conflict")
    assert all(name in error.message for name in names)


def test_rules_hold_at_their_limits() -> None:
    assert stt.check({"stt_backend": "ws", "ws_url": "wss://h"})
    assert router.check({"router_stream_min_chars": 200})


# Secrets


def test_a_secret_is_never_in_a_configuration_or_a_message() -> None:
    assert "openai_api_key" not in llm.check({}, secrets={"openai_api_key": "sk-0123456789"})
    assert llm.check({}, secrets={"openai_api_key": None})
    (error,) = errors(llm, {}, secrets={"openai_api_key": "hush-hush"})
    assert error.message == "OpenAI API key: It must have at least 10 characters."
    (error,) = errors(llm, {}, secrets={"openai_api_key": 1234567890123})
    assert error.message == "OpenAI API key: It must be text."
    (error,) = errors(llm, {"openai_api_key": "sk-0123456789"})
    assert (error.type, "sk-" in error.message) == ("misplaced_secret", False)
    (error,) = errors(llm, {}, secrets={"openai_api_kei": "sk-0123456789"})
    assert error.message == 'unknown key "openai_api_kei"; did you mean "openai_api_key"?'


class Chatty(BaseModel):
    """A foreign model whose own checks quote what they should not."""

    token: SecretStr | None = None
    other: int = 1

    @field_validator("token")
    @classmethod
    def _quotes(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().startswith("quote"):
            raise ValueError(f"bad token {value.get_secret_value()}")
        return value

    @model_validator(mode="after")
    def _quotes_too(self) -> "Chatty":
        if self.token is not None and self.other == 7:
            raise ValueError(f"{self.token.get_secret_value()} does not go with 7")
        if self.token is not None and self.other == 8:
            raise LookupError(self.token.get_secret_value())
        return self


@pytest.mark.parametrize(
    ("values", "secret", "sentence"),
    [
        ({}, "quote-me-not", "Token: bad token ********."),
        ({"other": 7}, "hidden-away", "******** does not go with 7."),
        ({"other": 8}, "hidden-away", "The model's own check failed with LookupError."),
    ],
)
def test_a_secret_that_a_foreign_model_quotes_is_masked(values: dict[str, Any], secret: str, sentence: str) -> None:
    schema = ServiceSchema("chatty", Chatty)
    (error,) = errors(schema, values, secrets={"token": secret})
    assert error.message == sentence
    with pytest.raises(ConfigInvalid) as caught:
        schema.check(values, secrets={"token": secret})
    # The chain behind it goes into logs as well.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# Layers


def test_effective_overlays_and_leaves_out_what_the_model_does_not_know() -> None:
    stored = {"volume_percent": 70, "gone_with_a_release": 1, "eleven_api_key": "no"}
    assert tts.effective(stored) == {**tts.defaults(), "volume_percent": 70}
    assert tuple(tts.effective(stored)) == tuple(tts.defaults())


def test_defaults_are_the_callers_own() -> None:
    tts.defaults()["volume_percent"] = 0
    assert tts.defaults()["volume_percent"] == 100


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("YES", True), (" on ", True), ("0", False), ("Off", False)]
)
def test_booleans_of_the_environment(text: str, value: bool) -> None:
    assert tts.from_environment({"TTS_STREAMING": text}) == {"tts_streaming": value}


def test_overrides_of_the_environment() -> None:
    environment = {
        "VOLUME_PERCENT": " 55 ",
        "volume_percent": "1",
        "TTS_AGGREGATE_TIMEOUT_SEC": "3",
        "TTS_PROVIDER": "elevenlabs",
        "ELEVEN_VOICE_ID": "",
        "PIPER_VOICE": "",
        "TTS_PIPELINE": "",
        "ELEVEN_API_KEY": "sk-1",
        "PATH": "/bin",
    }
    overrides = tts.from_environment(environment)
    assert overrides == {
        "volume_percent": 55,
        "tts_aggregate_timeout_sec": 3.0,
        "tts_provider": "elevenlabs",
        # May be empty, so empty is a value; for the others above it means not there.
        "eleven_voice_id": "",
    }
    assert isinstance(overrides["tts_aggregate_timeout_sec"], float)
    assert tts.secrets_from_environment(environment) == {"eleven_api_key": "sk-1"}
    assert tts.overridden(environment) == {*overrides, "eleven_api_key"}


def test_wrong_variables_are_named_all_at_once() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        tts.from_environment({"VOLUME_PERCENT": "300", "TTS_STREAMING": "ja", "TTS_AGGREGATE_TIMEOUT_SEC": "1e999"})
    assert [(error.field, error.message) for error in caught.value.errors] == [
        (
            "tts_streaming",
            'environment variable TTS_STREAMING: Streaming is "ja". It must be true, 1, yes or on, or false, 0, no or off.',
        ),
        (
            "tts_aggregate_timeout_sec",
            "environment variable TTS_AGGREGATE_TIMEOUT_SEC: Aggregate timeout is infinite. It must be a number.",
        ),
        ("volume_percent", "environment variable VOLUME_PERCENT: Volume is 300 %. It can be 0 to 200 %."),
    ]
    with pytest.raises(ConfigInvalid) as caught:
        llm.secrets_from_environment({"OPENAI_API_KEY": "short"})
    assert str(caught.value) == (
        "environment variable OPENAI_API_KEY: OpenAI API key: It must have at least 10 characters."
    )


def test_rules_are_not_judged_on_overrides_alone() -> None:
    assert stt.from_environment({"STT_BACKEND": "ws"}) == {"stt_backend": "ws"}


# Description


@pytest.mark.parametrize("name", BUILT_IN)
def test_description_has_exactly_the_contracts_keys(name: str) -> None:
    schema = schema_for(name)
    described = schema.describe(stored={}, environment={}, secrets_set=())
    assert [list(field) for field in described] == [FIELD_KEYS] * len(schema.keys)
    assert [field["key"] for field in described] == list(schema.keys)
    assert orjson.dumps(described)


def test_description_tells_where_values_come_from() -> None:
    described = {
        field["key"]: (field["source"], field["is_set"], field["env_override"])
        for field in tts.describe(
            stored={"volume_percent": 100, "tts_provider": "piper"},
            environment={"TTS_PROVIDER": "piper", "PIPER_VOICE": ""},
            secrets_set={"eleven_api_key"},
        )
    }
    assert described["volume_percent"] == ("database", True, False)
    assert described["tts_provider"] == ("env", True, True)
    assert described["piper_voice"] == ("default", False, False)
    assert described["eleven_api_key"] == ("database", True, False)
    (key,) = [f for f in llm.describe(stored={}, environment={}, secrets_set=()) if f["is_secret"]]
    assert (key["type"], key["default"], key["source"], key["is_set"]) == ("secret", None, "default", False)


def test_description_of_bounds() -> None:
    fields = {field["key"]: field for field in stt.describe(stored={}, environment={}, secrets_set=())}
    assert (fields["sample_rate"]["minimum"], fields["sample_rate"]["maximum"]) == (1, None)
    assert fields["stt_backend"]["allowed"] == fields["stt_backend"]["examples"] == ["whisper", "ws", "openai"]
    assert fields["vad_speech_pad_ms"]["unit"] == "ms"


# Plain Pydantic models


class Plain(BaseModel):
    """What somebody writes who knows nothing of our helpers."""

    greeting: str = "hello"
    speed: Annotated[float, Field(gt=0, lt=2, description="How fast.", json_schema_extra={"x-apply": "live"})] = 1
    mode: Literal["a", "b"] = "a"
    only: Literal["a"] = "a"
    folder: Path = Path("/srv")
    limit: Annotated[int, Field(ge=1)] | None = None
    key: SecretStr | None = None


def test_plain_model_works() -> None:
    schema = ServiceSchema("plain", Plain)
    types = {key: spec.type for key, spec in schema.fields.items()}
    assert types == {
        "greeting": "string",
        "speed": "float",
        "mode": "enum",
        "only": "enum",
        "folder": "path",
        "limit": "integer",
        "key": "secret",
    }
    assert schema.restart_keys == set(schema.keys) - {"speed"}
    assert schema.fields["speed"].title == "Speed"
    assert schema.check({"folder": "/a", "limit": 3}) == {**schema.defaults(), "folder": "/a", "limit": 3}
    assert orjson.dumps(schema.defaults()["speed"]) == b"1.0"
    # As strict as our own, whatever Pydantic would let through.
    found = errors(schema, {"limit": "3", "speed": 2, "mode": "c", "unknown": 1})
    assert [error.message for error in found] == [
        "Speed is 2. It must be more than 0 and less than 2.",
        'Mode is "c". It can be a or b.',
        'Limit is "3". It must be a whole number.',
        'unknown key "unknown"',
    ]


def test_models_that_cannot_describe_settings_are_refused_with_every_reason() -> None:
    class Wrong(BaseModel):
        path: str = "x"
        tars_mode: str = "x"
        required: int
        made: str = Field(default_factory=str)
        renamed: str = Field("x", alias="Renamed")
        many: list[int] = []
        either: int | str = 1
        Upper: str = "x"
        secret: SecretStr = SecretStr("in the code")
        late: str = Field("x", json_schema_extra={"x-apply": "later"})

    with pytest.raises(SchemaInvalid) as caught:
        ServiceSchema("wrong", Wrong, source="wrong.py")
    keys = [problem.split('"')[1] for problem in caught.value.problems]
    assert keys == list(Wrong.model_fields)
    assert all(line.startswith("wrong.py: ") for line in str(caught.value).splitlines())
    assert "in the code" not in str(caught.value)


def test_a_model_without_settings_or_with_a_wrong_default_is_refused() -> None:
    class Empty(BaseModel):
        pass

    class Contradiction(BaseModel):
        volume: int = Field(11, le=10)

    with pytest.raises(SchemaInvalid, match="it has no settings"):
        ServiceSchema("empty", Empty)
    with pytest.raises(SchemaInvalid, match=r"a default is invalid: Volume is 11\. It must be at most 10\."):
        ServiceSchema("contradiction", Contradiction)


def test_digest_changes_with_the_model() -> None:
    class One(BaseModel):
        volume: int = Field(1, le=10)

    class Other(BaseModel):
        volume: int = Field(1, le=11)

    class Same(BaseModel):
        volume: int = Field(1, le=10)

    digests = [ServiceSchema("x", model).digest for model in (One, Other, Same)]
    assert digests[0] == digests[2] != digests[1]
    assert len({schema_for(name).digest for name in BUILT_IN}) == len(BUILT_IN)


def test_unknown_built_in_model() -> None:
    with pytest.raises(SchemaInvalid, match=r'did you mean "tts-worker"\?'):
        schema_for("kitchen", "tts-wroker")
    assert schema_for("kitchen", "tts-worker").name == "kitchen"


class Texts(BaseModel):
    name: str = "a"
    folder: Path = Path("/srv")
    token: SecretStr | None = None


@pytest.mark.parametrize(("key", "title"), [("name", "Name"), ("folder", "Folder"), ("token", "Token")])
def test_no_text_holds_a_nul(key: str, title: str) -> None:
    value = {key: "/hunter2\0"}
    values, secrets = ({}, value) if key == "token" else (value, {})
    (error,) = errors(ServiceSchema("texts", Texts), values, secrets=secrets)
    assert (error.field, error.message, error.type) == (key, f"{title} holds a NUL character. It must not.", "format")


def test_other_control_characters_are_the_owners_choice() -> None:
    text = "a\tb\r\n\x01\x1b[0m\x7f\u2028"
    assert ServiceSchema("texts", Texts).check({"name": text})["name"] == text
