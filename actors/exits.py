"""How a process ended, in words."""

import contextlib
import signal


def how_it_ended(code: int) -> str:
    """`code` is its exit status, or minus the number of the signal that killed it."""
    if code >= 0:
        return f"exited with {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
