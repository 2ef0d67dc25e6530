"""Finds the models that a manifest names: built in, by import path, or a JSON Schema file."""

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from schemas.problems import SchemaInvalid, did_you_mean
from schemas.registry import schema_for
from schemas.service_schema import ServiceSchema
from supervisor._bounded import OddFileError, read_file, why

MAX_SCHEMA: Final = 1024 * 1024


def load_schema(service: str, reference: str, folder: Path) -> ServiceSchema:
    """The schema of `service`, from what the manifest says under `model`.

    Args:
        service: the service's name.
        reference: `some.schema.json` (relative to `folder`, at most 1 MiB; see `schemas.json_schema`),
            `package.module:Class` (a Pydantic model in a module beside the manifest, or one that the supervisor's own
            Python can import), or the name of a built-in model. A plain model's settings are simple and need a restart
            unless `json_schema_extra` gives `x-complexity` and `x-apply`; `SecretStr | None` is a secret, `Path` a path.
        folder: the manifest's.

    Raises:
        SchemaInvalid: it cannot be found or read, or is no model of settings; with every problem.
    """
    if reference.endswith(".json"):
        path = folder / reference
        return schema_for(service, _read_document(path), source=str(path))
    if ":" in reference:
        return schema_for(service, _import_model(reference, folder), source=f"model {reference}")
    return schema_for(service, reference)


def _read_document(path: Path) -> dict[str, Any]:
    source = str(path)
    try:
        data, _ = read_file(path, MAX_SCHEMA)
    except OddFileError as odd:
        raise SchemaInvalid(source, [str(odd)]) from odd
    except OSError as error:
        raise SchemaInvalid(source, [f"cannot be read: {why(error)}"]) from error
    try:
        document = json.loads(data.decode(), object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise SchemaInvalid(f"{source}:{error.lineno}", [f"not JSON: {error.msg} (column {error.colno})"]) from error
    except UnicodeDecodeError as error:
        raise SchemaInvalid(source, [f"is not UTF-8 at byte {error.start}"]) from error
    except RecursionError as error:
        raise SchemaInvalid(source, ["is nested too deeply"]) from error
    except ValueError as error:
        raise SchemaInvalid(source, [str(error)]) from error
    if not isinstance(document, dict):
        raise SchemaInvalid(source, ['must be an object with "properties"'])
    return document


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f'key "{key[:80]}" stands twice in one object; remove one')
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _import_model(reference: str, folder: Path) -> type[BaseModel]:
    module_name, _, class_name = reference.partition(":")
    source = f"model {reference}"
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise SchemaInvalid(source, ["is not an import path; it looks like package.module:Class"])
    with _importable_from(folder):
        module = _import(module_name, source, folder)
    model = getattr(module, class_name, None)
    if model is None:
        models = [name for name, value in vars(module).items() if _is_model(value)]
        raise SchemaInvalid(source, [f"{module_name} has no {class_name}{did_you_mean(class_name, models)}"])
    if not _is_model(model):
        raise SchemaInvalid(source, [f"{class_name} is no Pydantic model: its class must derive from BaseModel"])
    return model  # type: ignore[no-any-return] # judged in the line above


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """`folder` is looked into first, and only in here: no later import of ours may find something else there.

    It names the same place after a change of the working folder.
    """
    entry = str(folder.absolute())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        # The module may have put something in front of it, or have taken it out.
        with suppress(ValueError):
            sys.path.remove(entry)


def _import(name: str, source: str, folder: Path) -> ModuleType:
    # A file that has come since somebody looked into the folder last would not be seen.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        what = "install its package beside the supervisor"
        if error.name in {name, name.partition(".")[0]}:
            what = f"put {name.replace('.', '/')}.py beside the manifest (in {folder}), or install its package"
        raise SchemaInvalid(source, [f"there is no module {error.name}; {what}"]) from error
    except (Exception, SystemExit) as error:  # a foreign module may raise anything while it is imported
        raise SchemaInvalid(source, [f"importing {name} failed: {type(error).__name__}: {error}"]) from error


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel
