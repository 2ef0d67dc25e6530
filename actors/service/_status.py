"""What is shown of a worker's life: the same facts for REST, MQTT and events."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from signal import Signals

from actors.service._events import End
from actors.service._lifecycle import Life
from schemas.states import Lifecycle
from schemas.status import EndStatus


class Shown:
    """Turns times of the steady clock into times of the wall, each once, and ends into what is told of them."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._walls: dict[float, datetime] = {}
        self._ends: tuple[End, ...] = ()
        self._told: tuple[EndStatus, ...] = ()

    @property
    def started_at(self) -> datetime | None:
        return self._wall(self._life.spawned_at)

    @property
    def ready_at(self) -> datetime | None:
        return self._wall(self._life.ready_at)

    @property
    def due(self) -> datetime | None:
        """When the next start is tried."""
        return self._wall(self._life.due) if self._life.state is Lifecycle.BACKING_OFF else None

    @property
    def ends(self) -> tuple[EndStatus, ...]:
        ends = tuple(self._life.ends)
        if ends != self._ends:
            self._ends, self._told = ends, tuple(map(_told, ends))
        return self._told

    def _wall(self, at: float | None) -> datetime | None:
        if at is None:
            return None
        known = self._walls.get(at)
        if known is None:
            if len(self._walls) > 2:
                self._walls.clear()
            known = datetime.now(UTC) + timedelta(seconds=at - time.monotonic())
            self._walls[at] = known
        return known


def _told(end: End) -> EndStatus:
    signal = None
    if end.code is not None and end.code < 0:
        signal = str(-end.code)
        with contextlib.suppress(ValueError):
            signal = Signals(-end.code).name
    return EndStatus(
        at=end.at,
        instance=end.instance,
        reason=end.reason,
        exit_code=end.code if end.code is not None and end.code >= 0 else None,
        signal=signal,
        last_lines=end.last_lines,
        memory=end.memory,
        ran_s=end.ran_s,
        restarted=end.restarted,
    )
