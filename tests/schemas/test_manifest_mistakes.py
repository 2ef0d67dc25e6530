"""Mistakes in the tables of a service, and between services: each with its path, its line, and what to write."""

from pathlib import Path

import pytest

from schemas.manifest import LogLineProbe, ManifestInvalid, parse_manifest


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(text, "m", Path("/srv"))
    return list(caught.value.problems)


A = "[services.a]\ncommand = ['x']\n"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("user = 'a b'", 'user: must be a name in quotes, such as "tars-stt", or a number from 0 to 4294967294'),
        ("group = -1", "group: must be a name in quotes"),
        ("user = true", "user: must be a name in quotes"),
        ("umask = 22", 'umask: must be three octal digits in quotes, such as "027"'),
        ("umask = '08'", "umask: must be three octal digits"),
        ("nice = 20", "nice: must be -20 to 19"),
        ("nice = 1.5", "nice: must be a whole number"),
        ("nice = true", "nice: must be a whole number"),
        ("memory_limit = '64 MB'", 'memory_limit: has the unknown unit "MB"; the units are B, KiB'),
        ("memory_limit = 1000", "memory_limit: must be 1 MiB to 1 TiB"),
        ("rlimits = 3", "rlimits: must be a table"),
        ("rlimits = { nofiles = 3 }", 'sigpending and stack; did you mean "nofile"?'),
        ("rlimits = { core = { soft = 3 } }", 'rlimits.core.hard: is missing; write it, such as hard = "unlimited"'),
        ("rlimits = { core = { soft = 3, hard = 2 } }", "rlimits.core: has a soft limit above its hard one"),
        ("rlimits = { core = { soft = 'unlimited', hard = 2 } }", "rlimits.core: has a soft limit above its hard one"),
        ("rlimits = { core = true }", "rlimits.core: must be a number, a size"),
        ("rlimits = { core = 'none' }", "rlimits.core: must be 0 to 9223372036854775807, a size"),
        ("rlimits = { core = -1 }", "rlimits.core: must be 0 to 9223372036854775807, a size"),
        ("rlimits = { as = '1 MB' }", 'rlimits.as: has the unknown unit "MB"'),
        ("start_after = 'b'", 'start_after: must be a list of services, such as ["router"], or a table'),
        ("start_after = ['B']", "start_after.B: is not the name of a service"),
        ("start_after = [3]", "start_after: must be a list of services"),
        ("start_after = ['a']", "start_after[0]: is the service itself; remove it"),
        ("start_after = ['aa']", "start_after[0]: there is no such service"),
        ("readiness = 'notify'", "readiness: must be a table of keys"),
        ("readiness = {}", 'readiness.kind: is missing; write it, such as kind = "health-topic"; it is health-topic, '),
        ("liveness = {}", "it is health-topic, tcp, http, exec or none"),
        ("readiness = { kind = 'tpc' }", 'delay or none, in quotes; did you mean "tcp"?'),
        ("readiness = { kind = 3 }", "readiness.kind: must be health-topic, notify, tcp"),
        ("readiness = { kind = 'tcp' }", "readiness.port: is missing; write it, such as port = 8090"),
        ("readiness = { kind = 'tcp', port = 0 }", "readiness.port: must be 1 to 65535"),
        ("readiness = { kind = 'tcp', port = 1, prot = 2 }", 'readiness.prot: unknown key; did you mean "port"?'),
        ("readiness = { kind = 'tcp', port = 1, host = 'a b' }", "readiness.host: must be a name or an address"),
        ("readiness = { kind = 'tcp', port = 1, timeout = 0 }", "readiness.timeout: must be 0.05 to 3600 seconds"),
        ("readiness = { kind = 'notify', interval = 1 }", "readiness.interval: unknown key"),
        ("readiness = { kind = 'exec' }", 'readiness.command: is missing; write it, such as command = ["./is-well"'),
        ("readiness = { kind = 'exec', command = [] }", "readiness.command: is empty; write something"),
        (
            "readiness = { kind = 'log-line', pattern = '(' }",
            "readiness.pattern: is not a regular expression that can be used: unclosed",
        ),
        ("readiness = { kind = 'delay' }", 'readiness.after: is missing; write it, such as after = "3 s"'),
        ("liveness = { kind = 'notify' }", 'for a sign of life over the notify socket write watchdog = "30 s" instead'),
        ("liveness = { kind = 'delay', after = 1 }", "none, in quotes; delay is for readiness alone"),
        ("liveness = { kind = 'http', url = 'localhost:80' }", "liveness.url: must be an address such as"),
        ("liveness = { kind = 'http', url = 'http://[::1' }", "liveness.url: must be an address such as"),
        ("liveness = { kind = 'http', url = 'http://u:geheim@h/' }", "liveness.url: holds a user name or password"),
        ("watchdog = '30 s'", 'watchdog: needs the notify socket; write readiness = { kind = "notify" }, or remove it'),
        ("intensity = { window = 0 }", "intensity.window: must be 1 to 86400 seconds"),
        (
            "restart = 'on_failure'",
            'restart: must be always, on-failure or never, in quotes; did you mean "on-failure"?',
        ),
        ("success_exit_codes = [0, 256]", "success_exit_codes[1]: must be at most 255"),
        ("success_exit_codes = 0", "success_exit_codes: must be a list"),
        (
            "success_signals = ['TERM']",
            'success_signals[0]: is not a signal that a worker can handle; did you mean "SIGTERM"?',
        ),
        ("stop_signal = 'sigint'", 'did you mean "SIGINT"?'),
        (
            "stop_signal = 'SIGKILL'",
            "stop_signal: is not a signal that a worker can handle; after its grace the worker is",
        ),
        ("stop_signal = 15", 'stop_signal: must be the name of a signal in quotes, such as "SIGTERM"'),
        ("backoff = 3", "backoff: must be a table of keys"),
        ("backoff = { frist = 3 }", 'backoff.frist: unknown key; did you mean "first"?'),
        ("backoff = { first = '1 min' }", "backoff: has a first wait of 1 min, longer than its max of 30 s"),
        ("backoff = { factor = 0.5 }", "backoff.factor: must be 1 to 10"),
        ("backoff = { factor = nan }", "backoff.factor: must be"),
        ("backoff = { at_once_if_ready = 1 }", "backoff.at_once_if_ready: must be true or false"),
        ("intensity = { restarts = -1 }", "intensity.restarts: must be 0 to 1000"),
        ("output = { files = 0.5 }", "output.files: must be a whole number"),
        ("output = { file_size = '1 KiB' }", "output.file_size: must be 64 KiB to 16 GiB"),
        ("probation = '2 hours'", 'did you mean "2 h"?'),
        ("stop_grace_s = 3", "stop_grace_s: unknown key"),
        (
            "restart_command = ['x']",
            'restart_command: means nothing for kind "process", since the supervisor restarts it',
        ),
        ("name = 'b'", "name: unknown key"),
    ],
)
def test_a_mistake_in_one_service(said: str, problem: str) -> None:
    (found,) = problems(f"{A}{said}\n")
    path, _, rest = problem.partition(": ")
    assert found.startswith("m:3: services.a.")
    assert problem in found
    assert not rest or path.partition(" ")[0] in found


