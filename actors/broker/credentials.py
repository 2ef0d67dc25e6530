"""The broker's passwords: made once, kept in the runtime folder, the same across restarts of anything."""

import os
import re
import secrets
from pathlib import Path

READ_ONLY_FILE = 0o400

_PASSWORD = re.compile(rb"[A-Za-z0-9_-]{43}")


class Credentials:
    """One file for each user, mode 0400. Blocks for a small file: meant for the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}

    def password(self, user: str) -> str:
        """Give the user's password, 256 random bits; make it where there is none. Raises OSError."""
        known = self._known.get(user)
        if known is None:
            known = self._known[user] = self._read(user) or self._make(user)
        return known

    def _read(self, user: str) -> str | None:
        try:
            password = (self._folder / user).read_bytes()
        except FileNotFoundError:
            return None
        # One that was cut short, or edited, is made anew: it has to fit into a URL, too.
        return password.decode() if _PASSWORD.fullmatch(password) else None

    def _make(self, user: str) -> str:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_urlsafe(32)
        partial = self._folder / f".{user}"
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, READ_ONLY_FILE)
        try:
            os.write(descriptor, password.encode())
        finally:
            os.close(descriptor)
        partial.rename(self._folder / user)
        return password
