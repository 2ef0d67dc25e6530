"""Installations of the real program, ended with the test whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.program import Program


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
