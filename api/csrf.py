"""CSRF tokens without a store: an HMAC over whom it is for and when it ends, so that they survive a restart."""

import hashlib
import hmac
import re
from datetime import UTC, datetime

from msgspec import Struct

LIFETIME = 12 * 3600
"""Seconds."""

_TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


class CsrfTokens(Struct, frozen=True):
    """Issues and verifies under `key` (32 secret bytes). `subject` names the session or identity it is bound to."""

    key: bytes

    def issue(self, subject: str, now: datetime) -> tuple[str, datetime]:
        """A token for `subject`, and when it ends."""
        expires = int(now.timestamp()) + LIFETIME
        return f"{expires}.{self._seal(subject, expires)}", datetime.fromtimestamp(expires, UTC)

    def verify(self, token: str, subject: str, now: datetime) -> bool:
        """Whether `token` was issued for `subject` under this key, and has not ended."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return False
        expires = int(match[1])
        genuine = hmac.compare_digest(self._seal(subject, expires), match[2])
        return genuine and now.timestamp() < expires

    def _seal(self, subject: str, expires: int) -> str:
        # The first part keeps it apart from anything else that is ever sealed under the same key.
        message = f"tars-csrf-v1\n{expires}\n{subject}".encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()
