"""A command's output as lines: bounded in length, handed over one at a time."""

from collections import deque

LINE_LIMIT = 16 * 1024
"""Bytes of output taken as one line; a longer one is cut into several."""


class Lines:
    """Takes chunks, gives lines without their ends. Holds at most a chunk and `LINE_LIMIT`."""

    def __init__(self) -> None:
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
            line = bytes(self._rest[:end]).removesuffix(b"\r")
            del self._rest[: end + 1]
            self._searched = 0
            self._pieces.extend(line[at : at + LINE_LIMIT] for at in range(0, len(line) or 1, LINE_LIMIT))
            return self._pieces.popleft()
        self._cut()
        return self._pieces.popleft() if self._pieces else None

    def drop(self, keep: int) -> int:
        """Forget the lines that are there to their ends, but for the last `keep`, which may be last words; how many.

        What has only begun stays.
        """
        *lines, begun = self._rest.split(b"\n")
        dropped = len(self._pieces) + max(0, len(lines) - keep)
        self._pieces.clear()
        self._rest = bytearray(b"\n").join([*lines[-keep:], begun])
        self._searched = 0
        return dropped

    def _cut(self) -> None:
        """Take pieces from a line whose end has not come."""
        while len(self._rest) > LINE_LIMIT:
            self._pieces.append(bytes(self._rest[:LINE_LIMIT]))
            del self._rest[:LINE_LIMIT]
        self._searched = len(self._rest)
