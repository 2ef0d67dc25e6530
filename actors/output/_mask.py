"""Secret values struck out of text, also as JSON, base64, hexadecimal digits and URLs write them."""

import base64
import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

import orjson

from actors.output._text import plain

MASK: Final = "********"

SHORTEST_INSIDE_WORDS: Final = 4
"""Characters from which on a secret is struck out wherever it stands; a shorter one only as a word of its own."""

SHORTEST_PART: Final = 3
"""Characters of a secret's beginning or end, at a place where text was cut, that are taken for a part of it."""


class Mask:
    """Strikes out secret values. Immutable; `adding` gives one that knows more.

    A value is found as it is, line by line where it has several, and in the encodings in which programs print one. In
    base64 it is found at any place of a longer text, such as `user:secret`.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        # A value of mask characters alone cannot be hidden by a mask.
        self._values = frozenset(value for value in values if value.strip("*"))
        # No form is shorter than the value, or the line of it, that it is a form of.
        self._shortest = min((len(part) for value in self._values for part in _parts(value)), default=0)

    # What is looked for is made when something is looked at: 8 KiB for one value, and most workers are silent.

    @functools.cached_property
    def _forms(self) -> tuple[str, ...]:
        forms = {form for value in self._values for form in _all_forms(value) if form.strip("*")}
        # The longest first: of two values that begin alike, nothing of the longer one may stay.
        return tuple(sorted(forms, key=lambda form: (-len(form), form)))

    @functools.cached_property
    def _pattern(self) -> "re.Pattern[str] | None":
        return re.compile("|".join(map(_pattern, self._forms))) if self._forms else None

    @functools.cached_property
    def _long(self) -> tuple[str, ...]:
        return tuple(form for form in self._forms if len(form) >= SHORTEST_INSIDE_WORDS)

    @functools.cached_property
    def _needles(self) -> tuple[bytes, ...]:
        return tuple(map(_in_json, self._forms))

    @functools.cached_property
    def _long_needles(self) -> tuple[bytes, ...]:
        return tuple(map(_in_json, self._long))

    def __repr__(self) -> str:
        return f"<Mask of {len(self._values)}>"

    def adding(self, values: Iterable[str]) -> "Mask":
        """Give one that strikes out these too."""
        more = self._values.union(value for value in values if value.strip("*"))
        return self if more == self._values else Mask(more)

    def clean(self, text: str) -> str:
        # Hardly ever is there one; and as long as there is none, no pattern need be kept.
        if len(text) < self._shortest or not any(form in text for form in self._forms) or self._pattern is None:
            return text
        return self._pattern.sub(MASK, text)

    def clean_part(self, text: str, *, cut_before: bool = False, cut_after: bool = False) -> str:
        """The same for text that was cut out of more: what may be a part of a secret goes, too."""
        text = self.clean(text)
        if cut_before:
            lost = max((_overlap(form, text) for form in self._long), default=0)
            text = MASK + text[lost:] if lost else text
        if cut_after:
            lost = max((_overlap(text, form) for form in self._long), default=0)
            text = text[:-lost] + MASK if lost else text
        return text

    def may_be_in(self, rendered: bytes) -> bool:
        """Whether a JSON text as orjson writes it could hold a secret in one of its strings. Fast; errs to the safe side."""
        return any(needle in rendered for needle in self._needles)

    def is_in(self, rendered: bytes) -> bool:
        """The same for secrets that are struck out wherever they stand."""
        return any(needle in rendered for needle in self._long_needles)


def _overlap(first: str, second: str) -> int:
    """Characters at the end of `first` with which `second` begins; 0 for fewer than `SHORTEST_PART`."""
    last = first[-SHORTEST_PART:]
    end = len(first)
    # Only where the last characters are found can it be: the texts may be long.
    while len(last) == SHORTEST_PART and (at := second.rfind(last, 0, end)) >= 0:
        size = at + SHORTEST_PART
        if first.endswith(second[:size]):
            return size
        end = size - 1
    return 0


def _in_json(form: str) -> bytes:
    return orjson.dumps(form.encode("utf-8", "replace").decode())[1:-1]


def _all_forms(value: str) -> Iterator[str]:
    whole = {value, plain(value)}
    for each in _parts(value):
        if each in whole:
            yield from _forms(each)
        else:
            yield each
            yield json.dumps(each)[1:-1]
            yield json.dumps(each, ensure_ascii=False)[1:-1]


def _parts(value: str) -> Iterator[str]:
    """What is looked for: the value, and its lines where it has several. A tool may show a key line by line, but encodes it as a
    whole. Its armour is no secret.
    """
    for each in {value, plain(value)}:
        yield each
        lines = each.splitlines()
        for line in lines if len(lines) > 1 else ():
            if len(line) >= SHORTEST_INSIDE_WORDS and not line.startswith("-----"):
                yield line


def _forms(value: str) -> Iterator[str]:
    yield value
    if len(value) < SHORTEST_INSIDE_WORDS:
        return
    raw = value.encode("utf-8", "replace")
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield once.replace("/", "\\/")
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield repr(value)[1:-1]
    yield repr(raw)[2:-1]
    yield raw.hex()
    yield raw.hex().upper()
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        yield whole
        yield whole.rstrip("=")
        # Inside a longer text it may begin at any of three places; the digits at both edges hold neighbours' bits, too.
        for before in range(3):
            digits = encode(bytes(before) + raw).decode()
            inner = digits[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(inner) >= SHORTEST_INSIDE_WORDS:
                yield inner


def _pattern(form: str) -> str:
    pattern = re.escape(form)
    if len(form) < SHORTEST_INSIDE_WORDS:
        return rf"(?<!\w){pattern}(?!\w)"
    return pattern
