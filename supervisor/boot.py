"""From the environment to everything that the wiring needs, or to sentences that say why not.

`examine` only reads, and finds as many mistakes at once as can be seen. `prepare` examines, then makes and locks
the folders, and only then, under the data folder's lock, makes the keys of a first run. So a start that is
refused leaves nothing behind, and two first starts at once cannot make two sets of keys.
"""

import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from schemas.manifest import Manifest
from schemas.service_schema import ServiceSchema
from supervisor import _first_run, folders
from supervisor._first_run import Made, ShownOnceError
from supervisor._services import Services, ServicesRefused, load_services
from supervisor.folders import Folders, FoldersRefused, inspect_folders, open_folders
from supervisor.keys import SEARCH, FoundKeys, Keys, KeysRefused, find_keys, put_together
from supervisor.settings import Settings, SettingsRefused, load_settings

__all__ = ["Boot", "Findings", "Keys", "Made", "StartRefused", "examine", "prepare"]


class StartRefused(Exception):
    """The start is refused. `lines`: one sentence each; `verbatim`: text to be shown once, as it is.

    `verbatim` may hold keys that could be kept nowhere else: it goes to standard error, never into a log.
    """

    def __init__(self, lines: str | Iterable[str], verbatim: Sequence[str] = ()) -> None:
        self.lines = (lines,) if isinstance(lines, str) else tuple(lines)
        self.verbatim = tuple(verbatim)
        super().__init__("; ".join(self.lines))


@dataclass(frozen=True)
class Boot:
    """A start that nothing stands against any more. Whoever has it owns `folders`, and closes them last."""

    settings: Settings
    keys: Keys
    folders: Folders
    manifest: Manifest
    schemas: Mapping[str, ServiceSchema]
    """By the service's name."""
    made: Made
    """What the first run made; empty on every other."""
    warnings: tuple[str, ...] = ()

    def secret_values(self) -> list[str]:
        """Every secret that this process knows, for the redaction of its log."""
        return [*self.settings.secret_values(), *self.keys.secret_values()]


class Findings(Struct, frozen=True):
    """What a start would use."""

    settings: Settings
    services: Services
    keys: FoundKeys
    exists: Path | None
    """The first of store, LKG and epoch file that is there; None before the first run."""
    would_make: tuple[str, ...]
    """Variables that the first run will make."""
    warnings: tuple[str, ...]


def examine(environ: Mapping[str, str], cwd: Path, *, search: Sequence[Path] = SEARCH) -> Findings:
    """Read and check everything that a start would, without changing anything.

    Raises StartRefused with all mistakes, except that wrong settings hide those of what they name.
    """
    try:
        settings = load_settings(environ, cwd)
    except SettingsRefused as refused:
        raise StartRefused(refused.lines) from None
    mistakes = inspect_folders(settings)
    services, found, exists = Services(Manifest(services=()), {}), FoundKeys(), None
    try:
        services = load_services(settings.services_file, settings.environment, settings.sources)
    except ServicesRefused as refused:
        mistakes += refused.lines
    try:
        found, exists = _look(settings, search)
    except KeysRefused as refused:
        mistakes += refused.lines
    if mistakes:
        raise StartRefused(mistakes)
    would_make = _first_run.wants(settings, found) if exists is None else ()
    warnings = [*settings.warnings, *folders.plan(settings).warnings, *services.warnings, *_exposed(settings)]
    warnings += folders.hardships(settings, services.accounts)
    if not settings.api_tokens and not would_make:
        warnings.append("there is no API token, so nobody can use the REST API; set CONFIG_API_TOKEN")
    return Findings(settings, services, found, exists, would_make, tuple(warnings))


def prepare(
    environ: Mapping[str, str],
    cwd: Path,
    *,
    search: Sequence[Path] = SEARCH,
    findings: Findings | None = None,
    locks: Sequence[int] = (),
) -> Boot:
    """Examine, lock, and on the first run make what is missing. Blocks; called before any loop runs.

    `findings`: of an `examine` just now. `locks`: see `open_folders`.

    Sets the umask of this process to 077. Raises StartRefused, and then holds no lock.
    """
    findings = findings or examine(environ, cwd, search=search)
    os.umask(0o077)
    try:
        opened = open_folders(findings.settings, locks)
    except FoldersRefused as refused:
        raise StartRefused(refused.lines) from None
    folders.close_passages(opened, findings.services.manifest)
    try:
        settings, keys, made = _keys(environ, cwd, search)
        if folders.plan(settings) != folders.plan(findings.settings):
            raise StartRefused("the settings were changed while the supervisor started; start it again")  # noqa: TRY301
    except BaseException:
        opened.close()
        raise
    return Boot(
        settings=settings,
        keys=keys,
        folders=opened,
        manifest=findings.services.manifest,
        schemas=findings.services.schemas,
        made=made,
        warnings=findings.warnings,
    )


def _keys(environ: Mapping[str, str], cwd: Path, search: Sequence[Path]) -> tuple[Settings, Keys, Made]:
    try:
        # Again, now under the lock: another first run may have written `.env` and ended since.
        settings = load_settings(environ, cwd)
        found, exists = _look(settings, search)
        made = Made()
        if exists is None and _first_run.wants(settings, found):
            made = _first_run.make(settings, found)
            # What was written is used as the next start will read it.
            settings = load_settings(environ, cwd)
            found = find_keys(settings, search)
        return settings, put_together(settings, found), made
    except (SettingsRefused, KeysRefused) as refused:
        raise StartRefused(refused.lines) from None
    except ShownOnceError as once:
        raise StartRefused(once.line, once.verbatim) from None


def _look(settings: Settings, search: Sequence[Path]) -> tuple[FoundKeys, Path | None]:
    """The keys, and a file that needs them. Raises KeysRefused, also where one is missing that is needed."""
    found = find_keys(settings, search)
    exists = _first_run.existing_file(settings)
    if found.missing and exists is not None:
        raise _first_run.refuse_missing(settings, found, exists)
    return found, exists


def _exposed(settings: Settings) -> list[str]:
    """The API speaks HTTP: elsewhere than on loopback, tokens and settings can be read on the way."""
    host = settings.api_host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if loopback:
        return []
    risk = f"CONFIG_API_HOST is {host}: tokens and settings go over the network unencrypted"
    return [f"{risk}; listen on 127.0.0.1, and put a proxy with TLS in front"]
