"""The last defence against a secret in a log: known strings are struck out of every finished line."""

import base64
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote

import orjson

MASK = b"********"
_ESCAPE = rb"\\(?:u[0-9a-fA-F]{4}|.)"
# Bytes that are compared at a time.
_PIECE = 8
SHORTEST = 6
"""Shorter strings, in characters, are not struck out: lines would become unreadable, and tell by that."""


class Redactor:
    """Knows secrets and their usual encodings. Any thread may add to it and use it at any time."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        # Replaced as a whole, so that `clean` needs no lock.
        self._known = _Known(())
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Strike these out too, from the next line on."""
        new = {form for secret in secrets for form in _forms(secret)}
        with self._lock:
            self._known = _Known(new.union(self._known.forms))

    def clean(self, line: bytes) -> bytes:
        """The line without any of the secrets. A JSON text stays one: the mask needs no escaping."""
        known = self._known
        return known.struck_out(line) if known.may_be_in(line) else line


class _Known:
    """A set of forms, and how to find them. Nearly every line holds none, and that is found out fast."""

    def __init__(self, forms: Iterable[bytes]) -> None:
        # The longest first: one secret may contain another.
        self.forms = tuple(sorted(forms, key=len, reverse=True))
        self._pattern = re.compile(b"(%b)|%b" % (b"|".join(map(re.escape, self.forms)), _ESCAPE))
        # Pieces of a line, one for each step, of which a long form that stands anywhere in it must fill at least one. So a
        # few pieces are looked up, instead of each of the forms being searched for.
        long = [form for form in self.forms if len(form) >= 2 * _PIECE]
        self._short = tuple(form for form in self.forms if len(form) < 2 * _PIECE)
        self._step = min(map(len, long), default=2**31) - _PIECE + 1
        self._pieces = frozenset(form[at : at + _PIECE] for form in long for at in range(len(form) - _PIECE + 1))

    def may_be_in(self, line: bytes) -> bool:
        """False where `line` holds none of the forms."""
        pieces = [line[at : at + _PIECE] for at in range(0, len(line), self._step)]
        return not self._pieces.isdisjoint(pieces) or any(form in line for form in self._short)

    def struck_out(self, line: bytes) -> bytes:
        if not any(form in line for form in self.forms):
            return line
        if line.startswith(b"{"):
            # In JSON a secret of digits may seem to begin inside an escape such as \u0010: pass over that as a whole.
            return self._pattern.sub(lambda match: MASK if match[1] is not None else match[0], line)
        for form in self.forms:
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
