"""Who somebody is, and which folders they may pass through: told as the kernel would."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.accounts import Account, UnknownAccount, closed_to, find_account, find_group

UID, GID = 54321, 54322


def account(*groups: int) -> Account:
    return Account(UID, GID, (GID, *groups), "somebody")


def test_by_name_and_by_number() -> None:
    entry = pwd.getpwnam("daemon")
    found = find_account("daemon")
    assert (found.uid, found.gid, found.name) == (entry.pw_uid, entry.pw_gid, "daemon")
    assert set(found.groups) == set(os.getgrouplist("daemon", entry.pw_gid))
    assert find_account(str(entry.pw_uid)) == found
    assert find_account(str(UID)) == Account(UID, UID, (UID,), str(UID))
    assert find_account("daemon", str(GID))[1] == GID
    assert find_group("daemon") == entry.pw_gid
    assert find_account(None, str(GID))[:2] == (os.getuid(), GID)


@pytest.mark.parametrize(("user", "group", "what"), [("no-such-one", None, "user"), ("daemon", "no-such-one", "group")])
def test_one_that_there_is_not(user: str, group: str | None, what: str) -> None:
    with pytest.raises(UnknownAccount, match=f"there is no {what} no-such-one; create it, or mend `{what}`"):
        find_account(user, group)


@pytest.fixture
def place() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can give folders away, and become somebody else")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o700, 0o070, 0o007, 0o711, 0o750, 0o617, 0o770, 0o000])
@pytest.mark.parametrize("owner", [(UID, 0), (0, GID), (0, 77), (0, 0)])
def test_as_the_kernel_decides(place: Path, mode: int, owner: tuple[int, int]) -> None:
    (place / "one" / "two").mkdir(parents=True)
    (place / "one" / "two" / "file").touch()
    os.chown(place / "one", *owner)
    (place / "one").chmod(mode)
    tried = subprocess.run(
        ["/usr/bin/test", "-e", place / "one" / "two" / "file"],
        user=UID,
        group=GID,
        extra_groups=[77],
        cwd="/",
        check=False,
    )
    told = closed_to(account(77), place / "one" / "two" / "file")
    assert told == (None if tried.returncode == 0 else place / "one")
    assert closed_to(account(77), place / "one" / "two" / "file", besides=[place / "one"]) is None
    assert closed_to(account(77), place / "one") is None


def test_where_a_link_leads_counts(place: Path) -> None:
    (place / "closed" / "in").mkdir(parents=True)
    (place / "closed").chmod(0o700)
    (place / "link").symlink_to(place / "closed" / "in")
    assert closed_to(account(), place / "link" / "file") == place / "closed"
    assert closed_to(account(), place / "missing" / "file") is None
