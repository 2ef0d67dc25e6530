"""What the answers look like.

The models are closed, so that our tests see what is in an answer and not here. The OpenAPI document leaves answers open:
a later release may add members, and no client shall break on them.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from schemas.base import Model
from schemas.health import ComponentHealth, HealthReport
from schemas.states import Role

Number = int | float


class ProblemError(Model):
    """One field that is wrong."""

    field: Annotated[str, Field(description="The setting or the member of the body; empty where it is the whole body.")]
    message: str
    type: str


class CurrentVersion(Model):
    """The version that is current, and the request that made it."""

    version: int
    config_epoch: str
    request_id: Annotated[str | None, Field(description="Null where no request made it, but the start.")]


class ProblemDetails(Model):
    """An error (RFC 9457).

    `errors` comes with wrong fields (422, and 400 where one is no JSON), `current` with a stale version.
    """

    type: Annotated[str, Field(description="Names the kind of problem; compare this, not the texts.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="A sentence for people: what is wrong and what to do.")]
    request_id: str
    errors: list[ProblemError] | None = None
    current: CurrentVersion | None = None


class DetailedHealth(HealthReport):
    """The health report, and what each part of the supervisor last said of itself."""

    components: dict[str, ComponentHealth]


class Me(Model):
    """Whose token it is, and what it may do."""

    name: str
    role: Role
    permissions: list[Role]


class CsrfToken(Model):
    """For `X-CSRF-Token`; calls under `X-API-Token` need none."""

    csrf_token: str
    expires_at: datetime


class ServiceList(Model):
    """Names of the services, in the manifest's order."""

    services: list[str]


class FieldView(Model):
    """One setting: what it means, what it may be, and where its value comes from."""

    key: str
    title: str
    type: Literal["string", "integer", "float", "boolean", "enum", "path", "secret"]
    complexity: str
    description: str
    help_text: str | None
    examples: list[JsonValue]
    is_secret: bool
    is_set: bool
    source: Literal["env", "database", "default"]
    env_override: bool
    apply: Literal["live", "restart"]
    default: JsonValue
    minimum: Number | None
    maximum: Number | None
    pattern: str | None
    allowed: list[JsonValue] | None
    unit: str | None


class ServiceConfig(Model):
    """A service's configuration as its worker runs with it: the environment included, secrets masked."""

    service: str
    config: dict[str, JsonValue]
    version: int
    updated_at: datetime
    config_epoch: str
    fields: Annotated[list[FieldView] | None, Field(description="Left out by `?include_fields=false`.")] = None


class PlannedChange(Model):
    """One setting that would change. Values are those of the store or the default; a secret's are marks."""

    key: str
    title: str
    old: JsonValue
    new: JsonValue
    old_is_default: bool
    new_is_default: bool
    apply: Annotated[
        Literal["live", "restart", "none"],
        Field(description="How the worker gets it; `none`: what it runs with stays the same."),
    ]
    is_secret: bool


class RestartAhead(Model):
    """A worker that would be restarted."""

    service: str
    last_away_s: Annotated[
        float | None, Field(description="For how long it was away the last time, until it was ready; null: not yet.")
    ]


class PlanAnswer(Model):
    """What a change would do. Where it is not `valid`, it would be refused for `errors`, and nothing would change."""

    service: str
    version: int
    config_epoch: str
    valid: bool
    changes: list[PlannedChange]
    restarts: list[RestartAhead]
    errors: list[ProblemError]
    message: str


class ChangeAnswer(Model):
    """The change is on disk; or nothing differed, and the version is the same as before."""

    success: bool
    version: int
    config_epoch: str
    message: Annotated[str, Field(description="What follows, for people: which settings are live, which restart.")]
    rollout: Annotated[dict[str, JsonValue] | None, Field(description="Always null in this release.")]
