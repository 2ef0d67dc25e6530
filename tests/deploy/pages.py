"""What the tests here read: the files of `deploy/`, and the page for whoever runs the program."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "operations.md"


def commands(name: str) -> str:
    """The shell block of the page that follows on `<!-- name -->`."""
    found = re.search(rf"<!-- {name} -->\n+```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, f"{PAGE.name} has no block {name}"
    return found[1]
