"""The schema for editors: the file is the one that is generated, and it knows what a manifest may say."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from schemas.manifest import ManifestInvalid, Service, editor_schema, parse_manifest
from schemas.manifest._policies import Backoff, Intensity, Limit, Output
from schemas.manifest._probes import PROBES
from schemas.manifest._rules import KEYS
from schemas.manifest._toml import written
from schemas.registry import BUILT_IN
from tests.schemas.json_schema_validator import Validator
from tests.schemas.manifests import RICH, ROOT

VALIDATOR = Validator(editor_schema())
FILE = ROOT / "deploy" / "services.schema.json"


def test_the_file_is_what_is_generated() -> None:
    """Where this fails: python -m schemas.manifest > deploy/services.schema.json."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == editor_schema()
    assert FILE.read_text(encoding="utf-8") == json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"


def nodes(node: Any) -> list[dict[str, Any]]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    own = [node] if isinstance(node, dict) else []
    return own + [found for each in inner for found in nodes(each)]


def test_it_is_of_the_draft_and_says_something_about_every_key() -> None:
    document = editor_schema()
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    service = document["$defs"]["Service"]
    assert tuple(service["properties"]) == KEYS
    assert all(each["description"] and each["examples"] for each in service["properties"].values())
    assert service["additionalProperties"] is False
    for node in nodes(document):
        assert node.get("$ref", "#/$defs/Service").removeprefix("#/$defs/") in document["$defs"]
        assert {"type": "null"} not in node.get("anyOf", [])


@pytest.mark.parametrize("path", ["deploy/services.tars.toml", "demo/services.toml"])
def test_the_manifests_that_come_with_the_program_are_sound_and_name_the_schema(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    assert (ROOT / path).parent.joinpath(first.removeprefix("#:schema ")).resolve() == FILE
    assert VALIDATOR.accepts(tomllib.loads(text))
    manifest = parse_manifest(text, path, (ROOT / path).parent)
    assert {service.name for service in manifest.services} == BUILT_IN.keys()


def test_the_installation_runs_the_six_workers() -> None:
    text = (ROOT / "deploy/services.tars.toml").read_text(encoding="utf-8")
    services = {service.name: service for service in parse_manifest(text, "m", Path("/etc/tars")).services}
    assert {name: service.command[-1] for name, service in services.items()} == {
        "stt-worker": "stt_worker",
        "tts-worker": "tts_worker",
        "router": "router",
        "llm-worker": "llm_worker",
        "memory-worker": "memory_worker",
        "wake-activation": "wake_activation",
    }
    assert {name: service.health_topic for name, service in services.items()} == {
        "stt-worker": "system/health/stt",
        "tts-worker": "system/health/tts",
        "router": "system/health/router",
        "llm-worker": "system/health/llm",
        "memory-worker": "system/health/memory",
        "wake-activation": "system/health/wake-activation",
    }
    users = [line.split('"')[1] for line in text.splitlines() if line.startswith("# user = ")]
    assert len(users) == len(set(users)) == len(services)
    assert all(service.memory_limit and service.probation for service in services.values())
    with_users = text.replace("# user = ", "user = ")
    assert all(service.user for service in parse_manifest(with_users, "m").services)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "command = []",
        "comand = ['x']",
        "command = ['x']\nrestart_command = ['x']",
        "kind = 'external'\ncommand = ['x']",
        "kind = 'config-only'\nhealth_topic = 'system/health/a'",
        "kind = 'proces'\ncommand = ['x']",
        "command = ['x']\ngrace = '5 sec'",
        "command = ['x']\ngrace = 3601",
        "command = ['x']\nmemory_limit = '64 MB'",
        "command = ['x']\nreadiness = { port = 3 }",
        "command = ['x']\nreadiness = { kind = 'tcp' }",
        "command = ['x']\nreadiness = { kind = 'notify', port = 3 }",
        "command = ['x']\nliveness = { kind = 'notify' }",
        "command = ['x']\nrlimits = { nofiles = 3 }",
        "command = ['x']\nrlimits = { nofile = { soft = 3 } }",
        "command = ['x']\nstart_after = { b = 'redy' }",
        "command = ['x']\numask = 22",
        "command = ['x']\nstop_signal = 'TERM'",
        "command = ['x']\nnice = 20",
    ],
)
def test_an_editor_underlines_what_is_refused(said: str) -> None:
    document = tomllib.loads(f"[services.a]\n{said}\n")
    assert not VALIDATOR.accepts(document)
    with pytest.raises(ManifestInvalid, match=r"services\.a"):
        parse_manifest(f"[services.a]\n{said}\n", "m")


def test_an_editor_underlines_unknown_tables_too() -> None:
    sound = tomllib.loads(RICH)
    assert VALIDATOR.accepts(sound)
    for wrong in ({**sound, "default": {}}, {"services": {}}, {}, {**sound, "supervisor": {"starts": 3}}):
        assert not VALIDATOR.accepts(wrong)


def sentences(model: type[BaseModel]) -> list[tuple[str, str]]:
    return [(key, written(example)) for key, info in model.model_fields.items() for example in info.examples or []]


PROBE_EXAMPLES = [(kind, key, text) for kind, probe in PROBES.items() for key, text in sentences(probe)]


@pytest.mark.parametrize(("key", "text"), sentences(Service))
def test_every_example_of_a_service_works(key: str, text: str) -> None:
    said = {"command": "['x']", "readiness": '{ kind = "notify" }', key: text}
    if text == '"external"' or key == "restart_command":
        said = {"kind": '"external"', key: text}
    lines = "\n".join(f"{each} = {value}" for each, value in said.items())
    others = "[services.broker]\ncommand = ['x']\n[services.migrate]\ncommand = ['x']\nrestart = 'never'\n"
    manifest = parse_manifest(f"[services.a]\n{lines}\n{others}", "m", Path("/srv"))
    assert VALIDATOR.accepts(tomllib.loads(f"[services.a]\n{lines}\n{others}"))
    assert key in manifest.services[0].model_fields_set


@pytest.mark.parametrize(("kind", "key", "text"), PROBE_EXAMPLES)
def test_every_example_of_a_probe_works(kind: str, key: str, text: str) -> None:
    needed = {name: written(info.examples[0]) for name, info in PROBES[kind].model_fields.items() if info.is_required()}
    said = ", ".join(f"{name} = {value}" for name, value in {**needed, key: text}.items())
    document = f"[services.a]\ncommand = ['x']\nreadiness = {{ kind = '{kind}', {said} }}\n"
    assert parse_manifest(document, "m").services[0].readiness.kind == kind
    assert VALIDATOR.accepts(tomllib.loads(document))


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        (table, key, text)
        for table, model in (("backoff", Backoff), ("intensity", Intensity), ("output", Output))
        for key, text in sentences(model)
    ],
)
def test_every_example_of_a_smaller_table_works(table: str, key: str, text: str) -> None:
    document = f"[services.a]\ncommand = ['x']\n{table} = {{ {key} = {text} }}\n"
    parse_manifest(document, "m")
    assert VALIDATOR.accepts(tomllib.loads(document))


@pytest.mark.parametrize("model", [Service, Backoff, Intensity, Output, Limit, *PROBES.values()])
def test_every_key_has_a_meaning_and_an_example(model: type[BaseModel]) -> None:
    for key, info in model.model_fields.items():
        assert key in {"name", "kind"} or (info.description and info.examples), key
