"""Why an actor ended."""

from enum import Enum

from msgspec import Struct


class Ending(Enum):
    """How an actor came to its end."""

    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Exit(Struct, frozen=True):
    """Why an actor ended: told to its supervisor exactly once."""

    ending: Ending
    error: BaseException | None = None

    def __str__(self) -> str:
        if self.error is None:
            return self.ending.value
        # Some errors have no words, such as that of a deadline.
        words = str(self.error)
        return f"{self.ending.value}: {type(self.error).__name__}{words and f': {words}'}"
