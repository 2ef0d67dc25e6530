"""One managed service: its settings and its worker, in one actor.

May import the other rooms of `actors`, `schemas` and `tars_config`. The rules of a change are in `_decision`; the life of a
worker is in `_lifecycle`, and `_runner` does what it says; what a process is given is in `_spawning` and `_files`. What all
services share (the order of starts, commands to several, changes of several) is in `_fleet`, `_command` and `_group`.
"""

from actors.service._actor import ServiceActor
from actors.service._command import Commands
from actors.service._decision import OnWire, on_wire
from actors.service._fleet import Fleet
from actors.service._group import change_together
from actors.service._profiles import Profiles
from actors.service._restore import Restorer
from actors.service._start_order import waves
from actors.service._surroundings import Surroundings

__all__ = [
    "Commands",
    "Fleet",
    "OnWire",
    "Profiles",
    "Restorer",
    "ServiceActor",
    "Surroundings",
    "change_together",
    "on_wire",
    "waves",
]
