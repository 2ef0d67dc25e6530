"""The plan of a reload, over generated manifests: it says of each service what becomes of it, and what it goes by after."""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.manifest import Change, Manifest, Service, parse_manifest
from schemas.registry import schema_for
from supervisor._services import Services
from supervisor.boot import Boot
from supervisor.reload import planned

NAMES = ("a", "b", "c")
RESTARTS = {
    "command": ['["cat"]', '["tail"]'],
    "umask": ['"077"', '"022"'],
    "environment": ['{ A = "1" }', '{ A = "2" }'],
}
RULES = {"grace": ['"3 s"', '"4 s"'], "restart": ['"always"', '"never"'], "health_topic": ["one", "two"]}

entries = st.fixed_dictionaries(
    {"command": st.sampled_from(RESTARTS["command"])},
    optional={key: st.sampled_from(values) for key, values in (RESTARTS | RULES).items() if key != "command"},
)
texts = st.dictionaries(st.sampled_from(NAMES), entries, min_size=1)


def written(services: dict[str, dict[str, str]]) -> Manifest:
    lines = []
    for name, keys in services.items():
        # Nobody shares one.
        topic = f'"system/health/{name}-{keys.get("health_topic", "usual")}"'
        table = {**keys, "model": '"router"', "health_topic": topic}
        lines += [f"[services.{name}]", *(f"{key} = {value}" for key, value in table.items())]
    return parse_manifest("\n".join(lines), "services.toml", Path("/tmp"))


def services_of(manifest: Manifest) -> Services:
    return Services(manifest, {service.name: copy(schema_for(service.name, "router")) for service in manifest.services})


def boot_of(manifest: Manifest) -> Boot:
    found: Any = None  # what the plan has no use for
    return Boot(found, found, found, manifest, services_of(manifest).schemas, found)


def by_name(manifest: Manifest) -> dict[str, Service]:
    return {service.name: service for service in manifest.services}


@given(old=texts, new=texts)
def test_each_service_becomes_what_the_plan_says(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = written(old), written(new)
    boot = boot_of(before)
    plan = planned(boot, services_of(after))
    was, is_ = by_name(before), by_name(after)
    told = {each.service: each for each in plan.differences.services}
    assert set(told) == {*was, *is_}
    for name, each in told.items():
        assert (name not in was) == (each.change is Change.ADDED)
        assert (name not in is_) == (each.change is Change.REMOVED)
        if name in was and name in is_:
            changed = {key for key in Service.model_fields if getattr(was[name], key) != getattr(is_[name], key)}
            assert set(each.keys) == changed
            kind = Change.RESTART if changed & set(RESTARTS) else Change.POLICY if changed else Change.UNCHANGED
            assert each.change is kind
            # Whose worker is left alone keeps the model with which it runs.
            kept = plan.after.schemas[name] is boot.schemas[name]
            assert kept == (kind is not Change.RESTART)
    assert plan.after.manifest is after
    assert plan.differences.nothing == (was == is_)
    assert [name for name in plan.having(*Change) if name in is_] == list(is_)
    # The broker is told of others exactly where there are some.
    users = [{(name, service.health_topic) for name, service in each.items()} for each in (was, is_)]
    assert plan.logins == (users[0] != users[1])


@given(services=texts)
def test_the_same_again_is_nothing(services: dict[str, Any]) -> None:
    manifest = written(services)
    plan = planned(boot_of(manifest), services_of(written(services)))
    assert plan.differences.nothing
    assert not plan.logins
    assert plan.text() == ""
    assert replace(plan.after, schemas={}) == replace(boot_of(manifest), schemas={}, warnings=())
