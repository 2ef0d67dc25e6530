"""What `run` says when everything is up: for a person at a terminal, short and readable."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.states import Lifecycle
from schemas.status import ServiceStatus

GLYPHS = {
    Lifecycle.READY: "●",
    Lifecycle.STARTING: "◌",
    Lifecycle.UNHEALTHY: "▲",
    Lifecycle.STOPPING: "◌",
    Lifecycle.BACKING_OFF: "▲",
    Lifecycle.STOPPED: "■",
    Lifecycle.WAITING: "◌",
    Lifecycle.FAILED: "✗",
    Lifecycle.EXITED: "■",
    Lifecycle.EXTERNAL: "○",
    Lifecycle.CONFIG_ONLY: "○",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """What is to be told. `token` only where it was made by this start."""

    version: str
    address: str
    data: str
    runtime: str
    keys: str
    broker: str
    look: str | None = field(repr=False)
    """A command line with which the owner looks around on the broker."""
    token: str | None = field(repr=False)
    states: Sequence[ServiceStatus]
    seconds: float

    def text(self) -> str:
        """Give the lines, the last with a line end."""
        rows = [
            ("REST", self.address),
            ("docs", f"{self.address}/docs"),
            ("data", self.data),
            ("runtime", self.runtime),
            ("keys", self.keys),
            ("broker", self.broker),
        ]
        if self.look is not None:
            rows.append(("look", self.look))
        if self.token is not None:
            rows.append(("token", f"{self.token}   (admin; made now, and kept with the keys)"))
        else:
            rows.append(("token", f"as before: CONFIG_API_TOKEN in {self.keys}, or what the environment gives"))
        lines = [f"TARS supervisor {self.version} is up after {self.seconds:.1f} s", ""]
        lines += [f"  {name:<8}{value}" for name, value in rows]
        lines.append("")
        width = max((len(state.service) for state in self.states), default=0)
        for state in self.states:
            reason = "" if state.state in {Lifecycle.READY, Lifecycle.EXTERNAL, Lifecycle.CONFIG_ONLY} else state.reason
            line = (
                f"  {GLYPHS[state.state]} {state.service:<{width}}  {state.state:<11}  version {state.desired.version}"
            )
            lines.append(f"{line}  {reason}".rstrip())
        lines += ["", "  ctrl-C ends it in order, a second ctrl-C at once.", ""]
        return "\n".join(lines)


def show(text: str) -> None:
    """Write to standard output, whole; a reader that has gone is no reason to fail."""
    data = f"\n{text}".encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        return
