"""What a changed manifest asks for: worker by worker, and nothing for what is the same."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.manifest import Change, Difference, Manifest, Service, differences, parse_manifest
from schemas.manifest._differences import POLICY_KEYS, RESTART_KEYS
from schemas.types import ServiceName


def manifest(text: str) -> Manifest:
    return parse_manifest(text, "m", Path("/srv"))


BASE = "[services.a]\ncommand = ['x']\nmodel = 'm'\n"

# For each key another value than BASE's, such that the service stays sound.
OTHER = {
    "kind": "kind = 'external'",
    "command": "command = ['x', 'y']",
    "cwd": "cwd = 'work'",
    "user": "user = 'tars'",
    "group": "group = 5",
    "environment": "environment = { A = '' }",
    "pass_environment": "pass_environment = ['A']",
    "umask": "umask = '000'",
    "nice": "nice = 0",
    "rlimits": "rlimits = { core = 'unlimited' }",
    "memory_limit": "memory_limit = '1 GiB'",
    "model": "model = 'other'",
    "health_topic": "health_topic = 'system/health/other'",
    "start_after": "start_after = { far = 'ready' }",
    "readiness": "readiness = { kind = 'delay', after = 1 }",
    "liveness": "liveness = { kind = 'tcp', port = 1 }",
    "restart": "restart = 'never'",
    "success_exit_codes": "success_exit_codes = []",
    "success_signals": "success_signals = ['SIGKILL']",
    "backoff": "backoff = { first = 1 }",
    "intensity": "intensity = { restarts = 1 }",
    "stop_signal": "stop_signal = 'SIGINT'",
    "grace": "grace = 9",
    "probation": "probation = 0",
    "output": "output = { files = 0 }",
}
FAR = "[services.far]\nkind = 'external'\n"


def test_every_key_is_of_one_sort() -> None:
    assert not RESTART_KEYS & POLICY_KEYS
    assert Service.model_fields.keys() - {"name"} == RESTART_KEYS | POLICY_KEYS
    assert OTHER.keys() == Service.model_fields.keys() - {"name", "watchdog", "restart_command"}


@pytest.mark.parametrize("key", OTHER)
def test_a_changed_key(key: str) -> None:
    lines = [OTHER[key], *(line for line in BASE.splitlines()[1:] if not line.startswith(f"{key} ="))]
    if key == "kind":
        lines.remove("command = ['x']")
    changed = differences(manifest(BASE + FAR), manifest("[services.a]\n" + "\n".join(lines) + f"\n{FAR}"))
    a, far = changed.services
    assert a.change is (Change.RESTART if key in RESTART_KEYS else Change.POLICY)
    assert key in a.keys
    assert (len(a.keys) == 1) or key == "kind"
    assert far.change is Change.UNCHANGED
    assert not changed.nothing


def test_the_notify_socket_and_the_watchdog_come_with_a_start() -> None:
    notify = manifest(f"{BASE}readiness = {{ kind = 'notify' }}")
    patient = manifest(f"{BASE}readiness = {{ kind = 'notify', start_period = 3 }}")
    watched = manifest(f"{BASE}readiness = {{ kind = 'notify' }}\nwatchdog = 3")
    plain = manifest(BASE)
    for old, new, change in (
        (plain, notify, Change.RESTART),
        (notify, plain, Change.RESTART),
        (notify, patient, Change.POLICY),
        (notify, watched, Change.RESTART),
    ):
        (difference,) = differences(old, new).services
        assert difference.change is change


def test_other_words_for_the_same_are_no_difference() -> None:
    old = manifest(
        f"{BASE}grace = '1 min'\nmemory_limit = '1 GiB'\nstart_after = ['b', 'c']\nrlimits = {{ core = 0 }}\n"
        "[services.b]\ncommand = ['x']\n[services.c]\ncommand = ['x']\n"
    )
    new = manifest(
        "[defaults]\ngrace = 60\n[services.c]\ncommand = ['x']\ngrace = 10\n[services.b]\ngrace = '10 s'\ncommand = ['x']\n"
        f"{BASE}memory_limit = '1024 MiB'\nstart_after = {{ c = 'ready', b = 'ready' }}\n"
        "rlimits = { core = { soft = 0, hard = 0 } }"
    )
    changed = differences(old, new)
    assert changed.services == tuple(Difference(ServiceName(name), Change.UNCHANGED) for name in ("c", "b", "a"))
    assert changed.nothing


def test_a_default_changes_those_that_have_it() -> None:
    text = (
        "[services.a]\ncommand = ['x']\n[services.b]\ncommand = ['x']\ngrace = 3\n[services.far]\nkind = 'external'\n"
    )
    changed = differences(manifest(text), manifest(f"[defaults]\ngrace = 5\n{text}"))
    assert [(each.change, each.keys) for each in changed.services] == [
        (Change.POLICY, ("grace",)),
        (Change.UNCHANGED, ()),
        (Change.UNCHANGED, ()),
    ]


def test_the_number_of_concurrent_starts_alone() -> None:
    changed = differences(manifest(BASE), manifest(f"[supervisor]\nconcurrent_starts = 1\n{BASE}"))
    assert changed.concurrent_starts
    assert not changed.nothing
    assert [each.change for each in changed.services] == [Change.UNCHANGED]


SERVICES = st.builds(
    lambda **keys: {key: value for key, value in keys.items() if value is not None},
    command=st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=2),
    environment=st.none() | st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["1", "2"])),
    memory_limit=st.none() | st.sampled_from([2**20, 2**21]),
    grace=st.none() | st.sampled_from([1, 2]),
    liveness=st.none() | st.sampled_from([{"kind": "none"}, {"kind": "tcp", "port": 1}]),
    readiness=st.none() | st.sampled_from([{"kind": "notify"}, {"kind": "none"}]),
)
TABLES = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), SERVICES)


def made(tables: dict[str, dict[str, Any]]) -> Manifest:
    services = (
        Service.model_validate({"name": name, "model": name, "health_topic": f"system/health/{name}", **table})
        for name, table in tables.items()
    )
    return Manifest(services=tuple(services))


@given(TABLES, TABLES)
def test_the_plan_is_whole_and_says_what_happens(before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = made(before), made(after)
    changes = {each.service: each for each in differences(old, new).services}
    assert len(changes) == len(differences(old, new).services)
    assert [*changes] == [*after, *(name for name in before if name not in after)]
    for name, difference in changes.items():
        was = next((service for service in old.services if service.name == name), None)
        will = next((service for service in new.services if service.name == name), None)
        assert (difference.change is Change.ADDED) == (was is None)
        assert (difference.change is Change.REMOVED) == (will is None)
        assert (difference.change is Change.UNCHANGED) == (was == will)
        if was is not None and will is not None:
            # With the named keys, and only with those, one becomes the other.
            assert was.model_copy(update={key: getattr(will, key) for key in difference.keys}) == will
            assert all(getattr(was, key) != getattr(will, key) for key in difference.keys)
            if difference.change is Change.POLICY:
                assert (was.command, was.environment, was.memory_limit) == (
                    will.command,
                    will.environment,
                    will.memory_limit,
                )
    # The way back touches the same services, and from one to itself is no way at all.
    back = {each.service: each for each in differences(new, old).services}
    opposite = {Change.ADDED: Change.REMOVED, Change.REMOVED: Change.ADDED}
    assert {name: opposite.get(each.change, each.change) for name, each in changes.items()} == {
        name: each.change for name, each in back.items()
    }
    assert differences(old, old).nothing
