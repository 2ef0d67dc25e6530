"""Payloads of the topics of the contract's section 2, as closed models; what workers send is bounded here."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.base import Model
from schemas.states import Kind, Lifecycle
from schemas.types import Epoch

MAX_REPORT_BYTES = 64 * 1024

Text = Annotated[str, StringConstraints(max_length=4096)]


class VersionMark(Model):
    """One version of one epoch."""

    config_epoch: str
    version: int


class StateMessage(Model):
    """`system/state/<service>`: desired, published and reported version, and where the worker is in its life."""

    service: str
    kind: Kind
    state: Lifecycle
    since: datetime
    reason: str
    instance: str | None
    pid: int | None
    restarts: int
    desired: VersionMark
    published: VersionMark | None
    reported: VersionMark | None


class AppliedReport(BaseModel):
    """`system/applied/<service>`: what a worker says it runs with.

    Open for keys to come: it is written by other programs, and of other releases.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    service: Annotated[str, StringConstraints(max_length=63)]
    instance: Annotated[str, StringConstraints(max_length=128)] | None = None
    config_epoch: Epoch | None = None
    version: Annotated[int, Field(ge=0, strict=True)] | None = None
    ok: Annotated[bool, Field(strict=True)]
    applied_at: Text | None = None
    error: Text | None = None
    restart_required: Annotated[tuple[Text, ...], Field(max_length=1000)] | None = None
    refused: dict[str, int] | None = None


class WorkerHealth(BaseModel):
    """`system/health/<worker>`: what a worker says of itself; keys of its own are let pass and not kept."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    ok: Annotated[bool, Field(strict=True)]
    event: Text | None = ""
    err: Text | None = ""


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)

    data: WorkerHealth


class ReportInvalid(Exception):
    """A worker's payload that cannot be read; the message says why, without quoting it."""


def read_health(payload: bytes) -> WorkerHealth:
    """Read a health payload, bare or in its envelope. Raises ReportInvalid."""
    document = _object(payload)
    try:
        if "ok" not in document and "data" in document:
            return _Envelope.model_validate(document).data
        return WorkerHealth.model_validate(document)
    except ValidationError as error:
        raise ReportInvalid(_first(error)) from None


def read_applied(payload: bytes) -> AppliedReport:
    """Read an applied report. Raises ReportInvalid."""
    try:
        return AppliedReport.model_validate(_object(payload))
    except ValidationError as error:
        raise ReportInvalid(_first(error)) from None


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_REPORT_BYTES:
        raise ReportInvalid(f"larger than {MAX_REPORT_BYTES} bytes")
    try:
        document = orjson.loads(payload)
    except ValueError:
        raise ReportInvalid("not JSON") from None
    if not isinstance(document, dict):
        raise ReportInvalid("not a JSON object")
    return document


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    # A key of the payload may be in it.
    where = ".".join(str(part) for part in first["loc"])[:200]
    return f"wrong at {where!r}: {first['msg']}"
