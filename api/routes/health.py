"""Whether it is well: one answer for everybody, one with details."""

from datetime import UTC, datetime

from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.documents import Answer, Content, Operation
from api.models import DetailedHealth
from api.responses import NO_STORE, Finished
from api.routes._route import open_read, read
from api.state import ApiState
from api.tokens import Identity
from schemas.health import ComponentHealth, HealthReport
from schemas.states import Role

_REPORT = HealthReport(
    ok=True,
    config_epoch="0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20",
    schema_version=1,
    lkg_cache_valid=True,
    event="running",
)
_SINCE = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
_DETAILS = DetailedHealth(
    **_REPORT.model_dump(),
    components={
        "database": ComponentHealth(ok=True, detail="revision 7", since=_SINCE),
        "bridge": ComponentHealth(ok=True, detail="connected", since=_SINCE, address="mqtt://127.0.0.1:1883"),
    },
)

GET_HEALTH = Operation(
    id="getHealth",
    summary="Whether the supervisor is well",
    description="200 for as long as it serves, also when something is wrong: `ok` and `err` tell.",
    tag="Health",
    role=None,
    answers={
        200: Answer(
            "The report that is also published as `system/health/config-manager`.",
            Content(HealthReport, _REPORT.model_dump(mode="json")),
        ),
    },
)
GET_DETAILED_HEALTH = Operation(
    id="getDetailedHealth",
    summary="Whether each part of the supervisor is well",
    description="The health report, and under `components` what each part last said of itself.",
    tag="Health",
    role=Role.READ,
    answers={200: Answer("The report with its parts.", Content(DetailedHealth, _DETAILS.model_dump(mode="json")))},
)


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    board = state.board

    def health(_: Scope) -> Finished:
        return _json(board.health.model_dump_json().encode())

    def detailed(_: Scope, __: Identity) -> Finished:
        details = DetailedHealth(**dict(board.health), components=board.components)
        return _json(details.model_dump_json().encode())

    return [
        open_read("/health", GET_HEALTH, health),
        read("/api/config/health", GET_DETAILED_HEALTH, detailed, state.tokens),
    ]


def _json(body: bytes) -> Finished:
    return Finished(body, [(b"content-type", b"application/json"), NO_STORE])
