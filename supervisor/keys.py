"""The supervisor's keys: where they come from, that they fit together, and making them on the first run.

Contract, sections 6 and 7. A key is taken from the first of: its variable (or the `_B64` form), the file that
SIGNING_KEY_PATH or ENCRYPTION_KEY_PATH names, a file in one of the folders searched.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import SecretStr

from supervisor._key_files import KeyFiles
from supervisor.settings import Settings

SEARCH = (Path("/run/secrets"), Path("/etc/tars/secrets"))
"""Folders searched for key files after CREDENTIALS_DIRECTORY."""

PRIVATE_FILE_NAME = "signature_private_key.pem"
PUBLIC_FILE_NAME = "signature_public_key.pem"
MASTER_FILE_NAME = "config_master_key_base64"
HMAC_FILE_NAME = "lkg_hmac_key_base64"


class KeysRefused(Exception):
    """The keys cannot be used. `lines`: one sentence for each mistake. Never holds a key."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, eq=False)
class Keys:
    """Master key (AES-256-GCM of secrets), HMAC key (of the LKG file), signing pair (Ed25519)."""

    master: bytes = field(repr=False)
    master_id: str
    hmac: bytes = field(repr=False)
    hmac_id: str
    signing_private: Ed25519PrivateKey = field(repr=False)
    signing_public: Ed25519PublicKey = field(repr=False)
    master_previous: bytes | None = field(default=None, repr=False)
    master_previous_id: str | None = None

    def secret_values(self) -> list[str]:
        """Each key in the forms in which a careless line could show it."""
        private = self.signing_private.private_bytes_raw()
        keys = [self.master, self.hmac, private]
        if self.master_previous is not None:
            keys.append(self.master_previous)
        return [base64.b64encode(key).decode() for key in keys] + [private_pem(self.signing_private)]


@dataclass(frozen=True)
class FoundKeys:
    """What was found before the first run has filled the gaps. `missing` names the variables to set."""

    master: bytes | None = field(default=None, repr=False)
    hmac: bytes | None = field(default=None, repr=False)
    signing_private: Ed25519PrivateKey | None = field(default=None, repr=False)
    signing_public: Ed25519PublicKey | None = field(default=None, repr=False)

    @property
    def missing(self) -> tuple[str, ...]:
        names = {
            "CONFIG_MASTER_KEY_BASE64": self.master,
            "LKG_HMAC_KEY_BASE64": self.hmac,
            "CONFIG_SIGNATURE_PRIVATE_KEY": self.signing_private,
        }
        return tuple(name for name, key in names.items() if key is None)


def find_keys(settings: Settings, search: Sequence[Path] = SEARCH) -> FoundKeys:
    """Collect the keys that there are; changes nothing.

    Raises KeysRefused where one is malformed, readable by everybody, or private and public do not match.
    """
    own = settings.credentials_directory
    files = KeyFiles(settings.sources, [*([own] if own else []), *search])
    master = settings.master_key.get_secret_value() if settings.master_key else None
    if master is None:
        master = files.key("ENCRYPTION_KEY_PATH", settings.encryption_key_path, MASTER_FILE_NAME)
    hmac = settings.lkg_hmac_key.get_secret_value() if settings.lkg_hmac_key else None
    if hmac is None:
        hmac = files.key(None, None, HMAC_FILE_NAME)
    private, public, mistakes = _signing_pair(settings, files)
    if files.mistakes or mistakes:
        raise KeysRefused([*files.mistakes, *mistakes])
    return FoundKeys(master, hmac, private, public)


def _signing_pair(
    settings: Settings, files: KeyFiles
) -> tuple[Ed25519PrivateKey | None, Ed25519PublicKey | None, list[str]]:
    """The pair, and what is wrong with it. A public key that is not given follows from the private one."""
    private_text, private_source = _from_variable(
        settings, "CONFIG_SIGNATURE_PRIVATE_KEY", settings.signature_private_key
    )
    if private_text is None:
        private_text, private_source = files.text(
            "SIGNING_KEY_PATH", settings.signing_key_path, PRIVATE_FILE_NAME, secret=True
        )
    public_text, public_source = _from_variable(settings, "CONFIG_SIGNATURE_PUBLIC_KEY", settings.signature_public_key)
    if public_text is None:
        public_text, public_source = files.text(None, None, PUBLIC_FILE_NAME, secret=False)
    private = None if private_text is None else _parse_private(private_text)
    public = None if public_text is None else _parse_public(public_text)
    mistakes = []
    if private_text is not None and private is None:
        mistakes.append(
            f"{private_source} is no Ed25519 private key in PEM without a passphrase; "
            "make one with: openssl genpkey -algorithm ed25519"
        )
    if public_text is not None and public is None:
        mistakes.append(
            f"{public_source} is no Ed25519 public key in PEM; leave it out, or write what "
            "`openssl pkey -pubout` makes of the private key"
        )
    if private is not None and public is not None and private.public_key() != public:
        mistakes.append(
            f"{public_source} is not the public half of {private_source}; leave the public key out, "
            "or write what `openssl pkey -pubout` makes of the private key"
        )
    if public_text is not None and private_text is None and not files.mistakes:
        mistakes.append(
            f"{public_source} is set without a private key; set CONFIG_SIGNATURE_PRIVATE_KEY too, or neither"
        )
    if private is not None and public is None:
        public = private.public_key()
    return private, public, mistakes


def _from_variable(settings: Settings, name: str, value: SecretStr | str | None) -> tuple[str | None, str]:
    """The PEM text, and where it stands as the beginning of a sentence."""
    if value is None:
        return None, ""
    chosen = name if name in settings.sources else f"{name}_B64"
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return text, f"{settings.sources[chosen]}: {chosen}"


def put_together(settings: Settings, found: FoundKeys) -> Keys:
    """The whole set, of which nothing may be missing."""
    assert found.master is not None
    assert found.hmac is not None
    assert found.signing_private is not None
    assert found.signing_public is not None
    previous = settings.master_key_previous
    return Keys(
        master=found.master,
        master_id=settings.master_key_id,
        hmac=found.hmac,
        hmac_id=settings.lkg_hmac_key_id,
        signing_private=found.signing_private,
        signing_public=found.signing_public,
        master_previous=previous.get_secret_value() if previous else None,
        master_previous_id=settings.master_key_previous_id,
    )


def private_pem(key: Ed25519PrivateKey) -> str:
    """PKCS #8 in PEM, without a passphrase (RFC 8410)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_pem(key: Ed25519PublicKey) -> str:
    """SubjectPublicKeyInfo in PEM (RFC 8410)."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _parse_private(text: str) -> Ed25519PrivateKey | None:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def _parse_public(text: str) -> Ed25519PublicKey | None:
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None
