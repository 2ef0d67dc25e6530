"""The ratchet: which updates a reader still accepts, and its file.

The rules are pure functions over a frozen state. They hold after a signature was verified, never instead of it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final

from tars_config._sealed import SealedFile
from tars_config.wire import Reason, Refused, SignedUpdate

WINDOW: Final = timedelta(minutes=5)
"""How far `issued_at` may be from the reader's clock, either way."""

MAX_LEFT: Final = 1000
"""How many left epochs are remembered. The oldest go first: they are also held off by their time of issue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratchet:
    """What was applied last. `issued_at` is the latest that was ever accepted, not that of this version."""

    config_epoch: str
    version: int
    checksum: str
    issued_at: datetime
    left: tuple[str, ...] = ()


class Verdict(Enum):
    APPLY = "apply"
    REPEAT = "repeat"
    """The applied version once more, such as re-signed: nothing to do."""


def judge(ratchet: Ratchet | None, update: SignedUpdate, *, service: str, now: datetime) -> Verdict:
    """Decide on a verified update. `ratchet` is None before the first one; hand it through `clamped` first.

    Raises:
        Refused: `wrong_service`, `stale`, `future`, `conflict`, `downgraded`, `left_epoch` or `replayed`.
    """
    check_meant(update.service, update.issued_at, service=service, now=now)
    if ratchet is None:
        return Verdict.APPLY
    if update.config_epoch == ratchet.config_epoch:
        return _judge_version(ratchet, update)
    if update.config_epoch in ratchet.left:
        raise Refused(Reason.LEFT_EPOCH, f"epoch {update.config_epoch} was left before")
    if update.issued_at <= ratchet.issued_at:
        raise Refused(
            Reason.REPLAYED,
            f"another epoch, issued at {update.issued_at.isoformat()}, which is not later than the last accepted",
        )
    return Verdict.APPLY


def check_meant(meant_for: str, issued_at: datetime, *, service: str, now: datetime) -> None:
    """Check that a message is for this service and fresh.

    Raises:
        Refused: `wrong_service`, `stale` or `future`.
    """
    if meant_for != service:
        raise Refused(Reason.WRONG_SERVICE, f"it is for {meant_for}, this is {service}")
    if now - issued_at > WINDOW:
        raise Refused(Reason.STALE, f"issued at {issued_at.isoformat()}, more than 5 minutes ago")
    if issued_at - now > WINDOW:
        raise Refused(Reason.FUTURE, f"issued at {issued_at.isoformat()}, more than 5 minutes ahead")


def _judge_version(ratchet: Ratchet, update: SignedUpdate) -> Verdict:
    if update.version > ratchet.version:
        return Verdict.APPLY
    if update.version < ratchet.version:
        raise Refused(Reason.DOWNGRADED, f"version {update.version} after {ratchet.version}")
    if update.checksum != ratchet.checksum:
        raise Refused(Reason.CONFLICT, f"version {update.version} was applied with another content")
    return Verdict.REPEAT


def clamped(ratchet: Ratchet, now: datetime) -> Ratchet:
    """Count a remembered time more than 5 minutes ahead of the clock as now.

    A clock that once ran ahead must not lock a reader out of new epochs until that time comes.
    """
    return replace(ratchet, issued_at=now) if ratchet.issued_at - now > WINDOW else ratchet


def advanced(ratchet: Ratchet | None, update: SignedUpdate) -> Ratchet:
    """Give the state after an update that `judge` accepted, as `APPLY` or as `REPEAT`."""
    return _moved(ratchet, update)


def reset_to(ratchet: Ratchet | None, snapshot: SignedUpdate) -> Ratchet:
    """Give the state after a snapshot, which sets the ratchet, also backwards, also to an epoch that was left.

    The latest accepted time stays: a snapshot may be old, and what was refused before it is to stay refused.
    """
    return _moved(ratchet, snapshot)


def _moved(ratchet: Ratchet | None, update: SignedUpdate) -> Ratchet:
    issued_at = update.issued_at
    left: tuple[str, ...] = ()
    if ratchet is not None:
        issued_at = max(ratchet.issued_at, update.issued_at)
        left = ratchet.left
        if ratchet.config_epoch != update.config_epoch:
            left = (*(epoch for epoch in left if epoch != update.config_epoch), ratchet.config_epoch)[-MAX_LEFT:]
    return Ratchet(
        config_epoch=update.config_epoch,
        version=update.version,
        checksum=update.checksum,
        issued_at=issued_at,
        left=left,
    )


class RatchetFile:
    """The ratchet on disk."""

    def __init__(self, path: Path, service: str) -> None:
        self._file = SealedFile(
            path,
            service,
            name="ratchet",
            without_it="until the next update, one that is at most 5 minutes old could be replayed",
        )

    def load(self) -> Ratchet | None:
        """Read the ratchet; None where there is none or it is damaged, which is logged."""
        return self._file.load(_parsed)

    def store(self, ratchet: Ratchet) -> None:
        """Write the ratchet durably.

        Raises:
            OSError: such as a full disk; the file is as before.
        """
        self._file.store(
            {
                "config_epoch": ratchet.config_epoch,
                "version": ratchet.version,
                "checksum": ratchet.checksum,
                "issued_at": ratchet.issued_at.isoformat(),
                "left": list(ratchet.left),
            }
        )


def _parsed(body: dict[str, Any]) -> Ratchet:
    issued_at = datetime.fromisoformat(body["issued_at"])
    if issued_at.tzinfo is None:
        raise ValueError("its time has no zone")
    return Ratchet(
        config_epoch=str(body["config_epoch"]),
        version=int(body["version"]),
        checksum=str(body["checksum"]),
        issued_at=issued_at,
        left=tuple(str(epoch) for epoch in body["left"]),
    )
