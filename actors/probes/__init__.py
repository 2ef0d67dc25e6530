"""How it is found out that a worker is ready and well: probes, the notify socket, the watchdog.

One probe is one object that is started, says what it finds, and is stopped; what is off costs nothing. May import `schemas` and
`actors.process`.
"""

from actors.probes._make import make_probe
from actors.probes._notify import Notice, NotifySocket, read_notice
from actors.probes._probe import MAX_TEXT, OnResult, Probe
from actors.probes._watchdog import Watchdog

__all__ = ["MAX_TEXT", "Notice", "NotifySocket", "OnResult", "Probe", "Watchdog", "make_probe", "read_notice"]
