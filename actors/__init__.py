"""Who does things: one mailbox each.

May import `schemas` and `tars_config`. What is exported here is all that `api` sees. It is looked up at first use, because
the broker's process, which lives in this folder too, must not pay for the rest of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.board import Board, Representation, ServiceView
    from actors.events import Events, Published, Subscription
    from actors.output import Follower, Output
    from actors.runtime import OutcomeUnknown, Rejected

__all__ = [
    "Board",
    "Events",
    "Follower",
    "OutcomeUnknown",
    "Output",
    "Published",
    "Rejected",
    "Representation",
    "ServiceView",
    "Subscription",
]

_HOMES = {
    "Board": "actors.board",
    "Events": "actors.events",
    "Follower": "actors.output",
    "OutcomeUnknown": "actors.runtime",
    "Output": "actors.output",
    "Published": "actors.events",
    "Rejected": "actors.runtime",
    "Representation": "actors.board",
    "ServiceView": "actors.board",
    "Subscription": "actors.events",
}


def __getattr__(name: str) -> Any:
    """Import an exported name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
