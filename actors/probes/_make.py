"""From a manifest's table to its probe."""

from collections.abc import Callable

from actors.probes._answers import execute, http, tcp
from actors.probes._asking import Asking
from actors.probes._probe import OnResult, Probe
from actors.probes._told import Delay, HealthTopic, LogLine, Nothing, Notify
from actors.process import Command
from schemas.manifest import (
    DelayProbe,
    ExecProbe,
    HealthTopicProbe,
    HttpProbe,
    Liveness,
    LogLineProbe,
    NoProbe,
    NotifyProbe,
    Readiness,
    TcpProbe,
)


def make_probe(spec: Readiness | Liveness, on_result: OnResult, command: Callable[[tuple[str, ...]], Command]) -> Probe:
    """Give the probe, not started. `command` makes of a probe's command one with the worker's folder and environment."""
    match spec:
        case HealthTopicProbe():
            return HealthTopic(spec, on_result)
        case NotifyProbe():
            return Notify(on_result)
        case TcpProbe():
            return Asking(spec, tcp(spec.host, spec.port), on_result)
        case HttpProbe():
            return Asking(spec, http(spec.url), on_result)
        case ExecProbe():
            return Asking(spec, execute(lambda: command(spec.command)), on_result)
        case LogLineProbe():
            return LogLine(spec, on_result)
        case DelayProbe():
            return Delay(spec, on_result)
        case NoProbe():
            return Nothing(on_result)
