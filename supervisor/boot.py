"""From the environment to everything that the wiring needs, or to sentences that say why not.

Order: settings, manifest and models (pure reading, all of their mistakes are told together), then folders and
their locks, then keys. So nothing is made on disk for a start that would be refused anyway, and keys are
made only under the data folder's lock.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor import _first_run
from supervisor._first_run import Made, ShownOnceError
from supervisor.folders import Folders, FoldersRefused, open_folders
from supervisor.keys import SEARCH, Keys, KeysRefused, find_keys, put_together
from supervisor.settings import Settings, SettingsRefused, load_settings

__all__ = ["Boot", "Keys", "Made", "StartRefused", "prepare"]


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
    made: Made
    warnings: tuple[str, ...] = ()

    def secret_values(self) -> list[str]:
        """Every secret that this process knows, for the redaction of its log."""
        return [*self.settings.secret_values(), *self.keys.secret_values()]


def prepare(environ: Mapping[str, str], cwd: Path, *, search: Sequence[Path] = SEARCH) -> Boot:
    """Load, check, lock, and on the first run make what is missing. Blocks; called before any loop runs.

    Sets the umask of this process to 077. Raises StartRefused, and then holds no lock.
    """
    os.umask(0o077)
    try:
        settings = load_settings(environ, cwd)
    except SettingsRefused as refused:
        raise StartRefused(refused.lines) from None
    try:
        folders = open_folders(settings)
    except FoldersRefused as refused:
        raise StartRefused(refused.lines) from None
    try:
        settings, keys, made = _keys(settings, environ, cwd, search)
    except BaseException:
        folders.close()
        raise
    warnings = [*settings.warnings, *folders.warnings]
    if not settings.api_tokens:
        warnings.append("there is no API token, so nobody can use the REST API; set CONFIG_API_TOKEN")
    return Boot(settings, keys, folders, made, tuple(warnings))


def _keys(
    settings: Settings, environ: Mapping[str, str], cwd: Path, search: Sequence[Path]
) -> tuple[Settings, Keys, Made]:
    try:
        # Again, now under the lock: another first run may have written `.env` and ended since.
        settings = load_settings(environ, cwd)
        found = find_keys(settings, search)
        exists = _first_run.existing_file(settings)
        made = Made()
        if exists is None and _first_run.wants(settings, found):
            made = _first_run.make(settings, found)
            # What was written is used as the next start will read it.
            settings = load_settings(environ, cwd)
            found = find_keys(settings, search)
        elif found.missing and exists is not None:
            raise _first_run.refuse_missing(settings, found, exists)
        return settings, put_together(settings, found), made
    except (SettingsRefused, KeysRefused) as refused:
        raise StartRefused(refused.lines) from None
    except ShownOnceError as once:
        raise StartRefused(once.line, once.verbatim) from None
