"""The broker's passwords: private, lasting, fit for a URL, and made anew where they are spoilt."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from actors.broker.credentials import Credentials


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "broker" / "passwords"


def test_each_user_has_one_for_good(folder: Path) -> None:
    first = Credentials(folder)
    password = first.password("svc")
    assert first.password("svc") == password
    assert Credentials(folder).password("svc") == password
    assert first.password("other") != password
    assert urlsplit(f"mqtt://svc:{password}@host").password == password
    assert (folder / "svc").stat().st_mode & 0o777 == 0o400
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["other", "svc"]


@pytest.mark.parametrize("spoilt", [b"", b"short", b"\xff" * 43, b"x" * 42 + b"\n", b"x" * 44, b"x" * 40 + b"@/:"])
def test_a_spoilt_file_is_made_anew(folder: Path, spoilt: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "svc").write_bytes(spoilt)
    password = Credentials(folder).password("svc")
    assert len(password) == 43
    assert Credentials(folder).password("svc") == password


def test_what_a_killed_writer_left_is_no_obstacle(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / ".svc").write_text("half")
    assert Credentials(folder).password("svc")
    assert [path.name for path in folder.iterdir()] == ["svc"]


def test_a_file_in_the_place_of_the_folder_is_told(folder: Path) -> None:
    folder.parent.mkdir()
    folder.touch()
    with pytest.raises(OSError, match="passwords"):
        Credentials(folder).password("svc")
