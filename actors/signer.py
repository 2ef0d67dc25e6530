"""The signer: the only holder of the private key while the supervisor runs."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from tars_config import wire

from actors.runtime import Actor

logger = logging.getLogger(__name__)

# Two signatures are at least this far apart, so that the digits below can tell one run of the clock from another.
_SLOT = timedelta(microseconds=100)
_RUNS = 99
# Readers take what is at most 5 minutes ahead of their clock; the rest is for theirs to differ from ours.
_LARGEST_LEAD = timedelta(minutes=4, seconds=50)
_START_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class Unsigned(Struct, frozen=True):
    """One service's configuration as it goes on the wire, but for signature and time.

    `config_canonical` is its canonical JSON, and `checksum` the hex SHA-256 of that.
    """

    service: str
    config_canonical: bytes
    checksum: str
    version: int
    config_epoch: str


class IssueTimes:
    """Gives `issued_at`: the present, to 100 microseconds, later each time, and never the same twice.

    Readers compare it in two ways. It has to be fresh by their clock, whatever the epoch; and an update of
    another epoch has to be later than any before. So when the clock steps back by less than a reader forgives,
    times go on rising ahead of it until it has caught up. When it steps back further, that would make readers
    refuse everything as being from the future, so times follow the clock back (a reader's ratchet, too, forgets
    what is more than 5 minutes ahead of its clock). A slot of time that comes up again then differs in its last
    two digits, which name the run of the clock; they are never `00`, so whole seconds, which have another
    spelling, do not occur.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._last = 0
        self._run = 0

    def next(self) -> datetime:
        slot = self._clock_ns() // (_SLOT // timedelta(microseconds=1) * 1000)
        if slot <= self._last:
            lead = (self._last - slot) * _SLOT
            if lead < _LARGEST_LEAD:
                slot = self._last + 1
            else:
                self._run += 1
                logger.warning("the clock stepped back by %s: signatures follow it", lead)
        self._last = slot
        return _START_OF_TIME + slot * _SLOT + timedelta(microseconds=1 + self._run % _RUNS)


class SignerActor(Actor):
    """Signs configuration updates and control signals with Ed25519 (RFC 8032).

    One takes some 50 microseconds, so it is done on the loop.
    """

    def __init__(self, private_key: Ed25519PrivateKey, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__()
        self._key = private_key
        self._times = IssueTimes(clock_ns)

    def sign(self, unsigned: Unsigned) -> bytes:
        """Give the encoded update, signed now.

        Raises:
            ValueError: a field that no reader would accept, such as a config over 256 KiB.
        """
        return wire.encode_signed(
            self._key,
            service=unsigned.service,
            config_canonical=unsigned.config_canonical,
            config_checksum=unsigned.checksum,
            version=unsigned.version,
            config_epoch=unsigned.config_epoch,
            issued_at=self._times.next(),
        )

    def sign_control(self, service: str, command: str, reason: str, config_epoch: str, version: int) -> bytes:
        """Give the encoded control signal, signed now. `config_epoch` and `version` are those wanted of the worker.

        Raises:
            ValueError: a field that no reader would accept, such as a reason over 500 characters.
        """
        from tars_config import control  # noqa: PLC0415 - hardly ever needed, and it takes a start 2 ms

        signal = control.sign(
            self._key,
            service=service,
            command=command,
            reason=reason,
            config_epoch=config_epoch,
            version=version,
            issued_at=self._times.next(),
        )
        return signal.encode()
