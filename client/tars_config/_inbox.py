"""Judging updates as they arrive, and keeping the newest that waits."""

import logging
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from typing import TypeAlias

from tars_config import ratchet, wire
from tars_config._sources import verify_with
from tars_config.keys import TrustedKeys
from tars_config.ratchet import Ratchet, Verdict
from tars_config.wire import SignedUpdate

Identity: TypeAlias = tuple[str, int, str]

_log = logging.getLogger(__name__)


def identity(update: SignedUpdate) -> Identity:
    """Epoch, version, checksum: what makes two updates the same."""
    return (update.config_epoch, update.version, update.checksum)


class Arrival(Enum):
    """What became of a valid update."""

    WAITS = "waits"
    REPEAT = "repeat"
    """What is in force, or waits already, once more."""
    FAILED_BEFORE = "failed before"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An update and when it came: it may wait long for its turn without becoming stale."""

    update: SignedUpdate
    received_at: datetime


class Inbox:
    """The ratchet in memory, the newest update that waits, and the one that is being applied.

    Plain state of one event loop, without awaits: whoever applies calls `take`, then `succeeded` or `failed`.
    """

    def __init__(self, service: str, keys: TrustedKeys) -> None:
        self._service = service
        self._keys = keys
        self._waiting: Waiting | None = None
        self._applying: SignedUpdate | None = None
        self._failed: Identity | None = None
        self.ratchet: Ratchet | None = None
        self.in_force: Identity | None = None

    @property
    def waiting(self) -> bool:
        return self._waiting is not None

    def accept(self, payload: bytes, now: datetime) -> Arrival:
        """Judge one message; keep it if it is news.

        It is judged as if what waits were applied already, so that an older one cannot take its place.

        Raises:
            Refused: it must not be applied.
        """
        update = wire.decode(payload)
        verify_with(partial(wire.verify, update), self._keys)
        if self.ratchet is not None:
            self.ratchet = ratchet.clamped(self.ratchet, now)
        ahead, queued = self.ratchet, False
        for earlier in (self._applying, self._waiting.update if self._waiting else None):
            if earlier is not None:
                ahead, queued = ratchet.advanced(ahead, earlier), True
        verdict = ratchet.judge(ahead, update, service=self._service, now=now)
        if identity(update) == self._failed:
            return Arrival.FAILED_BEFORE
        if verdict is Verdict.REPEAT and queued:
            return Arrival.REPEAT
        if verdict is Verdict.REPEAT and identity(update) == self.in_force:
            # In memory only: a write for each repeat, every 2 minutes, would wear a card out.
            self.ratchet = ratchet.advanced(self.ratchet, update)
            return Arrival.REPEAT
        # A repeat that is not in force (its copy was lost) is applied like a new one.
        self._waiting = Waiting(update, now)
        return Arrival.WAITS

    def take(self) -> SignedUpdate:
        """Take what waits in order to apply it.

        Raises:
            Refused: it no longer holds, because what it was judged after has failed.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            raise RuntimeError("nothing waits")
        ratchet.judge(self.ratchet, waiting.update, service=self._service, now=waiting.received_at)
        self._applying = waiting.update
        return waiting.update

    def succeeded(self, update: SignedUpdate) -> Ratchet:
        """It is in force; gives the ratchet to be written down."""
        self.ratchet = ratchet.advanced(self.ratchet, update)
        self.in_force = identity(update)
        self._applying = self._failed = None
        return self.ratchet

    def failed(self, update: SignedUpdate) -> None:
        """It could not be applied, and is not offered again: neither the ratchet nor what is in force moves."""
        self._applying = None
        self._failed = identity(update)

    def abandoned(self) -> None:
        """Whoever was applying was cancelled: it may come again."""
        self._applying = None

    def start_from(self, state: Ratchet | None, update: SignedUpdate | None, *, snapshot: bool) -> None:
        """Begin with the ratchet from disk and the signed configuration that was loaded, if any."""
        self.ratchet = state
        if update is None:
            return
        self.in_force = identity(update)
        if snapshot:
            self.ratchet = ratchet.reset_to(state, update)
        elif _is_ahead(update, state):
            # A crash came between copy and ratchet, or the ratchet was damaged.
            self.ratchet = ratchet.advanced(state, update)


def _is_ahead(copy: SignedUpdate, state: Ratchet | None) -> bool:
    if state is None:
        return True
    if copy.config_epoch == state.config_epoch:
        return copy.version > state.version
    return copy.config_epoch not in state.left and copy.issued_at > state.issued_at
