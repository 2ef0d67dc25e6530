"""What a worker says of itself over MQTT, as it is written; the supervisor reads it more leniently, from any client."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class AppliedReport(BaseModel):
    """The reported state, retained on `system/applied/<service>`.

    `version` and `config_epoch` are those of the update that the report is about: with `ok` the worker runs with
    it; without, it failed (`error` says how) and what was in force before still is. `error` also says how the last
    control signal failed, which leaves `ok` alone. `restart_required` lists the keys whose new value counts only
    after a restart. `refused` counts refused updates and control signals since the worker's start by reason
    (`tars_config.wire.Reason`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str
    instance: str
    config_epoch: str
    version: int = Field(ge=1)
    ok: bool
    applied_at: datetime
    error: str | None = None
    restart_required: tuple[str, ...] = ()
    refused: dict[str, int] = {}


class WorkerHealth(BaseModel):
    """A worker's health in the bare form, retained on `system/health/<worker>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ok: bool
    event: str = ""
    err: str = ""
