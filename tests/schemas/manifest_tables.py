"""The tables of docs/services.md that say what each key of the manifest means, made from the models.

`python -m tests.schemas.manifest_tables` prints them, for whoever has changed a model and now changes the page.
"""

from collections.abc import Iterable
from typing import Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.manifest import Backoff, Intensity, Limit, Manifest, Output, Service
from schemas.manifest._probes import PROBES
from schemas.manifest._toml import written
from schemas.manifest._units import Duration, Size, in_bytes, in_seconds

HEAD: Final = "| key | default | example | meaning |\n|---|---|---|---|\n"
# What a default comes to where no value could be written.
IN_WORDS: Final = {
    (Service, "command"): "",
    (Service, "cwd"): "the manifest's folder",
    (Service, "group"): "the user's",
    (Service, "user"): "the supervisor's",
    (Service, "umask"): "the supervisor's",
    (Service, "nice"): "the supervisor's",
    (Service, "model"): "the service's name",
    (Service, "health_topic"): "`system/health/NAME`",
    (Service, "restart_command"): "the control signal",
    (Manifest, "concurrent_starts"): "processor cores",
}


def marker(info: FieldInfo) -> Duration | Size | None:
    """What makes a key's value a duration or a size."""
    found = [*info.metadata, *(each for part in get_args(info.annotation) for each in get_args(part))]
    return next((each for each in found if isinstance(each, Duration | Size)), None)


def default(model: type[BaseModel], key: str) -> str:
    info = model.model_fields[key]
    value = info.get_default(call_default_factory=True)
    if (model, key) in IN_WORDS:
        return IN_WORDS[model, key]
    if info.is_required():
        return "needed"
    if value is None or value in ({}, ()):
        return "none"
    if isinstance(value, BaseModel):
        return f'`{{ kind = "{value.kind}" }}`' if hasattr(value, "kind") else "see below"
    unit = marker(info)
    if isinstance(unit, Duration):
        value = in_seconds(value)
    elif isinstance(unit, Size):
        value = in_bytes(value)
    return f"`{written(value)}`"


def bounds(info: FieldInfo) -> str:
    """What the meaning does not say of a number: its unit, and how far it may go."""
    unit = marker(info)
    if isinstance(unit, Duration):
        return f" {in_seconds(unit.low)} to {in_seconds(unit.high)}."
    if isinstance(unit, Size):
        return f" {in_bytes(unit.low)} to {in_bytes(unit.high)}."
    low = [each.ge for each in info.metadata if hasattr(each, "ge")]
    high = [each.le for each in info.metadata if hasattr(each, "le")]
    return f" {low[0]} to {high[0]}." if low and high else ""


def rows(model: type[BaseModel], keys: Iterable[str]) -> str:
    text = ""
    for key in keys:
        info = model.model_fields[key]
        meaning = f"{info.description}{bounds(info)}"
        example = written(info.examples[0]) if info.examples else "?"
        text += f"| `{key}` | {default(model, key)} | `{example}` | {meaning} |\n"
    return HEAD + text


def tables() -> dict[str, str]:
    """Each by the heading under which it stands."""
    found = {
        "## The manifest": rows(Service, [key for key in Service.model_fields if key != "name"]),
        "### `backoff`": rows(Backoff, Backoff.model_fields),
        "### `intensity`": rows(Intensity, Intensity.model_fields),
        "### `output`": rows(Output, Output.model_fields),
        "### `rlimits`": rows(Limit, Limit.model_fields),
        "### `[supervisor]`": rows(Manifest, ["concurrent_starts"]),
    }
    found["### Probes"] = probes()
    return found


def probes() -> str:
    """The keys of all probes; one that means the same in several of them stands once."""
    kinds: dict[str, list[str]] = {}
    for kind, probe in PROBES.items():
        for line in rows(probe, [key for key in probe.model_fields if key != "kind"]).removeprefix(HEAD).splitlines():
            kinds.setdefault(line, []).append(f"`{kind}`")
    text = HEAD.replace("| key |", "| key | of kind |").replace("|---|", "|---|---|", 1)
    for line, of in kinds.items():
        _, key, rest = line.split("|", 2)
        text += f"|{key}| {', '.join(of)} |{rest}\n"
    return text


if __name__ == "__main__":
    for heading, table in tables().items():
        print(f"{heading}\n\n{table}")
