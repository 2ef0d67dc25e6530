"""What workers import: typed configuration from signed updates, and the wire format.

Knows nothing of the supervisor; imports pydantic, orjson, cryptography and aiomqtt only.
`tars_config.wire`, `.keys`, `.ratchet` and `.reports` are public too; `.testing` helps a worker's own tests.
"""

from tars_config._broker import BrokerAddress
from tars_config._callbacks import Callback, RestartRequired
from tars_config._surroundings import Surroundings, SurroundingsError
from tars_config._values import ConfigInvalid, Source
from tars_config.library import ConfigLibrary
from tars_config.reports import AppliedReport, WorkerHealth
from tars_config.wire import Reason, Refused, SignedUpdate

__version__ = "0.1.0"

__all__ = [
    "AppliedReport",
    "BrokerAddress",
    "Callback",
    "ConfigInvalid",
    "ConfigLibrary",
    "Reason",
    "Refused",
    "RestartRequired",
    "SignedUpdate",
    "Source",
    "Surroundings",
    "SurroundingsError",
    "WorkerHealth",
]
