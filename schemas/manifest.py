"""The manifest: which services there are, and how their workers are run (TOML).

    [services.stt-worker]
    kind = "process"                     # or "external" (run by somebody else), "config-only" (has no worker)
    command = ["../.venv/bin/python", "worker.py"]   # its first item, with a slash in it, is relative to the manifest
    cwd = "."                            # relative to the manifest, whose folder is the default
    environment = { KEY = "value" }
    pass_environment = ["HTTPS_PROXY"]   # taken from the supervisor's own environment where they are set there
    model = "stt-worker"                 # built-in name (default: the service's own), "package.module:Class", "file.json"
    health_topic = "system/health/stt"   # default: system/health/<service>
    stop_grace_s = 10.0                  # seconds between asking the worker to end and killing it

`services` is a table of tables; more tables may stand beside it in later releases.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, Strict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from schemas._toml_lines import TomlLines
from schemas.base import Model
from schemas.problems import listed, unknown_key
from schemas.reserved import reserved_for_workers
from schemas.states import Kind
from schemas.types import ServiceName, service_name

MAX_SERVICES: Final = 2000
MAX_BYTES: Final = 1024 * 1024
MAX_PROBLEMS: Final = 100
MAX_ENTRIES: Final = 256

_HEALTH: Final = "system/health/"
_OWN_TOPIC: Final = "system/health/config-manager"
_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class ManifestInvalid(Exception):
    """The manifest cannot be used; `problems` are sentences `file:line: what; how to mend`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def _wrong(sentence: str) -> PydanticCustomError:
    # The sentence is no template: braces in it mean themselves.
    return PydanticCustomError("manifest", "{sentence}", {"sentence": sentence})


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise _wrong("is not the name of an environment variable; use letters, digits and _")
    if reserved_for_workers(name):
        raise _wrong("is reserved: the supervisor sets it, or no worker may have it; remove it here")
    return name


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise _wrong("holds a NUL character; remove it")
    return text


def _health_topic(topic: str) -> str:
    levels = topic.removeprefix(_HEALTH).split("/")
    if not topic.startswith(_HEALTH) or not all(levels) or re.search(r"[+#\x00-\x1f\x7f]", topic):
        raise _wrong(f'is not a health topic; write "{_HEALTH}" and a name, without +, # and empty levels')
    if topic == _OWN_TOPIC:
        raise _wrong("is the supervisor's own health topic; give the service another")
    return topic


_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_without_nul)]
_Value = Annotated[str, StringConstraints(max_length=32768), AfterValidator(_without_nul)]
_Variable = Annotated[str, AfterValidator(_variable)]


class Service(Model):
    """One service of the manifest.

    `cwd`, and a `command[0]` with a slash in it, are no longer relative to the manifest.
    """

    name: ServiceName
    kind: Kind = Kind.PROCESS
    command: Annotated[tuple[_Text, ...], Field(max_length=MAX_ENTRIES)] = ()
    cwd: Path = Path()
    environment: Annotated[dict[_Variable, _Value], Field(default_factory=dict, max_length=MAX_ENTRIES)]
    pass_environment: Annotated[tuple[_Variable, ...], Field(max_length=MAX_ENTRIES)] = ()
    model: _Text
    health_topic: Annotated[str, StringConstraints(max_length=200), AfterValidator(_health_topic)]
    stop_grace_s: Annotated[float, Strict(), Field(ge=0, le=3600)] = 10.0


class Manifest(Model):
    """All services, in the order of the file."""

    services: tuple[Service, ...]


_KEYS: Final = tuple(key for key in Service.model_fields if key != "name")
_ONLY_FOR_PROCESSES: Final = ("command", "cwd", "environment", "pass_environment", "stop_grace_s")
_WORDS: Final[Mapping[str, str]] = {
    "string_type": 'must be text in quotes, such as "text"',
    "string_too_short": "is empty; write something, or remove it",
    "tuple_type": 'must be a list of texts, such as ["one", "two"]',
    "dict_type": 'must be a table of texts, such as { KEY = "value" }',
    "float_type": "must be a number of seconds, such as 10.0",
    "path_type": 'must be the path of a folder in quotes, such as "."',
    "enum": f"must be {listed([kind.value for kind in Kind])}, in quotes",
}


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
    services: list[Service] = []
    found = list(islice(_find(document, folder, lines, services), MAX_PROBLEMS + 1))
    if found:
        at = sorted(((lines.of(*path), problem) for problem, path in found[:MAX_PROBLEMS]), key=lambda each: each[0])
        problems = [f"{source_name}:{line}: {problem}" for line, problem in at]
        if len(found) > MAX_PROBLEMS:
            problems.append(f"{source_name}: there are more problems; mend these first")
        raise ManifestInvalid(problems)
    return Manifest(services=tuple(services))


