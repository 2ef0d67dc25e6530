"""One managed service: its settings and its worker, in one actor.

May import the other rooms of `actors`, `schemas` and `tars_config`. The rules of a change are in `_decision`, the life of
a process in `_worker`, and what a process is given in `_environment` and `_files`.
"""

from actors.service._actor import ServiceActor
from actors.service._decision import OnWire, on_wire
from actors.service._surroundings import Surroundings

__all__ = ["OnWire", "ServiceActor", "Surroundings", "on_wire"]
