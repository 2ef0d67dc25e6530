import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def keeps_umask() -> Iterator[None]:
    """The boot sets it for the whole process."""
    before = os.umask(0o022)
    yield
    os.umask(before)
