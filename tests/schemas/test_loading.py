"""Manifests and models from files and import paths."""

import json
import os
import sys
from pathlib import Path

import pytest

from schemas.problems import SchemaInvalid
from supervisor._services import ServicesRefused, load_services
from supervisor.models import MAX_SCHEMA, load_schema

MODULE = """
from pydantic import BaseModel, SecretStr

class Kitchen(BaseModel):
    brightness: int = 80
    api_key: SecretStr | None = None

class NotAModel:
    pass
"""


def refused(reference: str, folder: Path) -> str:
    with pytest.raises(SchemaInvalid) as caught:
        load_schema("kitchen", reference, folder)
    return str(caught.value)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable module, forgotten again afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"kitchen_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setitem(sys.modules, name, None)  # so that it is removed at the end
    del sys.modules[name]
    return name


def test_manifest_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "services.toml"
    path.write_bytes(b"\xef\xbb\xbf[services.router]\r\ncommand = ['./w']\r\n")
    (service,) = load_services(path, {}).manifest.services
    assert (service.command, service.cwd) == ((str(tmp_path / "w"),), tmp_path)


def test_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "services.toml"
    with pytest.raises(ServicesRefused, match="there is no such file; write a manifest there"):
        load_services(path, {})
    with pytest.raises(ServicesRefused, match="is not a file"):
        load_services(tmp_path, {})
    path.write_bytes(b"# fine\n# \xff\n")
    with pytest.raises(ServicesRefused, match=r"services\.toml:2: the text is not UTF-8; save the file as UTF-8"):
        load_services(path, {})
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ServicesRefused, match="is larger than 1024 KiB"):
        load_services(path, {})
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ServicesRefused, match="is not a file"):
        load_services(path, {})


def test_built_in_by_name(tmp_path: Path) -> None:
    assert load_schema("speech", "tts-worker", tmp_path).name == "speech"


def test_json_schema_beside_the_manifest(tmp_path: Path) -> None:
    document = {"properties": {"brightness": {"type": "integer", "default": 80}}}
    (tmp_path / "kitchen.schema.json").write_text(json.dumps(document))
    assert load_schema("kitchen", "kitchen.schema.json", tmp_path).defaults() == {"brightness": 80}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"properties": {\n"a": }', "kitchen.json:2: not JSON: Expecting value (column 6)"),
        (b"\xff", "kitchen.json: is not UTF-8 at byte 0"),
        (b"[1]", 'kitchen.json: must be an object with "properties"'),
        (b'{"properties": {"a": 1, "a": 2}}', 'kitchen.json: key "a" stands twice in one object; remove one'),
        (b'{"properties": {"a": NaN}}', "kitchen.json: NaN is not a number in JSON"),
        (b"[" * 100_000, "kitchen.json: is nested too deeply"),
        (b" " * (MAX_SCHEMA + 1), "kitchen.json: is larger than 1024 KiB"),
        (b'{"properties": {"a": {"type": "integer"}}}', 'kitchen.json: setting "a": "default" is missing'),
    ],
)
def test_json_schema_that_is_of_no_use(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "kitchen.json").write_bytes(content)
    assert problem in refused("kitchen.json", tmp_path)


def test_json_schema_that_is_not_there(tmp_path: Path) -> None:
    assert "kitchen.json: cannot be read: no such file or directory" in refused("kitchen.json", tmp_path)


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that lies in the manifest's folder and nowhere on the path; forgotten again afterwards."""
    name = f"lamp_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]
    return name


def test_a_model_beside_the_manifest(tmp_path: Path, lamp: str) -> None:
    before = list(sys.path)
    assert load_schema("kitchen", f"{lamp}:Kitchen", tmp_path).defaults() == {"brightness": 80}
    assert sys.path == before


def test_a_module_beside_the_manifest_may_import_its_neighbour(tmp_path: Path, lamp: str) -> None:
    (tmp_path / f"{lamp}.py").rename(tmp_path / f"{lamp}_base.py")
    (tmp_path / f"{lamp}.py").write_text(f"from {lamp}_base import Kitchen\n")
    try:
        assert load_schema("kitchen", f"{lamp}:Kitchen", tmp_path).secret_keys == {"api_key"}
    finally:
        sys.modules.pop(f"{lamp}_base", None)


@pytest.mark.parametrize("statement", ["1 / 0", "import sys; sys.path.insert(0, '/nowhere'); raise SystemExit(3)"])
def test_the_path_is_restored_after_a_failure(
    tmp_path: Path, lamp: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{lamp}.py").write_text(statement)
    assert f"importing {lamp} failed" in refused(f"{lamp}:Kitchen", tmp_path)
    assert str(tmp_path) not in sys.path


def test_where_a_missing_module_goes_is_said(tmp_path: Path) -> None:
    assert refused("mylamp:Lamp", tmp_path).endswith(
        f"there is no module mylamp; put mylamp.py beside the manifest (in {tmp_path}), or install its package"
    )


def test_model_by_import_path(tmp_path: Path, module: str) -> None:
    schema = load_schema("kitchen", f"{module}:Kitchen", tmp_path)
    assert (schema.defaults(), schema.secret_keys) == ({"brightness": 80}, {"api_key"})
    assert schema.restart_keys == {"brightness", "api_key"}


def test_import_path_that_is_of_no_use(tmp_path: Path, module: str) -> None:
    assert refused(f"{module}:Kitchn", tmp_path).endswith(f'{module} has no Kitchn; did you mean "Kitchen"?')
    assert "NotAModel is no Pydantic model" in refused(f"{module}:NotAModel", tmp_path)
    assert "there is no module no_such_package" in refused("no_such_package.module:Class", tmp_path)
    for odd in ("a:b:c", "a..b:C", ":C", "a:", "../a:C"):
        assert "it looks like package.module:Class" in refused(odd, tmp_path)


@pytest.mark.parametrize("statement", ["raise SystemExit(1)", "1 / 0", "import no_such_thing", "def"])
def test_module_that_cannot_be_imported(tmp_path: Path, module: str, statement: str) -> None:
    (tmp_path / f"{module}.py").write_text(statement)
    text = refused(f"{module}:Kitchen", tmp_path)
    assert f"importing {module} failed" in text or "there is no module no_such_thing" in text
