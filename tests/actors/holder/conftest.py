from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.holder.support import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "run")
    yield place
    place.clean()
