"""What the bridge tells about its connection."""

import enum
from datetime import datetime

from msgspec import Struct


class Trouble(enum.StrEnum):
    """Why there is no connection."""

    NO_ADDRESS = "no-address"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    LOGIN_REFUSED = "login-refused"
    TLS = "tls"
    SILENT = "silent"
    CLOSED = "closed"
    PROTOCOL = "protocol"
    INTERNAL = "internal"


class Failure(Struct, frozen=True):
    """The last failure, for people: `reason` names the broker and what to do, never the password."""

    trouble: Trouble
    reason: str
    at: datetime


class BridgeState(Struct, frozen=True):
    """The bridge at one moment.

    `since`: when it became connected, or ceased to be (UTC). `failure`: the last one, also after it was mended.
    `pending`: retained values that the broker has not acknowledged. `queued`: messages of `send` that wait.
    `dropped`: how many of those were given up because too many waited, since the start.
    """

    connected: bool
    since: datetime
    broker: str
    failure: Failure | None
    pending: int
    queued: int
    dropped: int


class LinkFailed(Exception):
    """A connection that could not be made, or has ended. The text is for people."""

    def __init__(self, trouble: Trouble, reason: str) -> None:
        super().__init__(reason)
        self.trouble = trouble
        self.reason = reason
