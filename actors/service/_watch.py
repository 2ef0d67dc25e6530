"""How one instance of a worker is: its probes, its notify socket and its watchdog, said in the events of its life.

Readiness is asked until it succeeds; then liveness and the watchdog begin. What the worker says on its health topic is told
at once, whatever the probes make of it: not yet well while it starts, ready or unhealthy after that.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from signal import SIGABRT

from actors.probes import Notice, NotifySocket, Probe, Watchdog, make_probe
from actors.process import Command
from actors.service._events import Condemned, Ready, Unhealthy
from actors.trees import INSTANCE_VARIABLE
from schemas.manifest import HealthTopicProbe, Liveness, NoProbe, NotifyProbe, Service

Sign = Ready | Unhealthy | Condemned


class Watch:
    """Of one instance, from before its spawn until it is asked to end or has ended: `close` it then.

    `tell` is called on the loop, never from within `opened`, `began` or `close`, and not after `close`.
    """

    def __init__(
        self,
        service: Service,
        instance: str,
        tell: Callable[[Sign], None],
        command: Callable[[tuple[str, ...]], Command],
        *,
        believes_reports: bool = True,
    ) -> None:
        """`command` makes of a probe's command one with the worker's user, folder and environment.

        Not `believes_reports`: anybody may write to the health topic, so what comes there is shown, and ends nothing.
        """
        self._service = service
        self._instance = instance
        self._tell = tell
        self._command = command
        believed = believes_reports or not isinstance(service.liveness, HealthTopicProbe)
        self._asks: Liveness = service.liveness if believed else NoProbe()
        self._socket: NotifySocket | None = None
        self._probe: Probe | None = None
        self._ended_probes: list[Probe] = []
        self._watchdog: Watchdog | None = None
        self._last_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._ready = False
        self._well = True

    @property
    def listens(self) -> bool:
        """It wants the worker's output, by `line`."""
        return self._probe is not None and self._probe.listens

    def open(self, notify_path: Path, *, user: int | None = None) -> Path | None:
        """Make the notify socket, before the spawn or adoption; its path, for `NOTIFY_SOCKET`, where the manifest wants one.

        Raises OSError.
        """
        if not isinstance(self._service.readiness, NotifyProbe):
            return None
        mark = f"{INSTANCE_VARIABLE}={self._instance}"
        self._socket = NotifySocket(notify_path, self._notified, mark=mark, user=user)
        return notify_path

    def began(self, pid: int, *, ready: bool = False) -> None:
        """The process is there. `ready`: it was so already, under an earlier supervisor."""
        if self._closed or self._probe is not None:
            return
        if ready:
            self._go_on()
        else:
            self._probe = make_probe(self._service.readiness, self._readiness, self._command)
            self._probe.start()
        if self._socket is not None and not self._closed:
            self._socket.listen(pid)

    def heard(self, ok: bool, text: str) -> None:
        """Take what it said on its health topic."""
        if self._probe is None or self._closed:
            return
        was_ready = self._ready
        self._probe.heard(ok, text)
        if not self._closed and (not ok or was_ready):
            self._say(ok, text)

    def line(self, line: str) -> None:
        """Take a line of its output."""
        if self._probe is not None:
            self._probe.line(line)

    def close(self) -> None:
        """End; nothing is told any more. May be called again, also by whom it tells."""
        self._closed = True
        if self._socket is not None:
            self._socket.close()
        self._rest()

    async def gone(self) -> None:
        """Return when nothing is left of it, after `close`."""
        for probe in self._ended_probes:
            await probe.gone()

    def _rest(self) -> None:
        if self._probe is not None:
            self._probe.stop()
            # Those that ask nobody are gone with their `stop`.
            self._ended_probes = [*self._ended_probes, self._probe][-2:]
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._last_timer is not None:
            self._last_timer.cancel()

    def _go_on(self) -> None:
        """From readiness to liveness."""
        self._rest()
        self._ready = True
        self._probe = make_probe(self._asks, self._liveness, self._command)
        if not isinstance(self._asks, NoProbe):
            self._probe.start()
        if self._service.watchdog is not None:
            self._watchdog = Watchdog(self._service.watchdog, lambda text: self._condemn(text, hangs=True))
            self._watchdog.start()

    def _readiness(self, ok: bool, text: str) -> None:
        if ok:
            self._go_on()
        self._say(ok, text)

    def _liveness(self, ok: bool, text: str) -> None:
        if not ok:
            self._condemn(f"its liveness probe failed: {text}")

    def _notified(self, notice: Notice) -> None:
        if notice.watchdog and self._watchdog is not None:
            self._watchdog.pat()
        if notice.trigger:
            self._condemn("it has triggered its watchdog itself", hangs=True)
        elif notice.stopping:
            # It ends by itself, which is nothing that a probe should disturb; but not for ever.
            self._rest()
            grace = self._service.grace
            text = f"it said that it stops, and did not within {grace:g} s"
            self._last_timer = asyncio.get_running_loop().call_later(grace, self._condemn, text, context=Context())
        elif notice.ready and self._probe is not None:
            self._probe.notified_ready(notice.status or "")
        elif notice.status and self._probe is not None:
            self._say(self._ready and self._well, notice.status)

    def _say(self, ok: bool, text: str) -> None:
        if not self._closed:
            self._well = ok
            self._tell(Ready(self._instance, text) if ok else Unhealthy(self._instance, text))

    def _condemn(self, text: str, *, hangs: bool = False) -> None:
        if not self._closed:
            self._tell(Condemned(self._instance, text, SIGABRT if hangs else None))
