"""Health: what every part last said of itself, drawn together, shown to readers and published."""

import logging
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime
from enum import StrEnum

from actors.board import Board
from actors.runtime import Actor
from schemas.health import ComponentHealth, HealthReport
from schemas.states import DatabaseStatus, OperationalMode

logger = logging.getLogger(__name__)

HEALTH_TOPIC = "system/health/config-manager"

CONNECTION_LOST = "connection lost"


class Component(StrEnum):
    """The parts that report."""

    DATABASE = "database"
    CACHE = "cache"
    BROKER = "broker"
    BRIDGE = "bridge"
    WORKERS = "workers"
    """That they can be started at all. There is this one once they could not."""


LOGGED_HERE = frozenset({Component.DATABASE, Component.CACHE, Component.BRIDGE})
"""The others' turns are in the log already: the broker's are told by its supervisor, a service's by its actor, and that there
is no holder of workers by who looks after it.
"""


def of_service(service: str) -> str:
    """Give the component that speaks for a service; there is one once the service had something to say."""
    return f"service {service}"


class HealthActor(Actor):
    """Takes reports (`tell`), writes the board, and hands each new report to `publish`.

    Told by everybody, it asks nobody: a part that is ill must be able to say so.
    """

    def __init__(self, board: Board, publish: Callable[[str, bytes], None]) -> None:
        super().__init__()
        self._board = board
        self._publish = publish
        # The board outlives this actor, so a restart forgets nothing.
        self._database_status = board.health.database_status
        self._lkg_valid = board.health.lkg_cache_valid
        self._stopped = False

    def announce(self) -> None:
        """Publish the present report; the first one came before there was a bridge."""
        self._refresh("started")

    def farewell(self) -> None:
        """Say that the program ends in order: the last report before the bridge leaves."""
        self._stopped = True
        self._refresh("stopped")

    def facts(self, config_epoch: str, schema_version: int) -> None:
        """Take what the store says of itself."""
        self._board.health = self._board.health.model_copy(
            update={"config_epoch": config_epoch, "schema_version": schema_version}
        )
        self._refresh("store loaded")

    def report(self, component: Component | str, ok: bool, detail: str = "", address: str | None = None) -> None:
        """Take what a part says of itself; a repeat changes nothing.

        Whose request it was in which a part noticed is of no interest, and would mislead in the log.
        """
        Context().run(self._report, component, ok, detail, address)

    def _report(self, component: str, ok: bool, detail: str, address: str | None) -> None:
        known = self._board.components.get(component)
        if known is not None and (known.ok, known.detail, known.address) == (ok, detail, address):
            return
        since = datetime.now(UTC) if known is None or known.ok != ok else known.since
        self._board.components[component] = ComponentHealth(ok=ok, detail=detail, since=since, address=address)
        if (known is None or known.ok != ok) and component in LOGGED_HERE:
            (logger.info if ok else logger.warning)(
                "%s is %s%s", component, "well" if ok else "ill", detail and f": {detail}"
            )
        self._refresh(f"{component} {'well' if ok else 'ill'}")

    def database(self, status: DatabaseStatus, detail: str = "") -> None:
        """Take the store's state."""
        before, self._database_status = self._database_status, status
        self.report(Component.DATABASE, status is DatabaseStatus.HEALTHY, detail)
        if self._board.health.database_status is not status:
            # Another illness, in the same words.
            self._refresh(f"{Component.DATABASE} {before} -> {status}")

    def lkg(self, valid: bool, detail: str = "") -> None:
        """Take the cache's state."""
        self._lkg_valid = valid
        self.report(Component.CACHE, valid, detail)

    def _refresh(self, event: str) -> None:
        ill = [f"{name}: {part.detail}" for name, part in self._board.components.items() if not part.ok]
        old = self._board.health
        new = HealthReport(
            ok=not ill and not self._stopped,
            database_status=self._database_status,
            operational_mode=OperationalMode.NORMAL
            if self._database_status is DatabaseStatus.HEALTHY
            else OperationalMode.READ_ONLY_FALLBACK,
            config_epoch=old.config_epoch,
            schema_version=old.schema_version,
            lkg_cache_valid=self._lkg_valid,
            litestream_status=old.litestream_status,
            last_backup=old.last_backup,
            event=event,
            err="; ".join(ill) or None,
        )
        self._board.health = new
        self._publish(HEALTH_TOPIC, new.model_dump_json().encode())


def last_will(board: Board) -> tuple[str, bytes]:
    """Give topic and payload of the last will: the present report, as it will be true when the connection is lost."""
    lost = board.health.model_copy(update={"ok": False, "event": CONNECTION_LOST})
    return HEALTH_TOPIC, lost.model_dump_json().encode()
