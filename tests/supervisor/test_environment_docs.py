"""Every variable in the code is in the documentation, and the other way round."""

import re
from pathlib import Path

import supervisor
from schemas.reserved import SUPERVISOR_VARIABLES
from supervisor.settings import VARIABLES

ROOT = Path(supervisor.__file__).parent.parent
ROW = re.compile(r"^\| `([A-Z0-9_]+)` \|([^|]*)\|([^|]+)\|[^|]*\|$", re.MULTILINE)
FOREIGN = {"XDG_RUNTIME_DIR", "NO_COLOR", "TERM", "JOURNAL_STREAM", "NOTIFY_SOCKET"}


def rows() -> dict[str, tuple[str, str]]:
    found = ROW.findall((ROOT / "docs/environment.md").read_text())
    assert len({name for name, *_ in found}) == len(found)
    return {name: (default.strip(), meaning.strip()) for name, default, meaning in found}


def test_documentation_has_exactly_the_variables_of_the_code():
    assert rows().keys() == {variable.name for variable in VARIABLES}


def test_documentation_has_the_defaults_of_the_code():
    documented = rows()
    for variable in VARIABLES:
        # Where the code has none, the page may say in words what happens.
        if variable.default:
            assert documented[variable.name][0].replace("`", "") == variable.default, variable.name


def test_no_setting_may_be_named_like_one_of_them():
    assert {variable.name for variable in VARIABLES} - FOREIGN == SUPERVISOR_VARIABLES


def test_code_reads_no_other_variable():
    """Whoever reads the environment by name elsewhere in this room names a variable of the table."""
    names = {variable.name for variable in VARIABLES}
    pattern = re.compile(r"""environ(?:ment)?(?:\.get\(|\[)\s*["']([A-Z0-9_]+)["']""")
    for file in (ROOT / "supervisor").glob("*.py"):
        assert set(pattern.findall(file.read_text())) <= names, file
