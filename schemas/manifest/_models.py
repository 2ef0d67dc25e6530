"""The models: one service, all services. What a key means stands here, and nowhere else."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema

from schemas.base import Model
from schemas.manifest._policies import (
    HOUR,
    Backoff,
    Condition,
    EndingSignal,
    Intensity,
    LimitOrBoth,
    Output,
    Restart,
    Rlimit,
    SignalName,
    Umask,
)
from schemas.manifest._probes import HealthTopicProbe, Liveness, NoProbe, Readiness
from schemas.manifest._texts import MAX_ENTRIES, Account, HealthTopic, Text, Value, Variable, wrong
from schemas.manifest._units import MIB, TIB, Duration, Size
from schemas.states import Kind
from schemas.types import SERVICE_NAME_PATTERN, ServiceName

MAX_SERVICES: Final = 2000


def _after(value: object) -> object:
    if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        return dict.fromkeys(value, Condition.READY)
    if isinstance(value, dict):
        return value
    raise wrong(
        f'must be a list of services, such as ["router"], or a table, such as {{ router = "{Condition.STARTED}" }}'
    )


StartAfter = Annotated[
    dict[ServiceName, Condition],
    BeforeValidator(_after),
    Field(max_length=MAX_ENTRIES),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "pattern": SERVICE_NAME_PATTERN}},
                {
                    "type": "object",
                    "propertyNames": {"pattern": SERVICE_NAME_PATTERN},
                    "additionalProperties": {"enum": [each.value for each in Condition]},
                },
            ]
        }
    ),
]


class Service(Model):
    """One service of the manifest.

    `cwd`, and the first item of a command with a slash in it, are no longer relative to the manifest. Times are seconds,
    sizes bytes. What is None was not said: the supervisor's own applies, or there is no limit.
    """

    name: ServiceName
    kind: Kind = Field(
        Kind.PROCESS,
        description="`process`: the supervisor runs the worker. `external`: somebody else does; it gets its signed "
        "configuration over MQTT. `config-only`: there is no worker.",
        examples=["external"],
    )
    command: tuple[Text, ...] = Field(
        (),
        max_length=MAX_ENTRIES,
        description="Program and arguments, no shell in between. A first item with a slash in it is relative to the "
        "manifest's folder; one without is looked up on the `PATH`. Needed for `process`.",
        examples=[["./lamp-worker", "--gentle"]],
    )
    cwd: Path = Field(
        Path(),
        description="The worker's working folder, relative to the manifest's.",
        examples=["work"],
    )
    user: Account | None = Field(
        None,
        description="User whom the worker runs as, with all groups of that user. Only a worker with a user of its own is "
        "kept from the files of the supervisor and of the other workers. Needs a supervisor that runs as root.",
        examples=["tars-stt"],
    )
    group: Account | None = Field(
        None, description="Group of the worker, instead of the user's own.", examples=["audio"]
    )
    environment: dict[Variable, Value] = Field(
        default_factory=dict,
        max_length=MAX_ENTRIES,
        description="Variables for the worker. One that is named like a setting overrides that setting.",
        examples=[{"LANG": "C.UTF-8"}],
    )
    pass_environment: tuple[Variable, ...] = Field(
        (),
        max_length=MAX_ENTRIES,
        description="Names of variables that are handed on from the supervisor's own environment or `.env`, where they "
        "are set there.",
        examples=[["HTTPS_PROXY"]],
    )
    umask: Umask | None = Field(
        None, description="Permissions that new files of the worker do not get: octal digits.", examples=["027"]
    )
    nice: Annotated[int, Strict()] | None = Field(
        None,
        ge=-20,
        le=19,
        description="Priority for the processor: the higher, the more it yields to others. Below the "
        "supervisor's own it needs root.",
        examples=[5],
    )
    rlimits: dict[Rlimit, LimitOrBoth] = Field(
        default_factory=dict,
        description="Resource limits by their names in setrlimit(2): a number, a size or `unlimited`, or a table of "
        "`soft` and `hard`.",
        examples=[{"nofile": 1024, "core": 0, "stack": {"soft": "8 MiB", "hard": "unlimited"}}],
    )
    memory_limit: Annotated[int, Size(MIB, TIB)] | None = Field(
        None,
        description="Memory that the worker and its children may use together; one that needs more is killed and "
        "restarted. The kernel sees to it where the supervisor has a cgroup of its own, else the supervisor looks.",
        examples=["1.5 GiB"],
    )
    model: Text = Field(description="What can be set: see below.", examples=["stt-worker"])
    health_topic: HealthTopic = Field(
        description="Where the worker reports its health. Every service has a topic of its own.",
        examples=["system/health/lamp"],
    )
    start_after: StartAfter = Field(
        default_factory=dict,
        description="Services that come first: a list of those that have to be `ready`, or a table with `started`, "
        "`ready` or `exited-ok` for each. It orders starts; a restart of one does not restart the other.",
        examples=[["broker"], {"migrate": "exited-ok"}],
    )
    readiness: Readiness = Field(
        HealthTopicProbe(),
        description="How it is found out that a worker that was started is ready.",
        examples=[{"kind": "tcp", "port": 8090}],
    )
    liveness: Liveness = Field(
        NoProbe(),
        description="How it is found out that a worker that is ready does not work any more; it is then ended, and "
        "restarted as `restart` says.",
        examples=[{"kind": "health-topic", "stale_after": "1 min"}],
    )
    watchdog: Annotated[float, Duration(0.1, HOUR)] | None = Field(
        None,
        description="A ready worker that does not send `WATCHDOG=1` (sd_notify(3)) within this time is ended, and "
        "restarted as `restart` says. Needs a readiness of kind `notify`.",
        examples=["30 s"],
    )
    restart: Restart = Field(
        Restart.ALWAYS,
        description="`always`, `on-failure` or `never`: when a worker that ended by itself is started again.",
        examples=["on-failure"],
    )
    success_exit_codes: tuple[Annotated[int, Strict(), Field(ge=0, le=255)], ...] = Field(
        (0,), max_length=MAX_ENTRIES, description="Exit codes that are no failure.", examples=[[0, 3]]
    )
    success_signals: tuple[EndingSignal, ...] = Field(
        (),
        max_length=64,
        description="Signals by which a worker may end without having failed.",
        examples=[["SIGTERM", "SIGINT"]],
    )
    backoff: Backoff = Field(
        Backoff(),
        description="How long the next start of a worker that failed has to wait.",
        examples=[{"max": "5 min"}],
    )
    intensity: Intensity = Field(
        Intensity(), description="How many restarts are too many.", examples=[{"restarts": 10, "window": "1 h"}]
    )
    stop_signal: SignalName = Field("SIGTERM", description="Signal that asks the worker to end.", examples=["SIGINT"])
    grace: Annotated[float, Duration(0, HOUR)] = Field(
        10.0,
        description="Time between asking the worker to end and killing it, with everything that it has started. Of an "
        "external one: time for its `restart_command`.",
        examples=["5 s"],
    )
    probation: Annotated[float, Duration(0, HOUR)] = Field(
        10.0,
        description="A change of its configuration is rolled back if the worker fails within this time of being ready "
        "with it. 0: changes are kept whatever happens.",
        examples=["1 min"],
    )
    output: Output = Field(
        Output(), description="What is kept of the worker's output.", examples=[{"file_size": "1 MiB", "files": 5}]
    )
    restart_command: tuple[Text, ...] = Field(
        (),
        max_length=MAX_ENTRIES,
        description="Program and arguments that restart an external worker. Without it, it gets the signed control signal "
        "over MQTT.",
        examples=[["systemctl", "restart", "kitchen-display"]],
    )


class Manifest(Model):
    """All services, in the order of the file."""

    services: tuple[Service, ...]
    concurrent_starts: Annotated[int, Strict()] | None = Field(
        None,
        ge=1,
        le=MAX_SERVICES,
        description="So many workers start at a time; one that takes long to be ready lets the next ones begin.",
        examples=[2],
    )
