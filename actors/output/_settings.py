"""How much of a service's output is kept, and how much of our time and memory it may take."""

from typing import Final

from msgspec import Struct

LINE_LIMIT: Final = 16 * 1024
"""Bytes kept of one line."""

SMALLEST_FILE: Final = 256 * 1024
"""Bytes; any one record fits into a file of this size."""

READ_SIZE: Final = 64 * 1024
READ_A_GO: Final = 4 * READ_SIZE
"""Bytes read from one descriptor before others have their turn."""

LARGE_PIPE: Final = 1024 * 1024
"""Bytes that the pipe of a lasting flood may hold while the reading rests."""

BURST: Final = 512 * 1024
RATE: Final = 256 * 1024
LINE_COST: Final = 64
"""Bytes of one stream that are looked at in a go, and in each second after, where each line counts `LINE_COST` more than it is
long: some 3200 usual lines, and 1600 a second. Of what was read at most `BURST` wait for that. What comes beyond is dropped
and counted. A board's SD card is not to be worn out, nor its processor kept busy, by a worker that prints in a loop.
"""

RESUME: Final = 32 * 1024
"""Bytes of `BURST` which have to be there again before the next lines of a flood are looked at."""

TAIL: Final = 8 * 1024
"""Bytes at the end of what is dropped that are looked at all the same: they may be last words."""

LAST_LINES: Final = 20

SLICE: Final = 0.001
PAUSE: Final = 0.001
PAUSE_IN_FLOOD: Final = 0.010
"""Seconds that looking at lines may take, of all services together, and seconds until it goes on. In a flood reading comes
first: the worker waits for that.
"""

EAGER: Final = 1.0
REST: Final = 0.004
"""Seconds for which a flood is read as fast as it comes; after that the reading rests so long after each `READ_A_GO`."""

UNWRITTEN: Final = 256 * 1024
"""Bytes of records of one service that wait for the disk; what comes beyond is not written, and counted."""

RETRY: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds from one failure of the disk to the next attempt; the last one repeats."""


class OutputLimits(Struct, frozen=True):
    """What is kept of one service's output, from the manifest.

    `file_bytes` is the size at which a file is put aside (at least 256 KiB), `files` how many there are at most, the one
    that is written to included, or 0 for none. `ring_lines` and `ring_bytes` bound what is kept in memory.
    """

    file_bytes: int = 5 * 1024 * 1024
    files: int = 3
    ring_lines: int = 1000
    ring_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        if self.file_bytes < SMALLEST_FILE or self.files < 0 or self.ring_lines < 1 or self.ring_bytes < SMALLEST_FILE:
            raise ValueError(f"{self} is too small: at least {SMALLEST_FILE} bytes each, and one line")
