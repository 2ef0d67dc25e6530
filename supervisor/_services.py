"""The manifest file and the models that it names, with every mistake of both at once."""

import difflib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from actors.accounts import Account, UnknownAccount, closed_to, find_account
from schemas.manifest import MAX_BYTES, ExecProbe, Manifest, ManifestInvalid, Service, parse_manifest
from schemas.problems import ConfigInvalid, SchemaInvalid
from schemas.service_schema import ServiceSchema
from schemas.states import Kind
from supervisor._bounded import OddFileError, read_file, why
from supervisor._reader import ENVIRONMENT
from supervisor._variables import BY_NAME, LITESTREAM_PREFIX
from supervisor.models import load_schema


class ServicesRefused(Exception):
    """The manifest or a model cannot be used. `lines`: one sentence for each mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


class Override(NamedTuple):
    """A variable that decides a setting of `service`, and where it stands. Never its value."""

    variable: str
    service: str
    source: str


class Services(Struct, frozen=True):
    """What the manifest says, the schema of each service by its name, and what a person should know."""

    manifest: Manifest
    schemas: Mapping[str, ServiceSchema]
    warnings: tuple[str, ...] = ()
    accounts: Mapping[str, Account] = {}
    """Whom the workers run as that have users of their own, as far as there are such users."""

    def overrides(self, environment: Mapping[str, str], sources: Mapping[str, str]) -> list[Override]:
        """The settings that a variable decides, secrets included, in the manifest's order.

        `sources`: where a variable of `environment` stands; the environment, where it says nothing.
        """
        found = []
        for service in self.manifest.services:
            schema = self.schemas[service.name]
            overridden = schema.overridden({**environment, **service.environment})
            for variable in (schema.fields[key].variable for key in schema.keys if key in overridden):
                here = "the manifest" if variable in service.environment else sources.get(variable, ENVIRONMENT)
                found.append(Override(variable, service.name, here))
        return found

    def misspelled(self, sources: Mapping[str, str]) -> list[str]:
        """A sentence for each variable of `.env` that is nobody's, but almost spelled like a setting's.

        Of the process environment, which holds anything, nothing is said. What is nearer to one of the supervisor's
        own is told with the supervisor's settings.
        """
        settings: dict[str, str] = {}
        for service in self.manifest.services:
            for field in self.schemas[service.name].fields.values():
                settings.setdefault(field.variable, service.name)
        passed = {name for service in self.manifest.services for name in service.pass_environment}
        ours = [*BY_NAME, *settings]
        found = []
        for name, source in sources.items():
            known = name in BY_NAME or name in settings or name in passed or name.startswith(LITESTREAM_PREFIX)
            if known or source == ENVIRONMENT:
                continue
            near = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.85)
            if near and near[0] in settings:
                found.append(
                    f"{source}: {name} is no setting of any service; did you mean {near[0]} ({settings[near[0]]})?"
                )
        return found


def load_services(path: Path, environment: Mapping[str, str], sources: Mapping[str, str] | None = None) -> Services:
    """Read the manifest at `path` and load each service's model. Importing a model runs its module.

    `environment` may override settings; what it says must be valid, too. Where `sources` tells which of it stands in
    `.env`, variables there that seem misspelled are warned of.

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
    accounts: dict[str, Account] = {}
    warnings = []
    for service in manifest.services:
        lines = [*_account(service, accounts), *_missing_parts(service, environment, accounts.get(service.name))]
        warnings += [f"{path}: {service.name}: {line}" for line in lines]
    warnings += Services(manifest, schemas).misspelled(sources or {})
    return Services(manifest, schemas, tuple(warnings), accounts)


def _text(path: Path) -> str:
    try:
        data, _ = read_file(path, MAX_BYTES)
        # Some editors begin UTF-8 with a byte order mark.
        return data.decode("utf-8-sig")
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


def _account(service: Service, accounts: dict[str, Account]) -> list[str]:
    """Add whom its worker runs as, where that is somebody else; or say why it cannot."""
    user, group = service.user, service.group
    if service.kind is not Kind.PROCESS or (user is None and group is None):
        return []
    try:
        account = find_account(None if user is None else str(user), None if group is None else str(group))
    except UnknownAccount as unknown:
        return [str(unknown)]
    if os.geteuid() == 0:
        if account.uid != 0:
            accounts[service.name] = account
    elif account.uid != os.geteuid() or account.gid not in {os.getegid(), *os.getgroups()}:
        return ["only root may start a process as another user or group; run the supervisor as root, or take them out"]
    return []


def _missing_parts(service: Service, environment: Mapping[str, str], account: Account | None) -> Iterator[str]:
    """Things that the worker needs and that are not there now: no mistake, since they may be there at its start."""
    commands: list[tuple[str, Sequence[str]]] = [("restart_command", service.restart_command)]
    if service.kind is Kind.PROCESS:
        commands = [("command", service.command)]
        for key, probe in (("readiness", service.readiness), ("liveness", service.liveness)):
            if isinstance(probe, ExecProbe):
                commands.append((f"{key}.command", probe.command))
    search = {**environment, **service.environment}.get("PATH")
    for key, command in commands:
        if command:
            yield from _missing_program(key, command[0], search, account)
    if service.kind is not Kind.PROCESS:
        return
    if not service.cwd.is_dir():
        yield f"there is no folder {service.cwd}; mend cwd, or make it"
    elif account is not None and (folder := closed_to(account, service.cwd / "file")) is not None:
        yield f"{account.name} may not enter {folder}, and cwd is {service.cwd}; run: chmod o+x {folder}, or mend cwd"


def _missing_program(key: str, program: str, search: str | None, account: Account | None) -> Iterator[str]:
    found: str | None = program
    if "/" in program:
        # A folder is "executable", too: it can be entered.
        if not Path(program).is_file() or not os.access(program, os.X_OK):
            yield f"{program} is no program that can be run; mend {key}, or install it"
            return
    else:
        found = shutil.which(program, path=search)
        if found is None:
            yield f"there is no program {program} on the PATH; mend {key}, or install it"
            return
    if account is not None and found is not None and (folder := closed_to(account, Path(found))) is not None:
        yield f"{account.name} may not enter {folder}, and {key} is {found}; run: chmod o+x {folder}, or install it elsewhere"
