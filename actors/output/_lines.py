"""Bytes into lines, each at most `LINE_LIMIT` long. The same lines come out however the bytes were cut into chunks."""

from typing import NamedTuple

from actors.output._settings import LINE_LIMIT


class Piece(NamedTuple):
    """A line without its end, or what is kept of one.

    `cut_before`: its beginning may be missing; `cut_after`: its end is missing. With `left_out` it is no line at all:
    so many bytes, the rest of the line before, were not kept.
    """

    data: bytes
    cut_before: bool = False
    cut_after: bool = False
    left_out: int = 0


class Lines:
    """Takes chunks, gives pieces. Holds at most one chunk and `LINE_LIMIT`."""

    def __init__(self, *, cut_before: bool = False) -> None:
        """With `cut_before` the first byte may stand in the middle of a line."""
        self._chunk = b""
        self._at = 0
        self._rest = bytearray()
        self._left_out: int | None = None
        self._cut_before = cut_before

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk; the one before has been taken to its end (`take` gave None)."""
        self._chunk, self._at = chunk, 0

    def take(self) -> Piece | None:
        """Give the next piece, or None until more has come."""
        end = self._chunk.find(b"\n", self._at)
        stop = end if end >= 0 else len(self._chunk)
        if self._left_out is not None:
            self._left_out += stop - self._at
            self._at = stop + 1
            if end < 0:
                self._use_up()
                return None
            # Nothing was left out where a missing beginning ended just here.
            return self._line_left() or self.take()
        room = LINE_LIMIT - len(self._rest)
        if stop - self._at > room:
            self._rest += self._chunk[self._at : self._at + room]
            self._at += room
            whole = _whole_characters(self._rest)
            self._left_out = len(self._rest) - whole
            del self._rest[whole:]
            return self._piece(cut_after=True)
        self._rest += self._chunk[self._at : stop]
        self._at = stop + 1
        if end < 0:
            self._use_up()
            return None
        if self._rest.endswith(b"\r"):
            del self._rest[-1:]
        return self._piece()

    def end(self) -> Piece | None:
        """Nothing more will come, or something is missing here: give what has no line end."""
        self._use_up()
        if self._left_out is not None:
            return self._line_left()
        return self._piece(cut_after=True) if self._rest else None

    def unread(self) -> bytes:
        """Give back what no piece was made of, and forget it; nothing where the rest of a line is being left out."""
        rest = b"" if self._left_out is not None else bytes(self._rest) + self._chunk[self._at :]
        self._rest.clear()
        self._use_up()
        return rest

    def skip(self) -> None:
        """Leave out the rest of a line whose beginning is missing. Follows `end`."""
        self._left_out = 0
        self._cut_before = False

    def _use_up(self) -> None:
        self._chunk, self._at = b"", 0

    def _line_left(self) -> Piece | None:
        left_out, self._left_out = self._left_out, None
        return Piece(b"", left_out=left_out) if left_out else None

    def _piece(self, *, cut_after: bool = False) -> Piece:
        piece = Piece(bytes(self._rest), self._cut_before, cut_after)
        self._rest.clear()
        self._cut_before = False
        return piece


def _whole_characters(data: bytearray) -> int:
    """Bytes of `data` without a UTF-8 sequence at its end that was cut (RFC 3629)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
        if byte < 0x80:
            break
    return len(data)
