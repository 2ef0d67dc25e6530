"""What workers import: typed configuration from signed updates, and the wire format.

Knows nothing of the supervisor; imports pydantic, orjson, cryptography and aiomqtt only.
`tars_config.wire`, `.control`, `.keys`, `.ratchet` and `.reports` are public too; `.testing` helps a worker's own tests.
What stands here is looked up at first use, for whoever needs the wire format alone must not pay for the library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tars_config._broker import BrokerAddress
    from tars_config._callbacks import Callback, RestartRequired
    from tars_config._ending import RESTART_EXIT_CODE
    from tars_config._surroundings import Surroundings, SurroundingsError
    from tars_config._values import ConfigInvalid, Source
    from tars_config.control import ControlSignal
    from tars_config.library import ConfigLibrary
    from tars_config.reports import AppliedReport, WorkerHealth
    from tars_config.wire import Reason, Refused, SignedUpdate

__version__ = "0.1.0"

__all__ = [
    "RESTART_EXIT_CODE",
    "AppliedReport",
    "BrokerAddress",
    "Callback",
    "ConfigInvalid",
    "ConfigLibrary",
    "ControlSignal",
    "Reason",
    "Refused",
    "RestartRequired",
    "SignedUpdate",
    "Source",
    "Surroundings",
    "SurroundingsError",
    "WorkerHealth",
]

_HOMES = {
    "RESTART_EXIT_CODE": "_ending",
    "AppliedReport": "reports",
    "BrokerAddress": "_broker",
    "Callback": "_callbacks",
    "ConfigInvalid": "_values",
    "ConfigLibrary": "library",
    "ControlSignal": "control",
    "Reason": "wire",
    "Refused": "wire",
    "RestartRequired": "_callbacks",
    "SignedUpdate": "wire",
    "Source": "_values",
    "Surroundings": "_surroundings",
    "SurroundingsError": "_surroundings",
    "WorkerHealth": "reports",
}
_MODULES = frozenset({"control", "keys", "ratchet", "reports", "wire"})


def __getattr__(name: str) -> Any:
    """Import an exported name from its home, or a public module (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"tars_config.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tars_config.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Tell the names to whoever completes them."""
    return sorted({*globals(), *__all__, *_MODULES})
