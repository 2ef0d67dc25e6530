"""The runtime's errors: "rejected, nothing happened" and "outcome unknown" are different families.

Only a `Rejected` may be retried without looking. Where Pykka has a name for the case, the error is that too, so that code
written for Pykka catches it.
"""

import pykka


class Rejected(Exception):
    """The message was never handled: nothing happened, and asking again is safe."""


class ActorDown(Rejected, pykka.ActorDeadError):
    """The actor is not running, or ended before it came to this message."""


class MailboxFull(Rejected):
    """The actor has as many messages waiting as it may have."""


class AskCycle(Rejected):
    """The actor asked is, directly or through others, waiting for the one that asks."""


class Expired(Rejected, pykka.Timeout):
    """The deadline passed while the message was still waiting; it was withdrawn unhandled."""


class OutcomeUnknown(Exception):
    """The actor had begun: the work may have been done, in part or whole. Look before asking again."""


class AskTimeout(OutcomeUnknown, pykka.Timeout):
    """The deadline passed while the actor was at work on the message."""


class ActorDied(OutcomeUnknown, pykka.ActorDeadError):
    """The actor ended while it was at work on the message."""


class Foreseen(Exception):
    """Base of failures that are part of an actor's life, such as the end of its process.

    The message is a sentence for a person, and its supervisor tells it in one line: a traceback would lead nobody anywhere.
    """


class BlockingOnLoop(RuntimeError):
    """A blocking call on the event loop's own thread, which could never return. Await instead."""
