"""Layers over models of all kinds, secrets' files, and what the environment may hold."""

import base64
import os
from enum import Enum
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator
from tars_config import ConfigInvalid, ConfigLibrary, Surroundings, SurroundingsError, library
from tars_config.testing import TestSupervisor

PEM = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


async def config_of(tmp_path, model, config, *, secrets=None, **environment):
    supervisor = TestSupervisor(tmp_path, "stt-worker", config, secrets=secrets)
    async with ConfigLibrary(surroundings=supervisor.surroundings(**environment)) as library:
        return await library.get_config(model)


async def test_a_strict_model_takes_enums_and_paths_from_wire_and_environment(tmp_path):
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        size: Size = Size.SMALL
        other_size: Size = Size.SMALL
        folder: Path = Path("/a")
        count: int = 1
        names: list[str] = []

    config = await config_of(
        tmp_path,
        Strict,
        {"size": "large", "folder": "/b"},
        OTHER_SIZE="large",
        FOLDER="/c",
        COUNT="7",
        NAMES='["x", "y"]',
    )
    assert config == Strict(size=Size.LARGE, other_size=Size.LARGE, folder=Path("/c"), count=7, names=["x", "y"])


async def test_a_field_is_found_by_alias_or_name(tmp_path):
    class Aliased(BaseModel):
        model_config = ConfigDict(extra="forbid")
        one: int = Field(default=0, alias="first_key")
        two: int = Field(default=0, validation_alias=AliasChoices("second_key", "zweiter"))
        three: int = Field(default=0, alias="third_key")

    config = await config_of(tmp_path, Aliased, {"first_key": 1, "zweiter": 2, "three": 3}, FIRST_KEY="9")
    assert (config.one, config.two, config.three) == (9, 2, 3)


async def test_a_model_that_allows_extras_gets_everything(tmp_path):
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        one: int

    assert (await config_of(tmp_path, Open, {"one": 1, "two": 2})).model_dump() == {"one": 1, "two": 2}


async def test_what_a_worker_does_to_its_values_is_its_own_affair(tmp_path):
    supervisor = TestSupervisor(tmp_path, "stt-worker", {"names": ["a"]})
    async with ConfigLibrary(surroundings=supervisor.surroundings()) as library:
        (await library.get_values())["names"].append("b")
        assert await library.get_values() == {"names": ["a"]}


async def test_every_problem_is_named_at_once(tmp_path):
    class Demanding(BaseModel):
        low: int = Field(le=3)
        high: int
        missing: str

    with pytest.raises(ConfigInvalid) as error:
        await config_of(tmp_path, Demanding, {"low": 7, "high": "x"})
    assert [problem.partition(":")[0] for problem in error.value.problems] == ["low", "high", "missing"]


async def test_a_rule_between_fields_is_told_too(tmp_path):
    class Ordered(BaseModel):
        low: int
        high: int

        @model_validator(mode="after")
        def ordered(self):
            if self.low > self.high:
                raise ValueError("low must not be above high")
            return self

    with pytest.raises(ConfigInvalid, match=r"Ordered: config: .*low must not be above high"):
        await config_of(tmp_path, Ordered, {"low": 2, "high": 1})


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "18446744073709551616.5e999"])
async def test_an_override_that_is_not_finite_is_refused(tmp_path, text):
    class Floating(BaseModel):
        ratio: float = 1.0

    with pytest.raises(ConfigInvalid, match="RATIO"):
        await config_of(tmp_path, Floating, {}, RATIO=text)


async def test_reserved_names_never_override(tmp_path):
    class Odd(BaseModel):
        path: str = "mine"
        home: str = "mine"
        tars_service: str = "mine"

    assert await config_of(tmp_path, Odd, {}, PATH="/bin", HOME="/root") == Odd()


async def test_odd_files_among_the_secrets_are_left_out(tmp_path, caplog):
    class Secretive(BaseModel):
        good: SecretStr
        bad_text: SecretStr | None = None
        large: SecretStr | None = None
        pipe: SecretStr | None = None
        folder: SecretStr | None = None

    supervisor = TestSupervisor(tmp_path, "stt-worker", {}, secrets={"good": "a\nb\n"})
    credentials = supervisor.credentials_directory
    (credentials / "bad_text").write_bytes(b"\xff")
    (credentials / "large").write_bytes(b"x" * 70_000)
    os.mkfifo(credentials / "pipe")
    (credentials / "folder").mkdir()
    (credentials / "not.a.key").write_text("x")
    async with ConfigLibrary(surroundings=supervisor.surroundings()) as library:
        config = await library.get_config(Secretive)
        assert config.model_dump(exclude={"good"}) == dict.fromkeys(("bad_text", "large", "pipe", "folder"))
        assert config.good.get_secret_value() == "a\nb\n"
        assert set(library.secrets) == {"good"}
    for name in ("bad_text", "large", "pipe", "folder"):
        assert f"secret {name} is" in caplog.text


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"MQTT_URL": "http://hunter2@x"}, "MQTT_URL: unknown scheme"),
        ({"LKG_HMAC_KEY_BASE64": "hunter2!"}, "LKG_HMAC_KEY_BASE64 is not base64"),
        ({"CONFIG_SIGNATURE_PUBLIC_KEY": "hunter2"}, "CONFIG_SIGNATURE_PUBLIC_KEY: no 'BEGIN PUBLIC KEY'"),
        ({"CONFIG_SIGNATURE_PUBLIC_KEY_B64": "hunter2!"}, "CONFIG_SIGNATURE_PUBLIC_KEY_B64 is not base64"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_and_not_quoted(variables, says):
    with pytest.raises(SurroundingsError) as error:
        Surroundings.from_environment(variables)
    assert says in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("variable", ["CONFIG_SIGNATURE_PUBLIC_KEY", "CONFIG_SIGNATURE_PUBLIC_KEY_B64"])
def test_the_key_may_come_as_text(variable):
    text = base64.b64encode(PEM).decode() if variable.endswith("_B64") else PEM.decode()
    keys = Surroundings.from_environment({variable: text}).public_keys
    assert isinstance(keys, tuple)
    assert len(keys) == 1


def test_no_secret_shows_in_what_is_printed():
    around = Surroundings.from_environment(
        {
            "MQTT_URL": "mqtt://me:hunter2@h",
            "LKG_HMAC_KEY_BASE64": base64.b64encode(b"hunter2").decode(),
            "X": "hunter2",
        }
    )
    assert "hunter2" not in repr(around)
    assert around.broker is not None
    assert "hunter2" not in str(around.broker)


async def test_silence_makes_the_reader_stale_and_an_update_mends_it(tmp_path, monkeypatch, eventually, caplog):
    monkeypatch.setattr(library, "STALE_AFTER_S", 0.05)
    supervisor = TestSupervisor(tmp_path, "stt-worker", {})
    async with ConfigLibrary(surroundings=supervisor.surroundings()) as reader:
        assert not reader.stale
        await eventually(lambda: "no valid update for 5 minutes" in caplog.text)
        assert reader.stale
        reader.receive(b"{}")
        assert reader.stale
        reader.receive(supervisor.sign().encode())
        assert not reader.stale
