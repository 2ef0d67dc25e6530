"""Says in our own words what Pydantic found in one table of a manifest, and where."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from schemas.base import Model
from schemas.manifest._models import Service
from schemas.manifest._policies import Backoff, Intensity, Limit, Output
from schemas.manifest._probes import LIVENESS, PROBES
from schemas.manifest._toml import written
from schemas.problems import did_you_mean, listed

Path = tuple[str | int, ...]
Mistake = tuple[Path, str]
"""Where, from the document's root; and a sentence without a subject, which is the key."""

_TABLES: Final[Mapping[str, type[Model]]] = {"backoff": Backoff, "intensity": Intensity, "output": Output}
_PROBE_KEYS: Final = ("readiness", "liveness")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_WORDS: Final[Mapping[str, str]] = {
    "string_type": 'must be text in quotes, such as "text"',
    "string_too_short": "is empty; write something, or remove it",
    "tuple_type": 'must be a list, such as ["one", "two"]',
    "too_short": 'is empty; write something, such as ["one", "two"]',
    "dict_type": 'must be a table, such as { KEY = "value" }',
    "model_type": "must be a table of keys",
    "model_attributes_type": "must be a table of keys",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "path_type": 'must be the path of a folder in quotes, such as "."',
}


def shown(path: Path) -> str:
    """`path` as one would write it in the manifest: `services.a.command[0]`. Bounded, whatever the keys are."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            # A name of somebody's making: what does not print must not reach a terminal.
            name = step if _BARE.fullmatch(step) else f'"{"".join(c if c.isprintable() else "?" for c in step[:80])}"'
            text += f".{name}" if text else name
    return text


def unknown(keys: Iterable[str], known: Iterable[str], where: Path) -> Iterator[Mistake]:
    """A mistake for each of `keys` that is none of `known`."""
    known = tuple(known)
    for key in keys:
        if key not in known:
            yield (*where, key), f"unknown key{did_you_mean(key, known)}"


def mistakes(error: ValidationError, where: Path) -> Iterator[Mistake]:
    """Those in the table of a service, or of what is shared by services, that stands at `where`."""
    for detail in error.errors(include_url=False):
        steps = _steps(detail)
        yield (*where, *steps), _sentence(detail, steps)


def _steps(detail: ErrorDetails) -> Path:
    """The path as the file has it: Pydantic calls a wrong key of a table `[key]`, and names a probe's kind."""
    steps = tuple(step for step in detail["loc"] if step != "[key]")
    if detail["type"].startswith("union_tag"):
        return (*steps, "kind")
    return (*steps[:1], *steps[2:]) if steps[0] in _PROBE_KEYS else steps


def _sentence(detail: ErrorDetails, steps: Path) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "manifest":
        return str(context["sentence"])
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(steps[-1]), _model(detail).model_fields)}"
    if kind == "missing":
        example = written(_field(detail).examples[0])  # type: ignore[index] # every key has one; a test says so
        return f"is missing; write it, such as {steps[-1]} = {example}"
    if kind == "too_long":
        return f"has {context['actual_length']} entries; at most {context['max_length']} are allowed"
    if kind == "string_too_long":
        return f"is longer than {context['max_length']} characters; shorten it"
    if kind == "string_pattern_mismatch":
        return _of_a_pattern(steps)
    if kind in {"greater_than_equal", "less_than_equal"}:
        return _of_bounds(detail, steps)
    if kind in {"enum", "literal_error", "union_tag_invalid"}:
        return _of_choice(detail, steps)
    if kind == "union_tag_not_found":
        kinds = LIVENESS if steps[0] == "liveness" else tuple(PROBES)
        return f'is missing; write it, such as kind = "health-topic"; it is {listed(kinds)}'
    return _WORDS.get(kind) or detail["msg"]


def _of_a_pattern(steps: Path) -> str:
    if steps[0] == "start_after":
        return "is not the name of a service: a lower-case letter, then lower-case letters, digits and hyphens"
    return 'must be a name or an address, such as "127.0.0.1"'


def _of_bounds(detail: ErrorDetails, steps: Path) -> str:
    low: Any = "?"
    high: Any = "?"
    for bound in _field(detail).metadata if isinstance(steps[-1], str) else ():
        low, high = getattr(bound, "ge", low), getattr(bound, "le", high)
    if "?" in (low, high):
        context = detail["ctx"]
        return f"must be at least {context['ge']}" if "ge" in context else f"must be at most {context['le']}"
    return f"must be {low} to {high}"


def _of_choice(detail: ErrorDetails, steps: Path) -> str:
    context = detail["ctx"]
    allowed = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags")))
    said = context.get("tag", detail["input"])
    hint = did_you_mean(said, allowed) if isinstance(said, str) else ""
    if steps[0] == "rlimits":
        return f"is no limit of setrlimit(2); those are {listed(allowed, 'and')}{hint}"
    if detail["type"] == "union_tag_invalid":
        if steps[0] == "liveness" and said == "notify":
            hint = '; for a sign of life over the notify socket write watchdog = "30 s" instead'
        elif steps[0] == "liveness" and said in PROBES:
            hint = f"; {said} is for readiness alone"
    return f"must be {listed(allowed)}, in quotes{hint}"


def _model(detail: ErrorDetails) -> type[Model]:
    """The model of the table in which the last step stands."""
    loc = detail["loc"]
    if loc[0] in _PROBE_KEYS and len(loc) > 1:
        return PROBES[str(loc[1])]
    if loc[0] == "rlimits" and len(loc) > 2:
        return Limit
    return _TABLES.get(str(loc[0]), Service) if len(loc) > 1 else Service


def _field(detail: ErrorDetails) -> FieldInfo:
    return _model(detail).model_fields[str(detail["loc"][-1])]
