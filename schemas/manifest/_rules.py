"""What Pydantic cannot know: which keys mean something for which kind, and what has to hold between services."""

import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from schemas._toml_lines import TomlLines
from schemas.manifest._mistakes import Mistake
from schemas.manifest._models import Service
from schemas.manifest._policies import Condition, Restart
from schemas.manifest._probes import PROBES
from schemas.manifest._texts import HEALTH
from schemas.problems import did_you_mean, listed
from schemas.states import Kind
from schemas.types import SERVICE_NAME_PATTERN

_FOR_ALL: Final = frozenset({"kind", "model"})
_FOR_EXTERNAL: Final = _FOR_ALL | {
    "health_topic", "readiness", "liveness", "backoff", "intensity", "probation", "restart_command", "grace",
}  # fmt: skip
KEYS: Final = tuple(key for key in Service.model_fields if key != "name")
KEYS_OF: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.PROCESS: frozenset(KEYS) - {"restart_command"},
    Kind.EXTERNAL: _FOR_EXTERNAL,
    Kind.CONFIG_ONLY: _FOR_ALL,
}
"""The keys that a service of each kind may have."""

SHARED_KEYS: Final = tuple(
    key for key in KEYS if key not in {"kind", "command", "model", "health_topic", "start_after", "restart_command"}
)
"""Those that `[defaults]` may have."""

MAX_CIRCLES: Final = 10
_FROM_OUTSIDE: Final = ("health-topic", "tcp", "http", "none")
_WHY: Final[Mapping[Kind, str]] = {
    Kind.PROCESS: "the supervisor restarts it itself",
    Kind.EXTERNAL: "somebody else runs it",
    Kind.CONFIG_ONLY: "it has no worker",
}

Table = Mapping[str, Any]


def kind_of(table: Table) -> Kind | None:
    """The kind that a service's table says; None where it says none that there is."""
    said = table.get("kind", Kind.PROCESS)
    return Kind(said) if isinstance(said, str) and said in list(Kind) else None


def within(table: Table, merged: Table, where: tuple[str | int, ...]) -> Iterator[Mistake]:
    """Mistakes between the keys of one service, whatever else is wrong with them.

    `table` is what the manifest says of it, `merged` the same with `[defaults]`.
    """
    kind = kind_of(table)
    if kind is None:
        return
    for key in table:
        if key in KEYS and key not in KEYS_OF[kind]:
            what = f'means nothing for kind "{kind}", since {_WHY[kind]}; remove it, or change the kind'
            yield (*where, key), what
    if kind is Kind.PROCESS:
        if merged.get("command", []) == []:
            yield (*where, "command"), 'is missing; write one, such as command = ["./worker"], or another kind'
        if "watchdog" in merged and _probe_kind(merged, "readiness") not in {"notify", None}:
            yield (*where, "watchdog"), 'needs the notify socket; write readiness = { kind = "notify" }, or remove it'
    if kind is Kind.EXTERNAL:
        for key in ("readiness", "liveness"):
            probe = _probe_kind(table, key)
            if probe in PROBES and probe not in _FROM_OUTSIDE:
                what = f'"{probe}" needs a process of ours; for kind "external" it must be {listed(_FROM_OUTSIDE)}'
                yield (*where, key, "kind"), what
        if "grace" in table and "restart_command" not in table:
            yield (*where, "grace"), "is the time that restart_command has, and there is none; write one, or remove it"


def _probe_kind(table: Table, key: str) -> str | None:
    """The kind that is said; None where what is said is no probe."""
    probe = table.get(key, {"kind": Service.model_fields[key].default.kind})
    kind = probe.get("kind") if isinstance(probe, dict) else None
    return kind if isinstance(kind, str) else None


def between(tables: Mapping[str, Table], lines: TomlLines) -> Iterator[Mistake]:
    """Mistakes between services, whatever else is wrong with them; `tables` are theirs, with `[defaults]`."""
    yield from _shared_topics(tables, lines)
    after = {name: dict(_start_after(table)) for name, table in tables.items()}
    for name, others in after.items():
        for other, condition in others.items():
            if (problem := _cannot_follow(name, other, condition, tables)) is not None:
                yield _entry(name, other, tables), problem
    yield from _cycles(after, tables)


def _start_after(table: Table) -> Iterator[tuple[str, object]]:
    said = table.get("start_after")
    if kind_of(table) is Kind.PROCESS and isinstance(said, (list, dict)):
        for name in said:
            # What is no name of a service is told elsewhere.
            if isinstance(name, str) and re.fullmatch(SERVICE_NAME_PATTERN, name):
                yield name, said[name] if isinstance(said, dict) else Condition.READY


def _shared_topics(tables: Mapping[str, Table], lines: TomlLines) -> Iterator[Mistake]:
    first: dict[str, str] = {}
    for name, table in tables.items():
        topic = table.get("health_topic", f"{HEALTH}{name}")
        if kind_of(table) in {Kind.CONFIG_ONLY, None} or not isinstance(topic, str) or not topic.isprintable():
            continue
        other = first.setdefault(topic, name)
        if other is not name:
            line = lines.of("services", other, "health_topic")
            what = f"{topic[:200]} is that of {other} too (line {line}); give each service its own"
            yield ("services", name, "health_topic"), what


def _cannot_follow(name: str, other: str, condition: object, tables: Mapping[str, Table]) -> str | None:
    if other == name:
        return "is the service itself; remove it"
    if other not in tables:
        return f"there is no such service{did_you_mean(other, [each for each in tables if each != name])}"
    kind = kind_of(tables[other])
    if kind is Kind.CONFIG_ONLY:
        return f"{other} has no worker that could be waited for; remove it"
    if kind is Kind.EXTERNAL and condition in (Condition.STARTED, Condition.EXITED_OK):
        return f'{other} is run by somebody else, of whom only "{Condition.READY}" can be known; write that'
    restart = tables[other].get("restart", Restart.ALWAYS)
    if kind is Kind.PROCESS and condition == Condition.EXITED_OK and restart == Restart.ALWAYS:
        mend = f'write restart = "{Restart.ON_FAILURE}" there, or "{Condition.READY}" here'
        return f"{other} is restarted whenever it exits; {mend}"
    return None


def _entry(name: str, other: str, tables: Mapping[str, Table]) -> tuple[str | int, ...]:
    said = tables[name]["start_after"]
    return ("services", name, "start_after", said.index(other) if isinstance(said, list) else other)


def _cycles(after: Mapping[str, Iterable[str]], tables: Mapping[str, Table]) -> Iterator[Mistake]:
    """One mistake for each circle that is left when the ones before it are opened; after some, mend those first."""
    graph = {name: {each for each in others if each in after} - {name} for name, others in after.items()}
    place = {name: index for index, name in enumerate(after)}
    for _ in range(MAX_CIRCLES):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            # The error's chain goes from what is first to what follows, and ends where it began.
            chain: list[str] = error.args[1][:0:-1]
        else:
            return
        start = min(range(len(chain)), key=lambda index: place[chain[index]])
        chain = [*chain[start:], *chain[:start]]
        graph[chain[0]].discard(chain[1])
        circle = " -> ".join((*chain[:20], *(["..."] if len(chain) > 20 else []), chain[0]))
        yield _entry(chain[0], chain[1], tables), f"goes in a circle: {circle}; remove one of these"