def test_no_value_that_may_be_secret_is_told() -> None:
    told = "".join(
        problems(
            A
            + "environment = { K = 'geheim\\u0000' }\nliveness = { kind = 'http', url = 'http://geheim@h' }\n"
            "[services.b]\ncommand = ['geheim\\u0000']\nuser = 'ge heim'\n".replace(
                "'geheim\\u0000'", '"geheim\\u0000"'
            )
        )
    )
    assert "geheim" not in told
    assert "ge heim" not in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[services.a]\nkind = 'external'\ncommand = ['x']\n",
            'm:3: services.a.command: means nothing for kind "external", since somebody else runs it; remove it, or',
        ),
        (
            "[services.a]\nkind = 'external'\ngrace = 3\n",
            "m:3: services.a.grace: is the time that restart_command has, and there is none; write one, or remove it",
        ),
        (
            "[services.a]\nkind = 'external'\nreadiness = { kind = 'notify' }\n",
            'm:3: services.a.readiness.kind: "notify" needs a process of ours; for kind "external" it must be',
        ),
        (
            "[services.a]\nkind = 'external'\n[services.a.liveness]\nkind = 'exec'\ncommand = ['x']\n",
            'm:4: services.a.liveness.kind: "exec" needs a process of ours; for kind "external" it must be',
        ),
        (
            f"{A}start_after = {{ b = 'exited-ok' }}\n[services.b]\ncommand = ['x']\n",
            'm:3: services.a.start_after.b: b is restarted whenever it exits; write restart = "on-failure" there',
        ),
        (
            f"{A}start_after = {{ b = 'redy' }}\n[services.b]\ncommand = ['x']\n",
            'm:3: services.a.start_after.b: must be started, ready or exited-ok, in quotes; did you mean "ready"?',
        ),
        (
            f"{A}start_after = [\n'b',\n'house',\n]\n[services.house]\nkind = 'config-only'\n[services.b]\ncommand = ['x']\n",
            "m:5: services.a.start_after[1]: house has no worker that could be waited for; remove it",
        ),
        (
            f"{A}start_after = {{ far = 'started' }}\n[services.far]\nkind = 'external'\n",
            'm:3: services.a.start_after.far: far is run by somebody else, of whom only "ready" can be known; write that',
        ),
        (
            f"{A}start_after = {{ far = 'exited-ok' }}\n[services.far]\nkind = 'external'\n",
            'm:3: services.a.start_after.far: far is run by somebody else, of whom only "ready" can be known; write that',
        ),
        (
            f"{A}start_after = ['ruoter']\n[services.router]\ncommand = ['x']\n",
            'm:3: services.a.start_after[0]: there is no such service; did you mean "router"?',
        ),
        (
            f"[supervisor]\nconcurent_starts = 3\n{A}",
            'm:2: supervisor.concurent_starts: unknown key; did you mean "concurrent_starts"?',
        ),
        (
            f"[supervisor]\nconcurrent_starts = 0\n{A}",
            "m:2: supervisor.concurrent_starts: must be a whole number from 1 to 2000",
        ),
        (f"supervisor = 3\n{A}", "m:1: supervisor: must be a table: write [supervisor] and its keys below"),
        (f"defaults = 3\n{A}", "m:1: defaults: must be a table: write [defaults] and its keys below"),
        (f"[defaults]\ncommand = ['x']\n{A}", "m:2: defaults.command: is each service's own; write it there"),
        (f"[defaults]\nusr = 'x'\n{A}", 'm:2: defaults.usr: unknown key; did you mean "user"?'),
        (f"[default]\nuser = 'x'\n{A}", 'm:1: default: unknown key; did you mean "defaults"?'),
        (
            f"[defaults]\nbackoff = {{ first = '20 s' }}\n{A}backoff = {{ max = '10 s' }}\n",
            "m:5: services.a.backoff: has a first wait of 20 s, longer than its max of 10 s",
        ),
    ],
)
def test_a_mistake_between_keys_or_services(text: str, expected: str) -> None:
    (found,) = problems(text)
    assert found.startswith(expected)


