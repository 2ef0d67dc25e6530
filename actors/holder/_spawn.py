"""What to start, how it is put to the holder, and why it could not be; how it ended."""

import array
import contextlib
import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors.accounts import UnknownAccount, find_account, find_group
from actors.exits import how_it_ended
from actors.trees import INSTANCE_VARIABLE, RLIMIT_LOCKS, mark_of

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SpawnFailed(Exception):
    """The command could not be started; the message says why and what to do."""


def new_instance() -> str:
    """Give the random name of a start that is about to be made."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """A process to start. `TARS_SERVICE` and `TARS_INSTANCE` are added to its environment.

    `argv[0]` is a path, relative to `cwd`, or a name that is looked up in the PATH of `environment`. `user`, `group` and
    `groups` are names or numbers; a user's own groups are taken where none are given. `umask` is of the process, `nice`
    from -20 to 19. `rlimits` are soft and hard, -1 for unlimited, under the numbers of `resource.RLIMIT_*`. `memory` is
    in bytes, for the whole tree. `note` is kept by the holder for the supervisor that adopts the process: at most 16 KiB.
    """

    service: str
    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    instance: str = field(default_factory=new_instance)
    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] | None = None
    umask: int = 0o022
    nice: int | None = None
    rlimits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    memory: int | None = None
    note: str = ""

    def order(self) -> tuple[dict[str, object], bytes]:
        """Give the fields of the order to the holder, and the text that goes with it.

        Raises:
            SpawnFailed: there is no such program or user, or it may not be this one.
        """
        program = _program(self)
        uid, gid, groups = _identity(self)
        environment = {**self.environment, "TARS_SERVICE": self.service, INSTANCE_VARIABLE: self.instance}
        head = [os.fsencode(self.cwd), os.fsencode(program)]
        argv = [argument.encode("utf-8", "surrogateescape") for argument in self.argv]
        variables = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in environment.items()]
        parts = [*head, *argv, *variables]
        text = b"\0".join([*parts, b""])
        if text.count(b"\0") != len(parts):
            raise SpawnFailed(
                f"{self.argv[0]}: an argument or a variable holds a NUL character, which no program can be given"
            )
        offsets = [*itertools.accumulate([len(part) + 1 for part in parts])]
        pointers = array.array("L", [*offsets[1 : len(argv) + 1], 0, *offsets[len(argv) + 1 : -1], 0])
        return {
            "instance": self.instance,
            "service": self.service,
            "note": checked_note(self.note),
            "argc": len(argv),
            "size": len(text),
            "umask": oct(self.umask),
            "nice": "" if self.nice is None else self.nice,
            "uid": uid,
            "gid": gid,
            "groups": groups,
            "rlimits": ",".join([f"{number}:{soft}:{hard}" for number, (soft, hard) in self.rlimits.items()]),
            "memory": self.memory or "",
            "mark": f"{RLIMIT_LOCKS}:{mark_of(self.instance)}",
        }, text + pointers.tobytes()

    def explain(self, step: str, code: int) -> str:
        """Say what a failed step of the new process means, and what to do."""
        program, who = self.argv[0], self.user or "this user"
        reason = os.strerror(code)
        match step, code:
            case "exec", errno.ENOENT if (interpreter := _interpreter(_program(self), self.cwd)) is not None:
                return f"{program} needs the interpreter {interpreter}, which does not exist; mend its first line"
            case "exec", errno.ENOENT:
                return f"there is no program {program}; mend `command` in the manifest"
            case "exec", errno.EACCES:
                return (
                    f"{program} may not be executed by {who}; run: chmod +x {program}, and look at the folders above it"
                )
            case "exec", errno.ENOEXEC:
                return f"{program} is neither a program for this machine nor a script with a #! line"
            case "exec", errno.E2BIG:
                return f"{program}: its arguments and environment are too large for this system"
            case "cwd", errno.ENOENT:
                return f"its working folder {self.cwd} does not exist"
            case "cwd", errno.ENOTDIR:
                return f"its working folder {self.cwd} is not a folder"
            case "cwd", errno.EACCES:
                return f"its working folder {self.cwd} may not be entered by {who}"
            case "nice" | "limits", errno.EPERM | errno.EACCES:
                return f"{program}: only root may raise `nice` or `rlimits` beyond what this program has"
            case "limits", errno.EINVAL:
                return f"{program}: one of its `rlimits` is not valid: the soft limit is above the hard one"
        return f"{program} could not be started: {reason} ({step})"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: `code` is its exit status, or minus the number of the signal that killed it.

    `failure` is told where it never became its command. `at` is in seconds since 1970, `memory` its peak in bytes, `cpu`
    in seconds. `survivors` are processes of its tree that could not be ended. `successor` is the instance that the holder
    has started by a standing order (`Holder.follow`).
    """

    pid: int
    code: int
    failure: str = ""
    at: float = 0.0
    memory: int = 0
    cpu: float = 0.0
    survivors: tuple[int, ...] = ()
    successor: str = ""

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        return how_it_ended(self.code)


def checked_note(note: str) -> str:
    if len(note.encode()) > 16 * 1024 or "\0" in note:
        raise ValueError("a note has at most 16 KiB and no NUL character")
    return note


def _program(spawn: Spawn) -> str:
    program = spawn.argv[0]
    if os.sep in program:
        return program
    found = shutil.which(program, path=spawn.environment.get("PATH", DEFAULT_PATH))
    if found is None:
        raise SpawnFailed(f"there is no program {program} in its PATH; mend `command` in the manifest")
    return found


def _interpreter(program: str, cwd: Path) -> str | None:
    """Give the interpreter that a script names, if there is a script."""
    with contextlib.suppress(OSError), (cwd / program).open("rb") as file:
        if (first := file.readline(256)).startswith(b"#!") and (words := first[2:].split()):
            return words[0].decode("utf-8", "replace")
        return "of its ELF header (another architecture, or a library is missing)"
    return None


def _identity(spawn: Spawn) -> tuple[str, str, str]:
    """Uid, gid and groups that the process must take, as text; empty where it is to have ours."""
    if spawn.user is None and spawn.group is None and spawn.groups is None:
        return "", "", ""
    try:
        uid, gid, groups, _ = find_account(spawn.user, spawn.group)
        if spawn.groups is not None:
            groups = (gid, *map(find_group, spawn.groups))
    except UnknownAccount as unknown:
        raise SpawnFailed(str(unknown)) from None
    if os.getuid() != 0:
        own = {os.getgid(), *os.getgroups()}
        if uid != os.getuid() or not own.issuperset({gid, *(groups if spawn.groups is not None else ())}):
            raise SpawnFailed(
                f"{spawn.service}: only root may start a process as another user or group; "
                f"take `user` and `group` out of the manifest, or run the supervisor as root"
            )
        return "", "", ""
    return str(uid), str(gid), ",".join(map(str, sorted(set(groups))))
