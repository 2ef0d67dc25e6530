"""Users and groups of the machine, and which folders they may pass through. The standard library alone."""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ACL = "system.posix_acl_access"


class UnknownAccount(LookupError):
    """There is no such user or group; the message says what to do."""


class Account(NamedTuple):
    """What a process that runs as somebody has: see credentials(7). `groups` has `gid` in it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str


def find_account(user: str | None, group: str | None = None) -> Account:
    """Look up names or numbers. Left out: our own user, and the user's own group. A number need not have a name.

    Raises:
        UnknownAccount: see there.
    """
    uid, gid, name = (os.getuid(), os.getgid(), None) if user is None else _user(user)
    if group is not None:
        gid = find_group(group)
    groups = [gid] if name is None else os.getgrouplist(name, gid)
    return Account(uid, gid, tuple(groups), name or str(uid))


def find_group(group: str) -> int:
    """Give its number. Raises UnknownAccount."""
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise UnknownAccount(f"there is no group {group}; create it, or mend `group` in the manifest") from None


def _user(user: str) -> tuple[int, int, str | None]:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return int(user), int(user), None
        raise UnknownAccount(f"there is no user {user}; create it, or mend `user` in the manifest") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def closed_to(account: Account, path: Path, *, besides: Iterable[Path] = ()) -> Path | None:
    """Give the first folder above `path` that this account may not pass through; None where there is none.

    Told by the permission bits. A folder with an access control list (acl(5)) counts as open, as does one that cannot be
    looked at, and one of `besides`.
    """
    real = Path(os.path.realpath(path))
    # Of a link both ways have to be open: to where it lies, and to where it leads.
    for folder in dict.fromkeys([*reversed(path.parents), *reversed(real.parents)]):
        with contextlib.suppress(OSError):
            if folder not in besides and not _may_pass(account, folder):
                return folder
    return None


def _may_pass(account: Account, folder: Path) -> bool:
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode) or account.uid == 0:
        return True
    # As path_resolution(7) has it: the first that fits decides.
    who = 6 if status.st_uid == account.uid else 3 if status.st_gid in account.groups else 0
    return bool(status.st_mode >> who & stat.S_IXOTH) or _ACL in os.listxattr(folder)