def test_what_is_wrong_in_defaults_is_told_once() -> None:
    text = "[defaults]\ngrace = '1 sec'\nrlimits = { core = 'x' }\n" + "".join(
        f"[services.s{n}]\ncommand = ['x']\n" for n in range(5)
    )
    assert [problem.split(":")[:3] for problem in problems(text)] == [
        ["m", "2", " defaults.grace"],
        ["m", "3", " defaults.rlimits.core"],
    ]


def test_a_circle_is_printed_as_a_chain_from_the_first_of_it_in_the_file() -> None:
    text = "".join(
        f"[services.{name}]\ncommand = ['x']\nstart_after = {after}\n"
        for name, after in (
            ("outside", "['a']"),
            ("a", "['far', 'c']"),
            ("far", "[]"),
            ("b", "['a']"),
            ("c", "{ b = 'started' }"),
            ("e", "['d']"),
            ("d", "{ e = 'ready' }"),
        )
    )
    assert problems(text) == [
        "m:6: services.a.start_after[1]: goes in a circle: a -> c -> b -> a; remove one of these",
        "m:18: services.e.start_after[0]: goes in a circle: e -> d -> e; remove one of these",
    ]


def test_a_long_circle_is_cut_and_many_are_bounded() -> None:
    ring = "".join(f"[services.s{n}]\ncommand = ['x']\nstart_after = ['s{(n + 1) % 1500}']\n" for n in range(1500))
    (found,) = problems(ring)
    assert "s0 -> s1 -> " in found
    assert found.endswith("s19 -> ... -> s0; remove one of these")
    names = [f"s{n}" for n in range(200)]
    dense = "".join(f"[services.{name}]\ncommand = ['x']\nstart_after = {names}\n" for name in names)
    assert all("is the service itself" in problem or "goes in a circle" in problem for problem in problems(dense)[:-1])


def test_mistakes_of_several_sorts_in_one_service_are_told_together() -> None:
    found = problems(
        "[services.a]\nkind = 'external'\ncomand = 1\ncwd = '.'\ngrace = '5 sec'\nhealth_topic = 'system/health/b'\n"
        "[services.b]\ncommand = ['x']\nstart_after = ['c', 'b']\nnice = 99\n"
    )
    assert [problem.split(": ")[0] + ":" + problem.split(": ")[1] for problem in found] == [
        "m:3:services.a.comand",
        "m:4:services.a.cwd",
        "m:5:services.a.grace",
        "m:5:services.a.grace",
        "m:7:services.b.health_topic",
        "m:9:services.b.start_after[0]",
        "m:9:services.b.start_after[1]",
        "m:10:services.b.nice",
    ]


def test_a_pattern_is_found_anywhere_in_a_line_and_no_line_takes_long() -> None:
    find = LogLineProbe(pattern="[Ll]istening on port [0-9]+").finder()
    assert find("12:00 info: listening on port 80\n")
    assert not find("listening on no port")
    # A backtracking engine would not come back within the age of the universe.
    assert not LogLineProbe(pattern="(a+)+$").finder()("a" * 5000 + "b")


def test_an_odd_key_is_told_in_bounds_and_cannot_write_to_a_terminal() -> None:
    (long,) = problems(f"{A}{'k' * 5000} = 1\n")
    assert long == f'm:3: services.a."{"k" * 80}": unknown key'
    (odd,) = problems(f'{A}"\\u001b[2J" = 1\n')
    assert odd == 'm:3: services.a."?[2J": unknown key'
    found = problems(f'{A}health_topic = "system/health/\\u001b"\n[services.b]\ncommand = ["x"]\n')
    assert all(problem.isprintable() for problem in found)
