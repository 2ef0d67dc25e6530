"""How a worker is limited, ended, started again, and heard: the smaller tables of a service."""

import re
import signal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from msgspec import Struct
from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, Strict, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.base import Model
from schemas.manifest._texts import wrong
from schemas.manifest._units import KIB, MIB, TIB, Duration, Size, in_seconds
from schemas.problems import did_you_mean

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR


class Restart(StrEnum):
    """When a worker that ended by itself is started again. One that a failed probe has ended counts as failed."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class Condition(StrEnum):
    """What has to be true of a service before another is started after it."""

    STARTED = "started"
    """Its command has been executed."""
    READY = "ready"
    """Its readiness probe has succeeded."""
    EXITED_OK = "exited-ok"
    """It has ended with success."""


class Backoff(Model):
    """How long to wait before the next start: `first` times `factor` to the power of failures before, at most `max`."""

    first: Annotated[float, Duration(0.01, HOUR)] = Field(
        0.5, description="Wait before the first retry.", examples=["1 s"]
    )
    factor: Annotated[float, Strict()] = Field(
        2.0, ge=1, le=10, description="Each further wait is longer by this factor.", examples=[1.5]
    )
    max: Annotated[float, Duration(0.01, DAY)] = Field(
        30.0, description="No wait is longer; not below `first`.", examples=["5 min"]
    )
    jitter: Annotated[float, Strict()] = Field(
        0.2,
        ge=0,
        le=1,
        description="Each wait is shortened at random by up to this share, so that workers do not start in step.",
        examples=[0.5],
    )
    reset_after: Annotated[float, Duration(0, DAY)] = Field(
        60.0,
        description="A worker that was ready for so long (that ran for so long, where it never was) has a clean record.",
        examples=["10 min"],
    )
    at_once_if_ready: Annotated[bool, Strict()] = Field(
        True,
        description="The first retry of a worker that had been ready is made without a wait.",
        examples=[False],
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first > self.max:
            raise wrong(f"has a first wait of {in_seconds(self.first)}, longer than its max of {in_seconds(self.max)}")
        return self


class Intensity(Model):
    """How many restarts are too many: then the service is `failed` until it is asked for, or its configuration changes."""

    restarts: Annotated[int, Strict()] = Field(
        0,
        ge=0,
        le=1000,
        description="So many restarts within `window` are borne; one more, and the service is `failed`. 0: no limit.",
        examples=[10],
    )
    window: Annotated[float, Duration(1, DAY)] = Field(
        600.0, description="The time in which restarts are counted.", examples=["1 h"]
    )


class Output(Model):
    """What is kept of a worker's standard output and error."""

    file_size: Annotated[int, Size(64 * KIB, 16 * 2**30)] = Field(
        4 * MIB, description="A file of output is closed and a new one begun at this size.", examples=["1 MiB"]
    )
    files: Annotated[int, Strict()] = Field(
        3,
        ge=0,
        le=100,
        description="Files that are kept, the one that is written included; the oldest goes. 0: none is written.",
        examples=[5],
    )
    ring_lines: Annotated[int, Strict()] = Field(
        1000, ge=1, le=100_000, description="Last lines that are kept in memory, for REST.", examples=[200]
    )


Rlimit = Literal[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]
"""Names of setrlimit(2) in lower case and without RLIMIT_; `resource.RLIMIT_<NAME>` in Python."""

RLIMITS_IN_BYTES: Final = frozenset({"as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"})
MAX_RLIMIT: Final = 2**63 - 1

_AMOUNT: Final = Size(0, 2**23 * TIB - 1)
_LIMIT_WORDS: Final = (
    'must be a number, a size such as "64 MiB", "unlimited", or both limits, such as { soft = 1024, hard = 4096 }'
)


def _bound(value: object) -> int | None:
    if value is None or value == "unlimited":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_RLIMIT:
        return value
    if isinstance(value, str) and re.search(r"[0-9]", value):
        return _AMOUNT.read(value)
    raise wrong(f'must be 0 to {MAX_RLIMIT}, a size such as "64 MiB", or "unlimited"')


_BOUND_SCHEMA: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_RLIMIT},
        {"const": "unlimited"},
        {"type": "string", "pattern": _AMOUNT.pattern},
    ]
}

_Bound = Annotated[int | None, BeforeValidator(_bound), WithJsonSchema(_BOUND_SCHEMA)]


class Limit(Model):
    """One resource limit (setrlimit(2)). None: unlimited (RLIM_INFINITY). `soft` is never above `hard`."""

    soft: _Bound = Field(description="The limit that holds.", examples=[1024])
    hard: _Bound = Field(description="How far the worker itself may raise it.", examples=["unlimited"])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.hard is not None and (self.soft is None or self.soft > self.hard):
            raise wrong("has a soft limit above its hard one; raise the hard one, or lower the soft one")
        return self


def _limit(value: object) -> object:
    if isinstance(value, (Limit, dict)):
        return value
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        both = _bound(value)
        return {"soft": both, "hard": both}
    raise wrong(_LIMIT_WORDS)


class _OrOneForBoth(Struct, frozen=True):
    """In the JSON Schema: that one value may stand for both limits."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [*_BOUND_SCHEMA["anyOf"], handler(schema)]}


LimitOrBoth = Annotated[Limit, BeforeValidator(_limit), _OrOneForBoth()]

SIGNALS: Final = tuple(sorted(each.name for each in signal.Signals if each.name not in {"SIGKILL", "SIGSTOP"}))
"""Those that a process may handle, by their names in signal(7)."""


def _signal(value: object) -> str:
    if isinstance(value, str):
        if value in SIGNALS:
            return value
        near = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
        hint = f'; did you mean "{near}"?' if near in SIGNALS else did_you_mean(value[:20], SIGNALS)
        if value in {"SIGKILL", "SIGSTOP"}:
            hint = "; after its grace the worker is killed anyway"
        raise wrong(f"is not a signal that a worker can handle{hint}")
    raise wrong('must be the name of a signal in quotes, such as "SIGTERM"')


# The name of a signal, such as SIGTERM; `signal.Signals[name]` is its number.
SignalName = Annotated[str, BeforeValidator(_signal), WithJsonSchema({"enum": list(SIGNALS)})]


def _ended_by(value: object) -> Any:
    return "SIGKILL" if value == "SIGKILL" else _signal(value)


# The same, and SIGKILL: whoever limits memory sends it.
EndingSignal = Annotated[str, BeforeValidator(_ended_by), WithJsonSchema({"enum": sorted([*SIGNALS, "SIGKILL"])})]


def _umask(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    # TOML has octal numbers, but once read they look like any other: 22 and 0o22 could not be told apart.
    raise wrong('must be three octal digits in quotes, such as "027"')


# Bits that a new file does not get (umask(2)); in the manifest octal digits.
Umask = Annotated[int, BeforeValidator(_umask), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$"})]
