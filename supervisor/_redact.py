"""The last defence against a secret in a log: known strings are struck out of every finished line."""

import base64
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote

import orjson

MASK = b"********"
_ESCAPE = rb"\\(?:u[0-9a-fA-F]{4}|.)"
SHORTEST = 6
"""Shorter strings, in characters, are not struck out: lines would become unreadable, and tell by that."""


class Redactor:
    """Knows secrets and their usual encodings. Any thread may add to it and use it at any time."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        # Replaced as a whole, so that `clean` needs no lock. The longest first: one secret may contain another.
        self._forms: tuple[bytes, ...] = ()
        self._pattern: re.Pattern[bytes] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Strike these out too, from the next line on."""
        new = {form for secret in secrets for form in _forms(secret)}
        with self._lock:
            forms = tuple(sorted(new.union(self._forms), key=len, reverse=True))
            self._pattern = re.compile(b"(%b)|%b" % (b"|".join(map(re.escape, forms)), _ESCAPE)) if forms else None
            self._forms = forms

    def clean(self, line: bytes) -> bytes:
        """The line without any of the secrets. A JSON text stays one: the mask needs no escaping."""
        pattern = self._pattern
        if pattern is None or not any(form in line for form in self._forms):
            return line
        if line.startswith(b"{"):
            # In JSON a secret of digits may seem to begin inside an escape such as \u0010: pass over that as a whole.
            return pattern.sub(lambda match: MASK if match[1] is not None else match[0], line)
        for form in self._forms:
            line = line.replace(form, MASK)
        return line


def _forms(secret: str) -> set[bytes]:
    """The secret as it is, and as JSON, `repr`, base64, hex and a URL would show it."""
    raw = secret.encode("utf-8", "replace")
    if len(secret) < SHORTEST:
        return set()
    shown = repr(secret)[1:-1].encode("utf-8", "replace").decode()
    forms = {
        raw,
        orjson.dumps(raw.decode())[1:-1],
        shown.encode(),
        orjson.dumps(shown)[1:-1],
        base64.b64encode(raw),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        raw.hex().upper().encode(),
        quote(raw, safe="").encode(),
        quote(raw).encode(),
    }
    if "\n" in secret:
        # A traceback or a tool may show a PEM line by line. Its armour is no secret.
        for line in secret.splitlines():
            if len(line) >= 20 and not line.startswith("-----"):
                forms |= _forms(line)
    return forms
