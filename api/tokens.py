"""API tokens: who calls, and what they may do."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from schemas.states import PERMISSIONS, Role


class Identity(Struct, frozen=True):
    """Whoever presented a token: its name, and what it may do."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        return role in PERMISSIONS[self.role]


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is configured. `secret` is the text that a client sends."""

    name: str
    role: Role
    secret: str = field(repr=False)


class Tokens:
    """The configured tokens, as digests: neither this object nor a dump of it holds one in clear."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._known = tuple((_digest(token.secret.encode()), Identity(token.name, token.role)) for token in tokens)

    def __len__(self) -> int:
        return len(self._known)

    def identify(self, presented: bytes) -> Identity | None:
        """Whose token `presented` is.

        Every digest is compared, each in constant time, so the time taken tells nothing about any of them. The bound
        on a request's head bounds what is hashed here.
        """
        digest = _digest(presented)
        found = None
        for known, identity in self._known:
            if hmac.compare_digest(known, digest):
                found = identity
        return found


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
