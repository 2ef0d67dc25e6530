"""The manifest: what it may say, and how every mistake in it is named."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas._toml_lines import TomlLines
from schemas.manifest import (
    MAX_BYTES,
    MAX_PROBLEMS,
    MAX_SERVICES,
    Backoff,
    Condition,
    ExecProbe,
    HealthTopicProbe,
    HttpProbe,
    Intensity,
    Limit,
    ManifestInvalid,
    NoProbe,
    NotifyProbe,
    Output,
    Restart,
    TcpProbe,
    parse_manifest,
)
from schemas.registry import BUILT_IN
from schemas.states import Kind
from tests.schemas.manifests import KEYS, PLAUSIBLE, VALUES, value_of

FOLDER = Path("/srv/tars")
LINE = re.compile(r"services\.toml:(\d+): .+", re.DOTALL)


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(text, "services.toml", FOLDER)
    return list(caught.value.problems)


def test_everything_said() -> None:
    manifest = parse_manifest(
        """
        [services.zebra]
        command = ["../.venv/bin/python", "worker.py"]
        cwd = "work"
        environment = { MODE = "fast" }
        pass_environment = ["HTTPS_PROXY"]
        model = "stt-worker"
        health_topic = "system/health/stt"
        grace = 2
        [services.ape]
        kind = "external"
        [services.shared]
        kind = "config-only"
        """,
        "services.toml",
        FOLDER,
    )
    zebra, ape, shared = manifest.services
    assert (zebra.name, zebra.kind, zebra.model) == ("zebra", Kind.PROCESS, "stt-worker")
    assert zebra.command == ("/srv/tars/../.venv/bin/python", "worker.py")
    assert zebra.cwd == FOLDER / "work"
    assert (zebra.environment, zebra.pass_environment) == ({"MODE": "fast"}, ("HTTPS_PROXY",))
    assert (zebra.health_topic, zebra.grace) == ("system/health/stt", 2.0)
    assert (ape.name, ape.kind, ape.health_topic, ape.model) == ("ape", Kind.EXTERNAL, "system/health/ape", "ape")
    assert (shared.kind, shared.command) == (Kind.CONFIG_ONLY, ())


def test_little_said() -> None:
    (service,) = parse_manifest('[services.a]\ncommand = ["python3", "./w.py"]', "services.toml", FOLDER).services
    # Without a slash it is looked up on the PATH; arguments are the worker's own business.
    assert service.command == ("python3", "./w.py")
    assert (service.cwd, service.grace, service.environment) == (FOLDER, 10.0, {})
    (service,) = parse_manifest('[services.a]\ncommand = ["/bin/w"]\ncwd = "/srv"', "x", FOLDER).services
    assert (service.command, service.cwd) == (("/bin/w",), Path("/srv"))


def test_the_demo_runs_the_six_services() -> None:
    path = Path(__file__).parents[2] / "demo" / "services.toml"
    manifest = parse_manifest(path.read_text(encoding="utf-8"), "demo/services.toml", path.parent)
    assert [service.name for service in manifest.services] == list(BUILT_IN)
    for service in manifest.services:
        assert service.model in BUILT_IN
        assert service.command[1] == "worker.py"
        options = dict(zip(service.command[2::2], service.command[3::2], strict=True))
        assert 0.3 <= float(options["--load-seconds"]) <= 1.5
        assert options["--health-topic"] == service.health_topic
    assert [service.health_topic.removeprefix("system/health/") for service in manifest.services] == [
        *("stt", "tts", "router", "llm", "memory", "wake-activation")
    ]


def test_all_mistakes_at_once_each_on_its_line() -> None:
    found = problems(
        """\
[services.a]
command = ["./w", "x"]
# a comment with [services.x] in it
[services.b]
comand = 1
kind = "proces"
environment = { A = 1, TARS_X = "a", "b c" = "" }
[services.c]
kind = "config-only"
command = ["x"]
health_topic = "system/health/a"
[services.d]
cwd = 3
command = "x"
grace = true
pass_environment = ["A", 3,
  "MQTT_URL"]
