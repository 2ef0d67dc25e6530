"""Trusted public keys, from PEM files (RFC 7468)."""

import logging
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tars_config._files import read_bounded

MAX_KEY_FILE_BYTES = 64 * 1024
MAX_KEYS = 64

_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)

_log = logging.getLogger(__name__)


class KeysUnusable(ValueError):
    """The text holds no usable set of keys; the message says why."""


def parse_public_keys(pem: bytes) -> tuple[Ed25519PublicKey, ...]:
    """Give every public key of a PEM text, in order; anything between the blocks is ignored.

    Raises:
        KeysUnusable: none, too many, or one that is damaged or not Ed25519.
    """
    blocks = _BLOCK.findall(pem[: MAX_KEY_FILE_BYTES + 1])
    if not blocks:
        raise KeysUnusable("no 'BEGIN PUBLIC KEY' block")
    if len(blocks) > MAX_KEYS:
        raise KeysUnusable(f"{len(blocks)} keys, at most {MAX_KEYS} are read")
    keys = []
    for number, block in enumerate(blocks, start=1):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeysUnusable(f"key {number} cannot be read: {error}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeysUnusable(f"key {number} is not an Ed25519 key")
        keys.append(key)
    return tuple(keys)


def load_public_keys(path: Path) -> tuple[Ed25519PublicKey, ...]:
    """Read every public key of a PEM file of at most 64 KiB and 64 keys.

    Raises:
        KeysUnusable: the message names the file and what is wrong.
    """
    try:
        return parse_public_keys(read_bounded(path, MAX_KEY_FILE_BYTES))
    except OSError as error:
        raise KeysUnusable(f"public keys: {error}") from None
    except KeysUnusable as error:
        raise KeysUnusable(f"public keys in {path}: {error}") from None


class TrustedKeys:
    """The keys of a file that is replaced when keys rotate.

    The file is looked at before each use and read when it has changed, so that a key which was added or withdrawn
    counts at once. While it cannot be read, the keys read last stay in force.
    """

    def __init__(self, source: Path | tuple[Ed25519PublicKey, ...] | None) -> None:
        self._path = source if isinstance(source, Path) else None
        self._keys = source if isinstance(source, tuple) else ()
        self._seen: tuple[int, ...] | None = None

    def current(self) -> tuple[Ed25519PublicKey, ...]:
        if self._path is not None:
            seen = self._look(self._path)
            if seen != self._seen:
                self._seen = seen
                self.reread()
        return self._keys

    def reread(self) -> tuple[Ed25519PublicKey, ...]:
        """Read the file whether or not it looks changed: what an unknown signature asks for."""
        if self._path is not None:
            try:
                self._keys = load_public_keys(self._path)
            except KeysUnusable as error:
                _log.warning("%s; %d known keys stay in force", error, len(self._keys))
        return self._keys

    @staticmethod
    def _look(path: Path) -> tuple[int, ...] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_size, status.st_mtime_ns)
