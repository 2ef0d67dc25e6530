"""Who does things: one mailbox each.

May import `schemas` and `tars_config`. What is exported here is all that `api` sees. It is looked up at first use, because
the broker's process, which lives in this folder too, must not pay for the rest of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.board import Board, ServiceView
    from actors.runtime import OutcomeUnknown, Rejected

__all__ = ["Board", "OutcomeUnknown", "Rejected", "ServiceView"]

_HOMES = {
    "Board": "actors.board",
    "OutcomeUnknown": "actors.runtime",
    "Rejected": "actors.runtime",
    "ServiceView": "actors.board",
}


def __getattr__(name: str) -> Any:
    """Import an exported name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
