"""Whatever is done to a manifest: it is read, or each mistake has its line; and the schema for editors agrees."""

import re
import tomllib
from pathlib import Path

from hypothesis import given

from schemas.manifest import Change, Manifest, ManifestInvalid, differences, editor_schema, parse_manifest
from tests.schemas.json_schema_validator import Validator
from tests.schemas.manifests import BASES, RICH, mutated, text_of

LINE = re.compile(r"services\.toml:(\d+): .+", re.DOTALL)
VALIDATOR = Validator(editor_schema())


def read(text: str) -> Manifest | None:
    """None where it is refused; then each problem has a line of the text."""
    problems: tuple[str, ...] = ()
    try:
        return parse_manifest(text, "services.toml", Path("/srv"))
    except ManifestInvalid as invalid:
        problems = invalid.problems or ("no problem told",)
    last = text.count("\n") + 1
    for problem in problems:
        match = LINE.fullmatch(problem)
        assert match is not None, problem
        assert 1 <= int(match[1]) <= last
        assert len(problem) < 1000
    return None


def test_the_manifests_that_are_mutated_are_sound() -> None:
    assert read(RICH) is not None
    for document in BASES:
        assert tomllib.loads(text_of(document)) == document
        assert read(text_of(document)) is not None
        assert VALIDATOR.accepts(document)


@given(mutated())
def test_a_mutated_manifest_is_read_or_each_mistake_names_a_line(document: dict[str, object]) -> None:
    text = text_of(document)
    plain = tomllib.loads(text)
    manifest = read(text)
    if manifest is not None:
        assert len(manifest.services) == len(plain["services"])
        # What is sound must not be underlined in an editor.
        assert VALIDATOR.accepts(plain)
        assert all(each.change is Change.UNCHANGED for each in differences(manifest, manifest).services)