[services.e]
[services.F]
[service.x]
[services.g]
command = ["python"]
health_topic = "system/health/a"
[services.h]
command = [""]
health_topic = "system/config/a"
grace = nan
"""
    )
    assert found == [
        f"services.toml:{line}"
        for line in (
            '5: services.b.comand: unknown key; did you mean "command"?',
            '6: services.b.kind: must be process, external or config-only, in quotes; did you mean "process"?',
            '7: services.b.environment.A: must be text in quotes, such as "text"',
            (
                "7: services.b.environment.TARS_X: is reserved: the supervisor sets it, or no worker may have it; "
                "remove it here"
            ),
            '7: services.b.environment."b c": is not the name of an environment variable; use letters, digits and _',
            (
                '10: services.c.command: means nothing for kind "config-only", since it has no worker; remove it, '
                "or change the kind"
            ),
            (
                '11: services.c.health_topic: means nothing for kind "config-only", since it has no worker; '
                "remove it, or change the kind"
            ),
            '13: services.d.cwd: must be the path of a folder in quotes, such as "."',
            '14: services.d.command: must be a list, such as ["one", "two"]',
            '15: services.d.grace: must be 0 to 3600 seconds, such as 10, 1.5, "500 ms" or "2 min"',
            '16: services.d.pass_environment[1]: must be text in quotes, such as "text"',
            (
                "17: services.d.pass_environment[2]: is reserved: the supervisor sets it, or no worker may have it; "
                "remove it here"
            ),
            '18: services.e.command: is missing; write one, such as command = ["./worker"], or another kind',
            (
                "19: services.F: 'F' is not a service name: a lower-case letter, then at most 62 lower-case letters, "
                "digits and hyphens; rename it"
            ),
            '20: service: unknown key; did you mean "services"?',
            ("23: services.g.health_topic: system/health/a is that of a too (line 1); give each service its own"),
            "25: services.h.command[0]: is empty; write something, or remove it",
            (
                '26: services.h.health_topic: is not a health topic; write "system/health/" and a name, without +, # '
                "and empty levels"
            ),
            '27: services.h.grace: must be 0 to 3600 seconds, such as 10, 1.5, "500 ms" or "2 min"',
        )
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "services.toml:1: services: there are none; add a table such as [services.stt-worker] with a command"),
        ("# empty\n[services]\n", "services.toml:2: services: there are none"),
        ("services = 3", "services.toml:1: services: must hold one table for each service"),
        ("[[services]]\n", "services.toml:1: services: must hold one table for each service"),
        (
            "[services]\nstt = 3",
            "services.toml:2: services.stt: must be a table: write [services.stt] and its keys below",
        ),
        ("[services.a]\ncommand = ['x'\n", "services.toml:3: not TOML: unclosed array; mend it"),
        ("[services.a]\ncommand = x\n", "services.toml:2: not TOML at column 11: invalid value; mend it"),
        ("[services.a]\n[services.a]\n", "services.toml:2: not TOML at column 12: cannot declare"),
        (f"a = {'[' * 5000}", "services.toml:1: is nested too deeply"),
        (f"a = {'9' * 5000}", "services.toml:1: not TOML: a number is too long"),
        ("#" * (MAX_BYTES + 1), "services.toml:1: is larger than 1 MiB"),
        ("#" + "é" * (MAX_BYTES // 2), "services.toml:1: is larger than 1 MiB"),
        ("[services.config-manager]\nkind = 'external'", "is the supervisor's own health topic"),
        ("[services.a]\nkind = 'external'\ncwd = '.'", "services.toml:3: services.a.cwd: means nothing for kind"),
        ("[services.a]\ncommand = ['./a\\u0000']", "holds a NUL"),
        (
            '[services.a]\ncommand = ["a\\u0000"]',
            "services.toml:2: services.a.command[0]: holds a NUL character; remove it",
        ),
        (
            '[services.a]\ncommand = ["a"]\ncwd = "\\u0000"',
            "services.toml:3: services.a.cwd: must be the path of a folder",
        ),
        (
            f"[services.a]\ncommand = ['{'x' * 5000}']",
            "services.a.command[0]: is longer than 4096 characters; shorten it",
        ),
        (f"[services.a]\ncommand = {['x'] * 300}", "services.a.command: has 300 entries; at most 256 are allowed"),
        ("[services.a]\ncommand = ['x']\ngrace = -1", "services.toml:3: services.a.grace: must be 0 to 3600"),
        ("[services.a]\ncommand = ['x']\nhealth_topic = 'system/health/+'", "is not a health topic"),
        (
            "[services.a]\ncommand = ['x']\nmodel = ''",
            "services.toml:3: services.a.model: is empty; write something, or remove it",
        ),
        ("[services.a]\ncommand = []", "services.toml:2: services.a.command: is missing"),
    ],
)
def test_a_mistake(text: str, problem: str) -> None:
    if "./a" in text:
        text = text.replace("'", '"')
    (found,) = problems(text)
    assert problem in found


def test_numbers_of_services_and_of_problems_are_bounded() -> None:
    many = "".join(f"[services.s{n}]\nkind = 'external'\n" for n in range(MAX_SERVICES))
    assert len(parse_manifest(many, "x").services) == MAX_SERVICES
    (found,) = problems(many + "[services.one-more]\nkind = 'external'\n")
    assert "services: there are 2001; at most 2000 are allowed" in found
    found_all = problems("[services.a]\n" + "".join(f"comand{n} = 1\n" for n in range(20000)))
    assert len(found_all) == MAX_PROBLEMS + 1
    assert found_all[-1] == "services.toml:101: there are more problems; mend these first"


@pytest.mark.parametrize("name", ["CONFIG_MASTER_KEY_BASE64", "CONFIG_API_TOKEN", "TARS_SERVICE", "NOTIFY_SOCKET"])
def test_no_worker_may_have_the_supervisors_keys(name: str) -> None:
    (found,) = problems(f"[services.a]\ncommand = ['x']\npass_environment = ['{name}']")
    assert "is reserved" in found


def test_the_stores_path_and_the_hmac_key_may_be_given() -> None:
    text = (
        "[services.a]\ncommand = ['x']\npass_environment = ['CONFIG_DB_PATH', 'LKG_HMAC_KEY_BASE64', 'LD_LIBRARY_PATH']"
    )
    assert len(parse_manifest(text, "x").services[0].pass_environment) == 3


# Whatever stands in the file

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True) | st.text(max_size=4)
TABLES = st.dictionaries(KEYS | st.text(max_size=4), PLAUSIBLE | VALUES, max_size=5)


def document_of(services: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, table in services.items():
        lines.append(f"[services.{value_of(name)}] # [not.this]")
        lines += [f"{value_of(key)} = {value_of(value)}" for key, value in table.items()]
    return "\n".join(lines)


def _only_manifest_invalid(text: str) -> None:
    found: tuple[str, ...] = ()
    try:
        parse_manifest(text, "services.toml", FOLDER)
    except ManifestInvalid as error:
        found = error.problems or ("no problem told",)
    last = text.count("\n") + 1
    for problem in found:
        match = LINE.fullmatch(problem)
        assert match is not None
        assert 1 <= int(match[1]) <= last


@given(st.text() | st.text(alphabet="[]{}=.,\"'\\#\n ab1-:", max_size=60))
@example("\ufeff[services.a]")
@example("a = '''\n'''''\nb=1")
def test_arbitrary_text(text: str) -> None:
    _only_manifest_invalid(text)


@given(st.dictionaries(NAMES, TABLES, max_size=3))
def test_arbitrary_services(services: dict[str, dict[str, Any]]) -> None:
    _only_manifest_invalid(document_of(services))


@given(st.dictionaries(NAMES, TABLES, min_size=1, max_size=4))
def test_every_key_is_found_on_its_line(services: dict[str, dict[str, Any]]) -> None:
    text = document_of(services)
    tomllib.loads(text)
    lines = TomlLines(text)
    rows = text.split("\n")
    for name, table in services.items():
        key_name = name.encode("utf-8", "replace").decode()
        assert rows[lines.of("services", key_name) - 1] == f"[services.{value_of(name)}] # [not.this]"
        for key in table:
            plain = key.encode("utf-8", "replace").decode()
            assert rows[lines.of("services", key_name, plain) - 1].startswith(f"{value_of(key)} = ")


def test_lines_of_every_way_to_write_a_key() -> None:
    text = '''\
# [services.no]
"a b" = """
x = 1 \\""" "
"""
'c.d'.e = [ # ]
  1, # two
  { f = ']', g = [ 2 ] },
]
h . "i" = {j.k = 1}  # }
l = \'\'\'
m = 1\'\'\'\'
[ n . 'o' ]
p = 1979-05-27T07:32:00Z
[[q]]
r = "\\u005d"
'''
    assert tomllib.loads(text)
    lines = TomlLines(text)
    expected = {
        ("a b",): 2,
        ("c.d", "e"): 5,
        ("c.d", "e", 0): 6,
        ("c.d", "e", 1, "g"): 7,
        ("h", "i"): 9,
        ("h", "i", "j", "k"): 9,
        ("l",): 10,
        ("n", "o"): 12,
        ("n", "o", "p"): 13,
        ("n", "o", "missing"): 12,
        ("q", "r"): 15,
        ("nothing",): 1,
    }
    assert {path: lines.of(*path) for path in expected} == expected


# What is read

SOUND = """
[defaults]
cwd = "work"
user = "tars"
pass_environment = ["A"]
environment = { LANG = "C", SHARED = "1" }
rlimits = { core = 0, nofile = 1024 }
backoff = { first = "1 s", max = "1 min" }
intensity = { restarts = 3 }
output = { files = 1 }
readiness = { kind = "tcp", port = 1, timeout = "10 s" }
grace = "1 min"

[services.said]
command = ["said"]
cwd = "own"
user = 1000
group = "audio"
pass_environment = []
environment = { LANG = "de", OWN = "2" }
umask = "0027"
nice = -5
rlimits = { nofile = { soft = "unlimited", hard = "unlimited" }, stack = "8 MiB" }
memory_limit = "1.5 GiB"
start_after = { unsaid = "started", once = "exited-ok", far = "ready" }
readiness = { kind = "exec", command = ["./probe", "./x"], interval = 0.5, start_period = "5 min" }
liveness = { kind = "health-topic", stale_after = 60, failure_threshold = 2 }
restart = "on-failure"
success_exit_codes = [3]
success_signals = ["SIGKILL", "SIGTERM"]
backoff = { first = 2, factor = 3, jitter = 0, reset_after = "1 h", at_once_if_ready = false }
intensity = { window = 60 }
stop_signal = "SIGINT"
grace = 0
probation = 0
output = { file_size = "1 MiB", ring_lines = 5 }

[services.unsaid]
command = ["unsaid"]

[services.once]
command = ["once"]
restart = "never"
readiness = { kind = "notify" }
watchdog = "30 s"
start_after = ["unsaid"]

[services.far]
kind = "external"
liveness = { kind = "http", url = "https://far:8443/health" }
restart_command = ["./restart", "far"]
grace = 30

[supervisor]
concurrent_starts = 2
"""


def test_every_key_is_read_and_defaults_fill_in_what_is_not_said() -> None:
    manifest = parse_manifest(SOUND, "services.toml", FOLDER)
    assert manifest.concurrent_starts == 2
    said, unsaid, once, far = manifest.services
    assert (said.cwd, said.user, said.group, said.umask, said.nice) == (FOLDER / "own", 1000, "audio", 0o27, -5)
    assert said.pass_environment == ()
    assert said.environment == {"LANG": "de", "SHARED": "1", "OWN": "2"}
    eight = 8 * 2**20
    assert said.rlimits == {
        "core": Limit(soft=0, hard=0),
        "nofile": Limit(soft=None, hard=None),
        "stack": Limit(soft=eight, hard=eight),
    }
    assert said.memory_limit == 3 * 2**29
    assert said.start_after == {
        "unsaid": Condition.STARTED,
        "once": Condition.EXITED_OK,
        "far": Condition.READY,
    }
    assert said.readiness == ExecProbe(command=("/srv/tars/probe", "./x"), interval=0.5, start_period=300.0)
    assert said.liveness == HealthTopicProbe(stale_after=60.0, failure_threshold=2)
    assert (said.restart, said.success_exit_codes) == (Restart.ON_FAILURE, (3,))
    assert said.success_signals == ("SIGKILL", "SIGTERM")
    assert said.backoff == Backoff(
        first=2.0, factor=3.0, max=60.0, jitter=0.0, reset_after=3600.0, at_once_if_ready=False
    )
    assert said.intensity == Intensity(restarts=3, window=60.0)
    assert (said.stop_signal, said.grace, said.probation) == ("SIGINT", 0.0, 0.0)
    assert said.output == Output(file_size=2**20, files=1, ring_lines=5)

    assert (unsaid.cwd, unsaid.user, unsaid.group, unsaid.umask) == (FOLDER / "work", "tars", None, None)
    assert (unsaid.pass_environment, unsaid.environment) == (("A",), {"LANG": "C", "SHARED": "1"})
    assert unsaid.readiness == TcpProbe(port=1, timeout=10.0)
    assert (unsaid.liveness, unsaid.watchdog, unsaid.start_after) == (NoProbe(), None, {})
    assert (unsaid.grace, unsaid.probation, unsaid.stop_signal) == (60.0, 10.0, "SIGTERM")
    assert (unsaid.restart, unsaid.success_exit_codes, unsaid.memory_limit) == (Restart.ALWAYS, (0,), None)
    assert unsaid.backoff == Backoff(first=1.0, max=60.0)
    assert unsaid.intensity == Intensity(restarts=3)
    # A probe is replaced as a whole.
    assert (once.readiness, once.watchdog) == (NotifyProbe(), 30.0)
    assert once.start_after == {"unsaid": Condition.READY}
    # Somebody else runs it: what the others share is not for it.
    assert (far.cwd, far.user, far.readiness, far.backoff) == (FOLDER, None, HealthTopicProbe(), Backoff())
    assert (far.restart_command, far.grace) == (("/srv/tars/restart", "far"), 30.0)
    assert far.liveness == HttpProbe(url="https://far:8443/health")


def test_without_a_word_there_are_as_many_starts_at_a_time_as_cores() -> None:
    assert parse_manifest('[services.a]\ncommand = ["x"]', "x").concurrent_starts is None
