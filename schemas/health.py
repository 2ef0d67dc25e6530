"""What is said about health, and by whom."""

from datetime import datetime

from schemas.base import Model
from schemas.states import DatabaseStatus, LitestreamStatus, OperationalMode


class HealthReport(Model):
    """`system/health/config-manager` and `GET /health`. `ok`: everything does what it should."""

    ok: bool = False
    database_status: DatabaseStatus = DatabaseStatus.HEALTHY
    operational_mode: OperationalMode = OperationalMode.NORMAL
    config_epoch: str | None = None
    schema_version: int | None = None
    lkg_cache_valid: bool = False
    litestream_status: LitestreamStatus = LitestreamStatus.DISABLED
    last_backup: datetime | None = None
    event: str = "starting"
    err: str | None = None


class ComponentHealth(Model):
    """What one part of the supervisor last said of itself. `detail` is a sentence for people."""

    ok: bool
    detail: str = ""
    since: datetime
    address: str | None = None
