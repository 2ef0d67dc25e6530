"""Manifests as nested dictionaries, written as TOML, and made a little wrong."""

import tomllib
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

import schemas
from schemas.manifest import Service
from schemas.manifest._probes import PROBES

ROOT: Final = Path(schemas.__file__).parent.parent

RICH: Final = """
[supervisor]
concurrent_starts = 2
[defaults]
user = "tars"
environment = { LANG = "C.UTF-8" }
rlimits = { core = 0, nofile = { soft = 1024, hard = "unlimited" } }
backoff = { first = "1 s", max = "5 min", jitter = 0.5 }
[services.one]
command = ["./one", "--fast"]
environment = { A = "b" }
readiness = { kind = "notify", start_period = "1 min" }
watchdog = "30 s"
memory_limit = "64 MiB"
umask = "027"
nice = 5
restart = "on-failure"
success_exit_codes = [0, 3]
success_signals = ["SIGTERM"]
intensity = { restarts = 5, window = "1 h" }
output = { file_size = "1 MiB", files = 2, ring_lines = 10 }
[services.two]
command = ["two"]
start_after = { one = "exited-ok" }
readiness = { kind = "exec", command = ["./probe"], timeout = 1 }
liveness = { kind = "http", url = "http://127.0.0.1:1/", failure_threshold = 2 }
[services.three]
command = ["three"]
start_after = ["two", "far"]
readiness = { kind = "log-line", pattern = "^ready" }
liveness = { kind = "tcp", port = 80 }
health_topic = "system/health/3"
[services.far]
kind = "external"
restart_command = ["ssh", "far"]
grace = 5
[services.shared]
kind = "config-only"
model = "stt-worker"
"""
BASES: Final = [
    tomllib.loads(text)
    for text in (RICH, *((ROOT / path).read_text() for path in ("deploy/services.tars.toml", "demo/services.toml")))
]

SCALARS = st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    sorted({*Service.model_fields, *(key for probe in PROBES.values() for key in probe.model_fields), "first", "soft"})
)
PLAUSIBLE = st.sampled_from(
    [
        *("process", "external", "config-only", "tcp", "exec", "notify", "always", "on-failure", "ready", "exited-ok"),
        *("10 s", "1 min", "5 sec", "64 MiB", "SIGINT", "one", "two", "far", "system/health/one", ".", "unlimited"),
        *(0, 1, 3, 255, 1.5, -1, True, [], {}, ["one"], ["two", "three"], {"one": "started"}, {"kind": "none"}),
        {"kind": "tcp", "port": 1}, {"kind": "exec"}, {"soft": 3, "hard": 2}, {"kind": "exec", "command": ["x"]},
    ]
)  # fmt: skip


def value_of(value: Any) -> str:
    """`value` in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        # JSON writes characters beyond the first plane as two escapes, which TOML does not have.
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value.encode("utf-8", "replace").decode()) + '"'
    if isinstance(value, list):
        return "[" + ",\n ".join(map(value_of, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{value_of(key)} = {value_of(each)}" for key, each in value.items()) + "}"
    return str(value)


def text_of(document: Any) -> str:
    """A whole manifest in TOML; tables under `services` stand under headings of their own."""
    lines = []
    for name, table in document.items():
        if not isinstance(table, dict):
            # Top-level keys come before all tables.
            lines.insert(0, f"{value_of(name)} = {value_of(table)}")
            continue
        tables = {
            f"{value_of(name)}.{value_of(key)}": inner
            for key, inner in table.items()
            if name == "services" and isinstance(inner, dict)
        }
        own = {key: each for key, each in table.items() if f"{value_of(name)}.{value_of(key)}" not in tables}
        for heading, inner in {value_of(name): own, **tables}.items():
            lines += [f"[{heading}]", *(f"{value_of(key)} = {value_of(each)}" for key, each in inner.items())]
    return "\n".join(lines)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A sound manifest in which a few things were replaced, added, removed or misspelled."""
    document: dict[str, Any] = draw(st.sampled_from(BASES))
    for _ in range(draw(st.integers(1, 2))):
        document = _mutate(draw, document)
    return document


def _mutate(draw: st.DrawFn, node: Any) -> Any:
    """A copy of `node` with one change somewhere in it."""
    if isinstance(node, dict) and node and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(node)))
        return {**node, key: _mutate(draw, node[key])}
    if isinstance(node, list) and node and draw(st.booleans()):
        index = draw(st.integers(0, len(node) - 1))
        return [*node[:index], _mutate(draw, node[index]), *node[index + 1 :]]
    if isinstance(node, dict):
        others = dict(node)
        match draw(st.sampled_from(["add", "remove", "misspell"])):
            case "add":
                others[draw(KEYS | st.text(max_size=4))] = draw(PLAUSIBLE | VALUES)
            case "remove" if node:
                del others[draw(st.sampled_from(sorted(node)))]
            case "misspell" if node:
                key = draw(st.sampled_from(sorted(node)))
                others[key[:-1]] = others.pop(key)
        return others
    return draw(PLAUSIBLE | VALUES)
