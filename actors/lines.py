"""A process's output as lines: bounded in length, handed over one at a time, secrets struck out before any cut."""

import re
from collections import deque
from collections.abc import Callable, Iterable

import orjson

LINE_LIMIT = 16 * 1024
"""Bytes of output taken as one line; a longer one is cut into several."""

MASK = b"********"

SHORTEST_INSIDE_WORDS = 4
"""Characters from which on a secret is struck out wherever it stands; a shorter one only as a word of its own."""


class Mask:
    """Strikes out secret values, in one pass over the text.

    A value is found as it is, line by line where it has several (output is looked at by lines), and as JSON writes it.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values = frozenset(value for value in values if value)
        forms = {form for value in self._values for form in _forms(value)}
        # The longest first: of two values that begin alike, nothing of the longer one may stay.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(_pattern, ordered))) if ordered else None
        self.longest = len(ordered[0]) if ordered else 0

    def __repr__(self) -> str:
        return f"<Mask of {len(self._values)}>"

    def adding(self, values: Iterable[str]) -> "Mask":
        """Give one that strikes out these too."""
        more = self._values.union(value for value in values if value)
        return self if more == self._values else Mask(more)

    def clean(self, text: bytes) -> bytes:
        return self._pattern.sub(MASK, text) if self._pattern is not None else text

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


def _forms(value: str) -> Iterable[bytes]:
    yield value.encode()
    yield orjson.dumps(value)[1:-1]
    for line in value.splitlines():
        if len(line) >= SHORTEST_INSIDE_WORDS:
            yield line.encode()


def _pattern(form: bytes) -> bytes:
    pattern = re.escape(form)
    if len(form) < SHORTEST_INSIDE_WORDS:
        return rb"(?<!\w)" + pattern + rb"(?!\w)"
    return pattern


class Lines:
    """Takes chunks, gives lines without their ends. Holds at most a chunk, `LINE_LIMIT` and the longest secret."""

    def __init__(self, mask: Callable[[], Mask]) -> None:
        """`mask` is asked for each line, so that a secret counts from the moment it is known."""
        self._mask = mask
        self._rest = bytearray()
        self._searched = 0
        self._pieces: deque[bytes] = deque()

    def feed(self, chunk: bytes) -> None:
        self._rest += chunk

    def end(self) -> None:
        """Nothing more will come: what has no line end is a line."""
        if self._rest and not self._rest.endswith(b"\n"):
            self._rest += b"\n"

    def take(self) -> bytes | None:
        """Give the next line, or None until more has come."""
        if self._pieces:
            return self._pieces.popleft()
        end = self._rest.find(b"\n", self._searched)
        if end >= 0:
            line = self._mask().clean(bytes(self._rest[:end]).removesuffix(b"\r"))
            del self._rest[: end + 1]
            self._searched = 0
            self._pieces.extend(line[at : at + LINE_LIMIT] for at in range(0, len(line) or 1, LINE_LIMIT))
            return self._pieces.popleft()
        self._cut()
        return self._pieces.popleft() if self._pieces else None

    def drop(self, keep: int) -> int:
        """Forget the lines that are there to their ends, but for the last `keep`, which may be last words; how many.

        What has only begun stays: a secret may have come in part.
        """
        *lines, begun = self._rest.split(b"\n")
        dropped = len(self._pieces) + max(0, len(lines) - keep)
        self._pieces.clear()
        self._rest = bytearray(b"\n").join([*lines[-keep:], begun])
        self._searched = 0
        return dropped

    def _cut(self) -> None:
        """Take pieces from a line whose end has not come; a secret may have come in part, so as much as that stays."""
        mask = self._mask()
        largest = LINE_LIMIT + mask.longest
        if len(self._rest) > largest:
            rest = mask.clean(bytes(self._rest))
            while len(rest) > largest:
                self._pieces.append(rest[:LINE_LIMIT])
                rest = rest[LINE_LIMIT:]
            self._rest = bytearray(rest)
        self._searched = len(self._rest)
