"""The manifest file and the models that it names, with every mistake of both at once."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.manifest import MAX_BYTES, Manifest, ManifestInvalid, Service, parse_manifest
from schemas.problems import ConfigInvalid, SchemaInvalid
from schemas.service_schema import ServiceSchema
from schemas.states import Kind
from supervisor._bounded import OddFileError, read_file, why
from supervisor.models import load_schema


class ServicesRefused(Exception):
    """The manifest or a model cannot be used. `lines`: one sentence for each mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True)
class Services:
    """What the manifest says, the schema of each service by its name, and what a person should know."""

    manifest: Manifest
    schemas: Mapping[str, ServiceSchema]
    warnings: tuple[str, ...] = ()


def load_services(path: Path, environment: Mapping[str, str]) -> Services:
    """Read the manifest at `path` and load each service's model. Importing a model runs its module.

    `environment` may override settings; what it says must be valid, too.

    Raises ServicesRefused.
    """
    try:
        manifest = parse_manifest(_text(path), str(path), path.parent)
    except ManifestInvalid as invalid:
        raise ServicesRefused(list(invalid.problems)) from None
    schemas: dict[str, ServiceSchema] = {}
    mistakes: list[str] = []
    for service in manifest.services:
        try:
            schemas[service.name] = load_schema(service.name, service.model, path.parent)
        except SchemaInvalid as invalid:
            mistakes += [f"{path}: {service.name}: {invalid.source}: {problem}" for problem in invalid.problems]
            continue
        seen_by_worker = {**environment, **service.environment}
        try:
            schemas[service.name].check(schemas[service.name].from_environment(seen_by_worker))
            schemas[service.name].secrets_from_environment(seen_by_worker)
        except ConfigInvalid as invalid:
            mistakes += [
                f"{service.name}: {error.message} Mend the variable, or remove it." for error in invalid.errors
            ]
    if mistakes:
        raise ServicesRefused(mistakes)
    warnings = [f"{path}: {line}" for service in manifest.services for line in _missing_parts(service)]
    return Services(manifest, schemas, tuple(warnings))


def _text(path: Path) -> str:
    try:
        data, _ = read_file(path, MAX_BYTES)
        return data.decode()
    except OddFileError as odd:
        what = f"{odd} with SERVICES_FILE"
    except FileNotFoundError:
        what = "there is no such file; write a manifest there, or name another one with SERVICES_FILE"
    except OSError as error:
        what = f"cannot be read ({why(error)}); let the user who runs the supervisor read it"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ServicesRefused([f"{path}:{line}: the text is not UTF-8; save the file as UTF-8"]) from None
    raise ServicesRefused([f"{path}: {what}"])


def _missing_parts(service: Service) -> list[str]:
    """Things that the worker needs and that are not there now: no mistake, since they may be there at its start."""
    if service.kind is not Kind.PROCESS:
        return []
    found = []
    program = service.command[0]
    if "/" in program:
        if not os.access(program, os.X_OK):
            found.append(f"{service.name}: {program} is no program that can be run; mend command, or install it")
    elif shutil.which(program) is None:
        found.append(f"{service.name}: there is no program {program} on the PATH; mend command, or install it")
    if not service.cwd.is_dir():
        found.append(f"{service.name}: there is no folder {service.cwd}; mend cwd, or make it")
    return found
