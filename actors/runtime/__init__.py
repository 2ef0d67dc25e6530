"""The actor runtime: Pykka's actors on one asyncio event loop, supervised as in OTP.

Everything that others need is exported here; no other room knows how a mailbox is drained. Imports nothing of this project.
"""

from actors.runtime._actor import Actor
from actors.runtime._batch import Call, batched
from actors.runtime._exit import Ending, Exit
from actors.runtime._future import LoopFuture
from actors.runtime._ref import Ref
from actors.runtime.errors import (
    ActorDied,
    ActorDown,
    AskCycle,
    AskTimeout,
    BlockingOnLoop,
    Expired,
    Foreseen,
    MailboxFull,
    OutcomeUnknown,
    Rejected,
)
from actors.runtime.handle import Handle
from actors.runtime.policy import Backoff, ChildSpec, Escalation, Intensity, Restart, Strategy
from actors.runtime.supervision import Supervisor

__all__ = [
    "Actor",
    "ActorDied",
    "ActorDown",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "BlockingOnLoop",
    "Call",
    "ChildSpec",
    "Ending",
    "Escalation",
    "Exit",
    "Expired",
    "Foreseen",
    "Handle",
    "Intensity",
    "LoopFuture",
    "MailboxFull",
    "OutcomeUnknown",
    "Ref",
    "Rejected",
    "Restart",
    "Strategy",
    "Supervisor",
    "batched",
]
