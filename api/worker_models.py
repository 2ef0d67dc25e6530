"""What the calls about workers take and give; closed and open as those of `api.models`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Model
from schemas.manifest import Change
from schemas.states import Lifecycle
from schemas.status import ServiceStatus

LONGEST_WAIT = 300.0
"""Seconds."""


class ProcessFigures(Model):
    """What a process takes, without its children. It is looked at once a second at most; null is what cannot be known."""

    pid: int
    uptime_s: float | None
    cpu_s: Annotated[float | None, Field(description="Seconds of processor that it has used.")]
    cpu_percent: Annotated[
        float | None, Field(description="Of one processor, since somebody last looked; null at the first look.")
    ]
    memory: Annotated[int | None, Field(description="Bytes.")]
    memory_kind: Annotated[
        Literal["pss", "rss"] | None,
        Field(description="`pss`: its share of what it has in common with others counts; `rss`: all of it does."),
    ]
    fds: Annotated[int | None, Field(description="Open descriptors.")]
    threads: int | None


class ServiceDetails(ServiceStatus):
    """A service as it is now; `process` is null where there is none, or none here."""

    process: ProcessFigures | None


class InternalProcess(Model):
    """A process that the supervisor runs for itself; nobody can command it."""

    service: str
    kind: Literal["internal"]
    state: Lifecycle
    since: datetime
    reason: str
    process: ProcessFigures | None


class ServiceDetailsList(Model):
    """All services, in the manifest's order, and the supervisor's own processes."""

    services: list[ServiceDetails]
    internal: list[InternalProcess]


Reason = Annotated[
    Annotated[str, StringConstraints(max_length=1000)] | None,
    Field(description="Why; it is told wherever the state is.", examples=["it hears nothing"]),
]
Wait = Annotated[
    float,
    Field(ge=0, le=LONGEST_WAIT, strict=True, description="Seconds to wait for it; 0 only asks.", examples=[30]),
]


class CommandBody(Model):
    """How a service is to be started, stopped or restarted."""

    reason: Reason = None
    dependants: Annotated[
        bool, Field(strict=True, description="Those that start after it, too; of a start, those that it starts after.")
    ] = False
    wait_s: Wait = 30.0


class RestartAllBody(Model):
    """How all services are to be restarted."""

    reason: Reason = None
    rolling: Annotated[
        bool,
        Field(
            strict=True,
            description=(
                "One after the other, each when the one before is up again; the first that does not come up ends it. "
                "Else all at once, in their order."
            ),
        ),
    ] = False
    wait_s: Wait = 30.0


class CommandAnswer(Model):
    """What came of it. `services` are those that it was about, as they are now, without the last lines of their ends."""

    done: Annotated[bool, Field(description="All of it has come true.")]
    took_s: float
    message: Annotated[str, Field(description="What happened, for people.")]
    services: list[ServiceStatus]
    trouble: Annotated[dict[str, str], Field(description="By service, why something has not come true.")]
    untouched: Annotated[list[str], Field(description="Those that a rolling restart did not come to.")]


class ServiceChange(Model):
    """What a reload does to one service; `keys` of the manifest that changed."""

    service: str
    change: Change
    keys: list[str]


class ReloadAnswer(Model):
    """What a reload did, or would do: all services of both manifests."""

    done: Annotated[bool, Field(description="False where only the plan was asked for.")]
    message: Annotated[str, Field(description="What happened, for people.")]
    services: list[ServiceChange]
    concurrent_starts: Annotated[bool, Field(description="Whether the number of workers that start at a time changed.")]
