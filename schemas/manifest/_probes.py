"""Probes: how it is found out that a worker is ready, and that it is still well."""

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Strict, StringConstraints
from pydantic_core import SchemaError, SchemaValidator, core_schema

from schemas.base import Model
from schemas.manifest._policies import DAY, HOUR
from schemas.manifest._texts import MAX_ENTRIES, Text, wrong
from schemas.manifest._units import Duration

_Start = Annotated[float, Duration(0, DAY)]
_START: Final = (
    "A worker may need so long from its start to its first success: failures within it do not count. "
    "After it, a worker that is not ready has failed to start."
)


class _Counted(Model):
    """Is looked at again and again."""

    interval: Annotated[float, Duration(0.05, HOUR)] = Field(
        5.0, description="From one look at the last report to the next.", examples=["1 s"]
    )
    success_threshold: Annotated[int, Strict()] = Field(
        1, ge=1, le=1000, description="Successes in a row that make a success.", examples=[2]
    )
    failure_threshold: Annotated[int, Strict()] = Field(
        3, ge=1, le=1000, description="Failures in a row that make a failure.", examples=[5]
    )


class _Asking(_Counted):
    """Asks, and waits for an answer."""

    interval: Annotated[float, Duration(0.05, HOUR)] = Field(
        2.0, description="From the end of one try to the next.", examples=["500 ms"]
    )
    timeout: Annotated[float, Duration(0.05, HOUR)] = Field(
        2.0, description="A try that takes longer has failed.", examples=["10 s"]
    )
    start_period: _Start = Field(120.0, description=_START, examples=["5 min"])


class HealthTopicProbe(_Counted):
    """The worker's last report on its `health_topic`, its last will included: `ok` true is a success, all else a failure.

    A report counts when it comes, and again after each `interval`, so that thresholds mean what they mean elsewhere.
    """

    kind: Literal["health-topic"] = "health-topic"
    stale_after: Annotated[float, Duration(1, DAY)] | None = Field(
        None, description="A report that is older is a failure. Left out: reports do not age.", examples=["1 min"]
    )
    start_period: _Start | None = Field(
        None, description=f"{_START} Left out: it may take as long as it wants.", examples=["2 min"]
    )


class NotifyProbe(Model):
    """`READY=1` on the socket that `NOTIFY_SOCKET` names (sd_notify(3)). For readiness alone."""

    kind: Literal["notify"] = "notify"
    start_period: _Start = Field(120.0, description=_START, examples=["5 min"])


class TcpProbe(_Asking):
    """A TCP connection that is accepted."""

    kind: Literal["tcp"] = "tcp"
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:%-]{1,253}$")] = Field(
        "127.0.0.1", description="Name or address.", examples=["::1"]
    )
    port: Annotated[int, Strict()] = Field(ge=1, le=65535, description="Port.", examples=[8090])


def _url(text: str) -> str:
    words = 'must be an address such as "http://127.0.0.1:8090/health"'
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets that do not close
        raise wrong(words) from None
    if not sound or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise wrong(words)
    if parts.username is not None or parts.password is not None:
        raise wrong("holds a user name or password, and would show them; remove them")
    return text


class HttpProbe(_Asking):
    """A GET that is answered with a status of 200 to 399."""

    kind: Literal["http"] = "http"
    url: Annotated[str, StringConstraints(max_length=2000), AfterValidator(_url)] = Field(
        description="What is asked for, over http or https.", examples=["http://127.0.0.1:8090/health"]
    )


class ExecProbe(_Asking):
    """A command that exits with 0. It gets the worker's user, folder and environment, and is killed at its timeout."""

    kind: Literal["exec"] = "exec"
    command: tuple[Text, ...] = Field(
        min_length=1,
        max_length=MAX_ENTRIES,
        description="Program and arguments, as in the service's `command`.",
        examples=[["./is-well", "--quick"]],
    )


def _matcher(pattern: str) -> SchemaValidator:
    # Pydantic's engine takes linear time, whatever the line: a worker's output must not be able to hold up the supervisor.
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def _regular_expression(text: str) -> str:
    try:
        _matcher(text)
    except SchemaError as error:
        # The engine's last line says what is wrong; those before it draw an arrow.
        reason = str(error).strip().splitlines()[-1].strip().removeprefix("error: ")
        raise wrong(f"is not a regular expression that can be used: {reason[:200]}") from None
    return text


class LogLineProbe(Model):
    """A line of the worker's output in which `pattern` is found. For readiness alone."""

    kind: Literal["log-line"] = "log-line"
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_regular_expression)] = (
        Field(
            description="Regular expression that has to be found in a line; no look-around and no back-references.",
            examples=["[Ll]istening on port"],
        )
    )
    start_period: _Start = Field(120.0, description=_START, examples=["5 min"])

    def finder(self) -> Callable[[str], bool]:
        """Give what tells whether the pattern is found in a line, in linear time."""
        return _matcher(self.pattern).isinstance_python


class DelayProbe(Model):
    """A worker that has run for so long is ready. For readiness alone."""

    kind: Literal["delay"] = "delay"
    after: Annotated[float, Duration(0, HOUR)] = Field(description="From its start.", examples=["3 s"])


class NoProbe(Model):
    """No probe. As readiness: a worker is ready as soon as its command was executed; as liveness: nothing is asked."""

    kind: Literal["none"] = "none"


Readiness = Annotated[
    HealthTopicProbe | NotifyProbe | TcpProbe | HttpProbe | ExecProbe | LogLineProbe | DelayProbe | NoProbe,
    Field(discriminator="kind"),
]
"""Asked from the start until it succeeds, and not after that."""

Liveness = Annotated[HealthTopicProbe | TcpProbe | HttpProbe | ExecProbe | NoProbe, Field(discriminator="kind")]
"""Asked from readiness on. A failure ends the worker, and the restart policy says what then; an external one is
restarted with its command or its control signal."""

PROBES: Final[dict[str, type[Model]]] = {
    probe.model_fields["kind"].default: probe
    for probe in (HealthTopicProbe, NotifyProbe, TcpProbe, HttpProbe, ExecProbe, LogLineProbe, DelayProbe, NoProbe)
}
"""Each by its kind."""

LIVENESS: Final = tuple(kind for kind, probe in PROBES.items() if probe in get_args(get_args(Liveness)[0]))
"""The kinds that `liveness` may have."""
