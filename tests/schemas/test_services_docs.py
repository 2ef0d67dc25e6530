"""docs/services.md: its examples work, and it has every key, keyword and name of the code."""

import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import schemas
from schemas import json_schema
from schemas.manifest import ManifestInvalid, Rlimit, parse_manifest
from schemas.manifest._differences import RESTART_KEYS
from schemas.manifest._parse import MERGED
from schemas.manifest._probes import LIVENESS, PROBES
from schemas.manifest._rules import KEYS, KEYS_OF, SHARED_KEYS
from schemas.problems import ConfigInvalid
from schemas.registry import BUILT_IN
from schemas.reserved import reserved_for_settings
from schemas.service_schema import ServiceSchema
from schemas.states import Kind
from supervisor._services import Services, load_services
from tests.schemas.manifest_tables import tables

PAGE = (Path(schemas.__file__).parent.parent / "docs/services.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """What the page's examples are, as files of one folder."""
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.setitem(sys.modules, "mylamp", None)  # so that it is forgotten at the end
    del sys.modules["mylamp"]
    return load_services(tmp_path / "services.toml", {})


def named_in(section: str) -> set[str]:
    """The names in the first column of the section's table."""
    table = PAGE.split(section)[1].partition("\n|---")[2].partition("\n\n")[0]
    first = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def test_no_example_is_left_out() -> None:
    # A command for a shell is no file.
    assert len(EXAMPLES) == PAGE.count("\n```") // 2 - PAGE.count("\n```sh\n") == 4


def test_the_examples_are_services(services: Services) -> None:
    lamp, kitchen, voice, house = (services.schemas[service.name] for service in services.manifest.services)
    assert [service.kind for service in services.manifest.services] == ["process", "external", "process", "config-only"]
    assert {key: field.type for key, field in lamp.fields.items()} == {
        "brightness": "integer",
        "night_brightness": "integer",
        "scene": "enum",
        "greeting": "string",
        "pictures": "path",
        "bridge_token": "secret",
    }
    assert lamp.restart_keys == {"scene", "greeting", "pictures", "bridge_token"}
    assert lamp.fields["brightness"].unit == "%"
    assert lamp.fields["night_brightness"].complexity == "advanced"
    with pytest.raises(ConfigInvalid, match="night_brightness cannot be more than brightness"):
        lamp.check({"brightness": 3})
    assert [field.type for field in kitchen.fields.values()] == [
        "integer", "float", "enum", "string", "string", "boolean", "path", "secret",
    ]  # fmt: skip
    assert kitchen.fields["place"].nullable
    assert kitchen.restart_keys == set(kitchen.keys) - {"brightness"}
    assert voice.keys == ServiceSchema("x", BUILT_IN["tts-worker"]).keys
    assert house.fields["season"].allowed == ("summer", "winter")


@pytest.mark.parametrize("heading", tables())
def test_each_key_of_the_manifest_has_its_meaning_unit_default_and_example(heading: str) -> None:
    """What to write where this fails: python -m tests.schemas.manifest_tables."""
    section = PAGE.split(f"\n{heading}\n")[1]
    assert tables()[heading] in section


def test_the_page_says_which_keys_belong_to_which_kind() -> None:
    said = PAGE.split('belongs to `"external"` alone. ')[1].split("An unknown key")[0]
    external, config_only = (set(re.findall(r"`([a-z_]+)`", part)) for part in said.split("; `"))
    assert external == KEYS_OF[Kind.EXTERNAL]
    assert config_only == KEYS_OF[Kind.CONFIG_ONLY]
    not_shared = PAGE.split("It may have every key of a service but")[1].split(".")[0]
    assert set(re.findall(r"`([a-z_]+)`", not_shared)) == set(KEYS) - set(SHARED_KEYS)
    merged = PAGE.split("command`, `model`, `health_topic`, `start_after` and `restart_command`. Of ")[1].split(
        " a service"
    )[0]
    assert tuple(re.findall(r"`([a-z_]+)`", merged)) == MERGED


def test_the_page_says_what_a_reload_restarts() -> None:
    restarted = PAGE.split("A reload restarts the workers whose ")[1].split(" changed")[0]
    assert set(re.findall(r"`([a-z_]+)`", restarted)) == RESTART_KEYS


def test_the_page_has_every_probe_and_every_limit() -> None:
    section = PAGE.split("### Probes\n")[1]
    said = dict(re.findall(r"^\| `([a-z-]+)` \| (both|readiness) \|", section, re.MULTILINE))
    assert said == {kind: "both" if kind in LIVENESS else "readiness" for kind in PROBES}
    limits = PAGE.split("One value stands for both. The limits are ")[1].split(", in the units")[0]
    assert tuple(re.findall(r"`([a-z]+)`", limits)) == get_args(Rlimit)


def test_the_mistake_that_the_page_shows_is_told_so() -> None:
    shown = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)
    text = '[services.lamp]\ncommand = ["x"]\n' + "\n" * 9 + 'grace = "5 sec"'
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(text, "services.toml")
    assert list(caught.value.problems) == shown


def test_the_page_has_every_keyword_of_the_dialect_and_no_other() -> None:
    assert named_in("The document has `properties`, and may have:") == json_schema.DOCUMENT_KEYWORDS
    assert named_in("A setting may have:") == json_schema.SETTING_KEYWORDS


def test_the_page_names_the_built_in_models() -> None:
    assert all(f"`{name}`" in PAGE.split("## Three ways")[1] for name in BUILT_IN)


def test_the_names_that_the_page_calls_taken_are() -> None:
    names = PAGE.split("so these names are taken: ")[1].split("Begin with")[0]
    for name in re.findall(r"`([a-z_]+)`", names):
        assert reserved_for_settings(name.upper()) or reserved_for_settings(f"{name}X".upper()), name
    assert not reserved_for_settings("LAMP_LOG_LEVEL")
    for member in re.findall(r"such as `(\w+)`, `(\w+)`, `(\w+)` and", PAGE)[0]:
        assert hasattr(BaseModel, member)
