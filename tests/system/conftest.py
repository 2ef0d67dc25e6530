"""Installations of the real program, ended with the test whatever happens."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.program import Program


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for sockets, whose paths may have 107 bytes (unix(7)): those of pytest may be too long."""
    with tempfile.TemporaryDirectory(prefix="tars-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Makes installations: `program(manifest, VARIABLE="value")`. Nothing of them outlives the test."""
    made: list[Program] = []

    def make(manifest: str, **environment: str) -> Program:
        installation = Program(tmp_path / f"installation{len(made) or ''}", manifest, **environment)
        made.append(installation)
        return installation

    try:
        yield make
    finally:
        for installation in made:
            installation.close()