_Problem = tuple[str, tuple[str | int, ...]]


def _parse(text: str, source_name: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ManifestInvalid([f"{source_name}: is larger than 1 MiB; is it the right file?"])
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ManifestInvalid([f"{source_name}: is nested too deeply; a manifest needs four levels"]) from None
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


def _find(document: Mapping[str, Any], folder: Path, lines: TomlLines, services: list[Service]) -> Iterator[_Problem]:
    """Yield every problem, and fill `services` with those that are sound in themselves."""
    for key in document:
        if key != "services":
            yield unknown_key(key, ["services"]), (key,)
    tables = document.get("services", {})
    if not isinstance(tables, dict):
        yield "services must hold one table for each service, such as [services.stt-worker]", ("services",)
        return
    if not tables:
        yield "there are no services; add a table such as [services.stt-worker] with a command", ("services",)
    if len(tables) > MAX_SERVICES:
        yield f"there are {len(tables)} services; at most {MAX_SERVICES} are allowed", ("services",)
        return
    for name, table in tables.items():
        yield from _service(name, table, folder, services)
    yield from _shared_topics(services, lines)


def _service(name: str, table: object, folder: Path, services: list[Service]) -> Iterator[_Problem]:
    where = ("services", name)
    try:
        service_name(name)
    except ValueError as error:
        yield f"{error}; rename it", where
        return
    if not isinstance(table, dict):
        yield f"{name} must be a table: write [services.{name}] and its keys below", where
        return
    sound = True
    for key in table:
        if key not in _KEYS:
            sound = False
            yield f"{name}: {unknown_key(key, _KEYS)}", (*where, key)
    known = {key: value for key, value in table.items() if key in _KEYS}
    try:
        service = Service.model_validate(
            {"model": name, "health_topic": f"{_HEALTH}{name}", **known, **_resolved(known, folder), "name": name}
        )
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield f"{name}: {_sentence(detail)}", (*where, *_inner(detail))
        return
    for problem, key in _contradictions(service, table):
        sound = False
        yield f"{name}: {problem}", (*where, key)
    if sound:
        services.append(service)


def _resolved(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What is relative to the manifest, made independent of it; what has a wrong type stays as it is."""
    resolved: dict[str, Any] = {"cwd": folder}
    cwd, command = table.get("cwd"), table.get("command")
    if "cwd" in table:
        resolved["cwd"] = folder / cwd if isinstance(cwd, str) and "\0" not in cwd else None
    if isinstance(command, list) and command and isinstance(command[0], str) and "/" in command[0]:
        resolved["command"] = [str(folder / command[0]), *command[1:]]
    return resolved


def _contradictions(service: Service, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if service.kind is Kind.PROCESS:
        if not service.command:
            yield 'it has no command; write one, such as command = ["./worker"], or another kind', "command"
        return
    why = "somebody else runs it" if service.kind is Kind.EXTERNAL else "it has no worker"
    for key in _ONLY_FOR_PROCESSES:
        if key in table:
            yield f'{key} means nothing for kind "{service.kind}", since {why}; remove it, or the kind', key
    if service.kind is Kind.CONFIG_ONLY and "health_topic" in table:
        yield 'health_topic means nothing for kind "config-only", since it has no worker; remove it', "health_topic"


def _shared_topics(services: list[Service], lines: TomlLines) -> Iterator[_Problem]:
    first: dict[str, Service] = {}
    for service in services:
        if service.kind is Kind.CONFIG_ONLY:
            continue
        other = first.setdefault(service.health_topic, service)
        if other is not service:
            line = lines.of("services", other.name, "health_topic")
            problem = (
                f"{service.name}: health_topic {service.health_topic} is that of {other.name} too (line {line}); "
                "give each service its own"
            )
            yield problem, ("services", service.name, "health_topic")


def _inner(detail: ErrorDetails) -> tuple[str | int, ...]:
    """The path below the service's table; Pydantic calls a wrong key of a table `[key]`."""
    return tuple(step for step in detail["loc"] if step != "[key]")


def _sentence(detail: ErrorDetails) -> str:
    steps = _inner(detail)
    what = str(steps[0]) + "".join(f"[{step}]" if isinstance(step, int) else f".{step[:80]}" for step in steps[1:])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "manifest":
        return f"{what} {context['sentence']}"
    if kind == "too_long":
        return f"{what} has {context['actual_length']} entries; at most {context['max_length']} are allowed"
    if kind == "string_too_long":
        return f"{what} is longer than {context['max_length']} characters; shorten it"
    if kind in {"greater_than_equal", "less_than_equal", "finite_number"}:
        return f"{what} must be 0 to 3600 seconds"
    return f"{what} {_WORDS.get(kind) or detail['msg']}"
