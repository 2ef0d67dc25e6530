"""The data folder and the runtime folder (contract, section 3): private, ours, and used by one supervisor.

Where root's manifest gives workers users of their own, others can pass through (0711), and no more: decision 36.

Each holds a lock file whose flock(2) lives as long as this process, however it ends. The descriptors are
close-on-exec, so that no worker and no holder keeps a dead supervisor's lock.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from actors.accounts import Account, closed_to
from actors.files import PRIVATE_FILE, PRIVATE_FOLDER, is_private
from schemas.manifest import Manifest
from supervisor._bounded import why
from supervisor.settings import Settings

LOCK_FILE = "supervisor.lock"
PUBLIC_KEYS = "public_keys.pem"
LOCK_PATIENCE = 0.25
"""Seconds for which a held lock is tried again before the start is refused."""


class FoldersRefused(Exception):
    """A folder cannot be used. `lines`: one sentence for each, with how to mend it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True)
class Folders:
    """Both folders, locked until `close` or the end of the process."""

    data: Path
    runtime: Path
    warnings: tuple[str, ...] = ()
    _locks: list[int] = field(default_factory=list, repr=False)

    @property
    def locks(self) -> tuple[int, ...]:
        """Descriptors of the locks. Another process that gets them has the locks, too, until the last of them is closed."""
        return tuple(self._locks)

    def sign(self) -> None:
        """Write into the locks whose they are: after another process had them too. Raises OSError."""
        for descriptor in self._locks:
            _sign(descriptor)

    def close(self) -> None:
        """Give both folders free for another supervisor. May be called twice."""
        while self._locks:
            os.close(self._locks.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Plan(Struct, frozen=True):
    """Which folders the settings mean, before anything is touched."""

    data: Path
    runtime: Path
    runtime_variable: str
    """What a person changes to have it elsewhere."""
    warnings: tuple[str, ...] = ()


def plan(settings: Settings) -> Plan:
    """RUNTIME_DIRECTORY, else `tars-supervisor` under XDG_RUNTIME_DIR, else `run` in the data folder."""
    data = settings.db_path.parent
    if settings.runtime_directory is not None:
        return _with_warning(Plan(data, settings.runtime_directory, "RUNTIME_DIRECTORY"))
    warnings: tuple[str, ...] = ()
    xdg = settings.xdg_runtime_dir
    if xdg is not None:
        # `sudo` may leave another user's there, and a service manager one that is never made.
        with contextlib.suppress(OSError):
            if xdg.stat().st_uid == os.geteuid() and xdg.is_dir():
                return _with_warning(Plan(data, xdg / "tars-supervisor", "RUNTIME_DIRECTORY"))
        warnings = (f"XDG_RUNTIME_DIR names {xdg}, which is no folder of this user; it is not used",)
    return _with_warning(Plan(data, data / "run", "RUNTIME_DIRECTORY", warnings))


def inspect_folders(settings: Settings) -> list[str]:
    """What `open_folders` would refuse, as far as it can be seen without making or locking anything."""
    wanted = plan(settings)
    mistakes = []
    for what, path, variable in _folders(wanted):
        if path.exists():
            mistakes += _wrong(what, path, variable)
        else:
            nearest = next((parent for parent in path.parents if parent.exists()), Path("/"))
            if not nearest.is_dir():
                mistakes.append(_cannot_make(what, path, variable, f"{nearest} is not a folder"))
            elif not os.access(nearest, os.W_OK | os.X_OK):
                mistakes.append(_cannot_make(what, path, variable, "permission denied"))
    return mistakes


def owner(folder: Path) -> int | None:
    """Give the pid of the supervisor that has this folder's lock; None where nobody has. Raises OSError."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        try:
            # A shared one would make a start fail that comes at this moment; it is tried again there (`LOCK_PATIENCE`).
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            return int(text) if text.isascii() and text.isdecimal() and int(text) > 1 else None
        return None
    finally:
        os.close(descriptor)


def open_folders(settings: Settings, inherited: Sequence[int] = ()) -> Folders:
    """Make the folders where they are missing, check them, and lock them.

    `inherited`: descriptors of locks that a supervisor before this one has taken and handed over.

    Raises FoldersRefused where one is not ours, open to others, not writable, or used by another supervisor;
    nothing stays locked then.
    """
    wanted = plan(settings)
    folders = Folders(wanted.data, wanted.runtime, wanted.warnings)
    mistakes: list[str] = []
    for what, path, variable in _folders(wanted):
        try:
            path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            mistakes.append(_cannot_make(what, path, variable, why(error)))
            continue
        wrong = _wrong(what, path, variable)
        mistakes += wrong
        if not wrong:
            mistakes += _lock(folders._locks, what, path, variable, inherited)  # noqa: SLF001 - it is made here
    for variable, file in _files_elsewhere(settings):
        try:
            file.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            mistakes.append(_cannot_make("the folder", file.parent, variable, why(error)))
        else:
            if not os.access(file.parent, os.W_OK | os.X_OK):
                mistakes.append(_not_writable("the folder", file.parent, variable))
    if mistakes:
        folders.close()
        raise FoldersRefused(mistakes)
    return folders


def close_passages(folders: Folders, manifest: Manifest) -> None:
    """Make the folders 0700 again through which workers with users of their own have passed, where there are none any more.

    They are opened by who needs them (`actors.service`). One that cannot be closed stays as it is: nobody can list it.
    """
    if os.geteuid() != 0 or any(service.user is not None for service in manifest.services):
        return
    for folder in (folders.data, folders.runtime, folders.data / "state", folders.runtime / "services"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mode & 0o077:
                folder.chmod(PRIVATE_FOLDER)


def hardships(settings: Settings, accounts: Mapping[str, Account]) -> list[str]:
    """What keeps workers, by their names, from what they are given, or gives them more; a sentence each."""
    wanted = plan(settings)
    ours = (wanted.data, wanted.runtime)
    found = []
    for what, path, variable in _folders(wanted):
        closed: dict[Path, list[str]] = {}
        for name, account in accounts.items():
            if (folder := closed_to(account, path, besides=ours)) is not None:
                closed.setdefault(folder, []).append(f"{name} ({account.name})")
        found += [
            f"{', '.join(names)}: the worker's user may not enter {folder}, and so reaches nothing in {what} {path}; "
            f"run: chmod o+x {folder}, or choose another place with {variable}"
            for folder, names in closed.items()
        ]
        open_to_others = sorted(_open_files(path)) if accounts else []
        if open_to_others:
            found.append(
                f"workers with users of their own pass through {what} {path}, and can reach {', '.join(open_to_others)} in "
                f"it; run: chmod go-rwx on these, or move them"
            )
    return found


def _open_files(folder: Path) -> Iterator[str]:
    """Names of files that others may read or write, besides our own."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) and mode & 0o006 and entry.name != PUBLIC_KEYS:
                yield entry.name


def _folders(wanted: Plan) -> Iterator[tuple[str, Path, str]]:
    yield "the data folder", wanted.data, "CONFIG_DB_PATH"
    if wanted.runtime != wanted.data:
        yield "the runtime folder", wanted.runtime, wanted.runtime_variable


def _files_elsewhere(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The files of the data folder that a variable puts into another one."""
    data = settings.db_path.parent
    for variable, path in (
        ("CONFIG_LKG_CACHE_PATH", settings.lkg_path),
        ("CONFIG_EPOCH_PATH", settings.epoch_path),
    ):
        if path.parent != data:
            yield variable, path


def _wrong(what: str, path: Path, variable: str) -> list[str]:
    """What keeps an existing folder from being used."""
    try:
        status = path.stat()
    except OSError as error:
        return [_cannot_make(what, path, variable, why(error))]
    if not stat.S_ISDIR(status.st_mode):
        return [f"{what} {path} is not a folder; move it away, or choose another with {variable}"]
    mistakes = []
    if status.st_uid != os.geteuid():
        mistakes.append(
            f"{what} {path} belongs to user id {status.st_uid} and this program runs as {os.geteuid()}; "
            f"run it as that user, change the owner, or choose another folder with {variable}"
        )
    elif not is_private(status):
        mistakes.append(
            f"{what} {path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run: chmod 700 {path}, or choose another folder with {variable}"
        )
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        mistakes.append(_not_writable(what, path, variable))
    return mistakes


def _lock(locks: list[int], what: str, path: Path, variable: str, inherited: Sequence[int]) -> list[str]:
    """Take the folder's lock; it lasts until the descriptor is closed, by whatever end of the process."""
    try:
        # An inherited one is locked already, and by locking it once more we know that.
        descriptor = _among(inherited, path / LOCK_FILE)
        if descriptor is None:
            descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    except OSError as error:
        return [f"{what} {path} cannot be written ({why(error)}); mend that, or choose another with {variable}"]
    try:
        _flock(descriptor)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            sentence = f"another supervisor (pid {holder}) already uses {what} {path}"
            return [f"{sentence}; stop that one, or choose another folder with {variable}"]
        return [f"{what} {path} cannot be locked ({why(error)}); choose one on a local disk with {variable}"]
    try:
        _sign(descriptor)
    except OSError as error:
        os.close(descriptor)
        return [f"{what} {path} cannot be written ({why(error)}); make room there, or choose another with {variable}"]
    locks.append(descriptor)
    return []


def _sign(descriptor: int) -> None:
    """Write our number, for the sentence above and for `owner`; the lock file itself stays for ever."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _among(descriptors: Sequence[int], path: Path) -> int | None:
    """Give the one that is open on the file at `path`."""
    with contextlib.suppress(FileNotFoundError):
        file = path.stat()
        return next((each for each in descriptors if os.path.samestat(os.fstat(each), file)), None)
    return None


def _flock(descriptor: int) -> None:
    """Lock at once or soon; raises BlockingIOError where somebody goes on holding the lock.

    A supervisor that was killed while it started a worker leaves a copy of its descriptor in that child for the
    moment between fork and the end of exec; and a new owner writes its number just after it has locked.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _cannot_make(what: str, path: Path, variable: str, reason: str) -> str:
    return f"{what} {path} cannot be made ({reason}); make it, or choose another with {variable}"


def _not_writable(what: str, path: Path, variable: str) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return (
            f"{what} {path} is on a file system that is mounted read-only; check the card or disk and remount it, "
            f"or choose another folder with {variable}"
        )
    return f"{what} {path} cannot be written; run: chmod u+rwx {path}, or choose another with {variable}"


def _with_warning(wanted: Plan) -> Plan:
    """Secrets and snapshots lie in the runtime folder: on a card they would outlive the power, and wear it."""
    kind = filesystem(wanted.runtime)
    if kind is None or kind in {"tmpfs", "ramfs"}:
        return wanted
    sentence = (
        f"the runtime folder {wanted.runtime} is on {kind}, not in memory, so workers' secrets are written to disk; "
        "choose one on tmpfs with RUNTIME_DIRECTORY"
    )
    return Plan(wanted.data, wanted.runtime, wanted.runtime_variable, (*wanted.warnings, sentence))


def filesystem(path: Path) -> str | None:
    """Type of the file system that `path` lies on, or will; None where it cannot be told. proc(5), mountinfo."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    # Of several mounts on one point the last covers the others.
    mounts: dict[str, str] = {}
    for line in lines:
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if separator and len(fields) > 4:
            point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            mounts[point] = right.split(" ")[0]
    real = Path(os.path.realpath(path))
    return next((mounts[str(part)] for part in (real, *real.parents) if str(part) in mounts), None)
