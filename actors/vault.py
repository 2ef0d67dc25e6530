"""Sealing of secrets at rest: AES-256-GCM under the master key (NIST SP 800-38D)."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.records import SealedSecret

NONCE_SIZE = 12


class Unsealable(Exception):
    """A stored secret cannot be opened: another master key, or the row was changed."""


class Vault:
    """Seals and opens secrets. A ciphertext is bound to its service, key and master key by the associated data."""

    def __init__(self, master_key: bytes, key_id: str) -> None:
        self._cipher = AESGCM(master_key)
        self._key_id = key_id

    def __repr__(self) -> str:
        return f"<Vault {self._key_id}>"

    def seal(self, service: str, key: str, value: str) -> SealedSecret:
        nonce = os.urandom(NONCE_SIZE)
        sealed = self._cipher.encrypt(nonce, value.encode(), _bound_to(service, key, self._key_id))
        return SealedSecret(ciphertext=sealed, nonce=nonce, key_id=self._key_id)

    def open(self, service: str, key: str, sealed: SealedSecret) -> str:
        """Give the secret back.

        Raises:
            Unsealable: see there; the message names service, key and key id, never the value.
        """
        if sealed.key_id != self._key_id:
            raise Unsealable(
                f"the secret {service}/{key} is sealed under master key {sealed.key_id!r}, and only {self._key_id!r} is here"
            )
        try:
            return self._cipher.decrypt(
                sealed.nonce, sealed.ciphertext, _bound_to(service, key, sealed.key_id)
            ).decode()
        except (InvalidTag, ValueError):
            # ValueError: a nonce of no possible size, so a changed row too.
            raise Unsealable(
                f"the secret {service}/{key} does not open under master key {sealed.key_id!r}: wrong key, or a changed row"
            ) from None


def _bound_to(service: str, key: str, key_id: str) -> bytes:
    return f"{service}|{key}|{key_id}".encode()
