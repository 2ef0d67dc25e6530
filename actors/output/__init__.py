"""What workers print: read without ever holding them up, made into records, kept in files and in memory, followed.

`Outputs` serves all services, `Output` one. Imports nothing else of `actors`; may import `schemas` and `tars_config`.
"""

from actors.output._follow import Follower
from actors.output._levels import Level
from actors.output._mask import MASK, Mask
from actors.output._output import Output
from actors.output._outputs import Outputs
from actors.output._record import Record, StreamName
from actors.output._ring import Ring
from actors.output._settings import OutputLimits

__all__ = [
    "MASK",
    "Follower",
    "Level",
    "Mask",
    "Output",
    "OutputLimits",
    "Outputs",
    "Record",
    "Ring",
    "StreamName",
]
