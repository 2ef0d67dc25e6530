"""Reads a manifest's text, and names every mistake in it."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas._toml_lines import TomlLines
from schemas.manifest._mistakes import Mistake, mistakes, shown, unknown
from schemas.manifest._models import MAX_SERVICES, Manifest, Service
from schemas.manifest._rules import KEYS, SHARED_KEYS, between, kind_of, within
from schemas.manifest._texts import HEALTH
from schemas.states import Kind
from schemas.types import SERVICE_NAME_PATTERN, service_name

MAX_BYTES: Final = 1024 * 1024
MAX_PROBLEMS: Final = 100

_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TABLES: Final = ("supervisor", "defaults", "services")
MERGED: Final = ("environment", "rlimits", "backoff", "intensity", "output")
"""Tables of which `[defaults]` gives what the service does not say; every other key counts as a whole."""


class ManifestInvalid(Exception):
    """The manifest cannot be used; `problems` are sentences `file:line: key: what; how to mend`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def parse_manifest(text: str, source_name: str, folder: Path = Path()) -> Manifest:
    """Read a manifest.

    Args:
        text: the file's text.
        source_name: what errors call it.
        folder: the file's, which relative paths begin from. Nothing is looked up in it.

    Raises:
        ManifestInvalid: with every problem (from the hundredth on, that there are more). A syntax error hides all
            others.
    """
    document = _parse(text, source_name)
    lines = TomlLines(text)
    reader = _Reader(document, folder, lines)
    found = list(islice(reader.read(), MAX_PROBLEMS + 1))
    if found:
        at = sorted(((lines.of(*path), path, what) for path, what in found[:MAX_PROBLEMS]), key=lambda each: each[0])
        problems = [f"{source_name}:{line}: {shown(path)}: {what}" for line, path, what in at]
        if len(found) > MAX_PROBLEMS:
            problems.append(f"{source_name}:{at[-1][0]}: there are more problems; mend these first")
        raise ManifestInvalid(problems)
    return Manifest(services=tuple(reader.services), concurrent_starts=reader.concurrent_starts)


def _parse(text: str, source_name: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ManifestInvalid([f"{source_name}:1: is larger than 1 MiB; is it the right file?"])
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ManifestInvalid([f"{source_name}:1: is nested too deeply; a manifest needs four levels"]) from None
    except ValueError as error:
        # Only the conversion of a number with thousands of digits raises another kind of ValueError.
        what = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number is too long"
        line, where = text.count("\n") + 1, ""
        if (position := _POSITION.search(what)) is not None:
            what = what[: position.start()]
            if position[1] is not None:
                line, where = int(position[1]), f" at column {position[2]}"
        raise ManifestInvalid(
            [f"{source_name}:{line}: not TOML{where}: {what[:1].lower()}{what[1:]}; mend it to see what else is wrong"]
        ) from None


class _Reader:
    """Reads a document once. `services` and `concurrent_starts` count only if `read` gave no mistake."""

    def __init__(self, document: Mapping[str, Any], folder: Path, lines: TomlLines) -> None:
        self._document = document
        self._folder = folder
        self._lines = lines
        self._shared: dict[str, Any] = {}
        self.services: list[Service] = []
        self.concurrent_starts: int | None = None

    def read(self) -> Iterator[Mistake]:
        """Give the mistakes, one after the other."""
        yield from unknown(self._document, _TABLES, ())
        yield from self._supervisor()
        yield from self._defaults()
        tables = self._document.get("services", {})
        if not isinstance(tables, dict):
            yield ("services",), "must hold one table for each service, such as [services.stt-worker]"
            return
        if not tables:
            yield ("services",), "there are none; add a table such as [services.stt-worker] with a command"
        if len(tables) > MAX_SERVICES:
            yield ("services",), f"there are {len(tables)}; at most {MAX_SERVICES} are allowed"
            return
        merged: dict[str, Mapping[str, Any]] = {}
        for name, table in tables.items():
            if isinstance(table, dict) and re.fullmatch(SERVICE_NAME_PATTERN, name):
                merged[name] = self._with_defaults(table)
            yield from self._service(name, table, merged.get(name, {}))
        yield from between(merged, self._lines)

    def _supervisor(self) -> Iterator[Mistake]:
        table = self._document.get("supervisor", {})
        if not isinstance(table, dict):
            yield ("supervisor",), "must be a table: write [supervisor] and its keys below"
            return
        yield from unknown(table, ["concurrent_starts"], ("supervisor",))
        if "concurrent_starts" in table:
            number = table["concurrent_starts"]
            if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_SERVICES:
                self.concurrent_starts = number
            else:
                yield ("supervisor", "concurrent_starts"), f"must be a whole number from 1 to {MAX_SERVICES}"

    def _defaults(self) -> Iterator[Mistake]:
        table = self._document.get("defaults", {})
        if not isinstance(table, dict):
            yield ("defaults",), "must be a table: write [defaults] and its keys below"
            return
        for key in table:
            if key in KEYS and key not in SHARED_KEYS:
                yield ("defaults", key), "is each service's own; write it there"
            else:
                yield from unknown([key], SHARED_KEYS, ("defaults",))
        known = {key: value for key, value in table.items() if key in SHARED_KEYS}
        wrong: set[str | int] = set()
        try:
            _service_of("defaults", known, self._folder)
        except ValidationError as error:
            for path, what in mistakes(error, ("defaults",)):
                wrong.add(path[1])
                yield path, what
        # What is wrong here is told here, once, and not again for each service.
        self._shared = {key: value for key, value in known.items() if key not in wrong}

    def _service(self, name: str, table: object, merged: Mapping[str, Any]) -> Iterator[Mistake]:
        where = ("services", name)
        try:
            service_name(name)
        except ValueError as error:
            yield where, f"{error}; rename it"
            return
        if not isinstance(table, dict):
            yield where, f"must be a table: write [services.{name}] and its keys below"
            return
        yield from unknown(table, KEYS, where)
        yield from within(table, merged, where)
        try:
            known = {key: value for key, value in merged.items() if key in KEYS}
            self.services.append(_service_of(name, known, self._folder))
        except ValidationError as error:
            yield from mistakes(error, where)

    def _with_defaults(self, table: Mapping[str, Any]) -> dict[str, Any]:
        if kind_of(table) is not Kind.PROCESS:
            return dict(table)
        merged = {**self._shared, **table}
        for key in MERGED:
            shared, own = self._shared.get(key), table.get(key)
            if isinstance(shared, dict) and isinstance(own, dict):
                merged[key] = {**shared, **own}
        return merged


def _service_of(name: str, table: Mapping[str, Any], folder: Path) -> Service:
    """Make the service, with what is relative to the manifest made independent of it.

    Raises ValidationError.
    """
    values: dict[str, Any] = {"model": name, "health_topic": f"{HEALTH}{name}", **table, "name": name, "cwd": folder}
    if "cwd" in table:
        cwd = table["cwd"]
        values["cwd"] = folder / cwd if isinstance(cwd, str) and "\0" not in cwd else None
    for key in ("command", "restart_command"):
        if key in table:
            values[key] = _command(table[key], folder)
    for key in ("readiness", "liveness"):
        probe = table.get(key)
        if isinstance(probe, dict) and "command" in probe:
            values[key] = {**probe, "command": _command(probe["command"], folder)}
    return Service.model_validate(values)


def _command(value: object, folder: Path) -> object:
    """A command whose program, where it has a slash in it, no longer depends on the folder; what is none stays as it is."""
    if isinstance(value, list) and value and isinstance(value[0], str) and "/" in value[0]:
        return [str(folder / value[0]), *value[1:]]
    return value
