"""A service's log file: JSON lines, put aside at a size, the oldest removed. Blocks: used in a thread."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from actors.files import PRIVATE_FILE


class Written(NamedTuple):
    """How far a write came: `lines` of those given are in the file; `error` says why the others are not."""

    lines: int
    error: OSError | None = None


class RotatingFile:
    """`<path>`, and `<path>.1` to `<path>.<files - 1>`, the highest number the oldest.

    A file is renamed before a line would make it larger than `file_bytes`; no line is lost or torn by that, nor by a
    crash between two renames. With 0 files nothing is written, and what is there of another time goes with the first line.
    Used by one thread at a time.
    """

    def __init__(self, path: Path, file_bytes: int, files: int) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self._descriptor = -1
        self._size = 0
        self._nothing_there = False

    def configure(self, file_bytes: int, files: int) -> None:
        """Keep to other limits, from the next line on. May be called from another thread than that which writes."""
        self._file_bytes, self._files = file_bytes, files

    def write(self, lines: Sequence[bytes]) -> Written:
        """Append lines, which have their ends. Raises nothing: where the disk refuses, the file ends with a whole line."""
        done = 0
        if self._files == 0:
            self._remove_all()
            return Written(len(lines))
        try:
            while done < len(lines):
                self._open()
                batch, size = [lines[done]], len(lines[done])
                if self._size and self._size + size > self._file_bytes:
                    self._rotate()
                    continue
                for line in lines[done + 1 :]:
                    if self._size + size + len(line) > self._file_bytes:
                        break
                    batch.append(line)
                    size += len(line)
                self._append(b"".join(batch))
                done += len(batch)
        except OSError as error:
            return Written(done, error)
        return Written(done)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def tail(self, size: int) -> list[bytes]:
        """Give the whole lines, with their ends, within the last `size` bytes, those of the file before this one included."""
        lines: list[bytes] = []
        for path in (self._path, self._aside(1)):
            if size <= 0:
                break
            with contextlib.suppress(OSError), path.open("rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - size - 1))
                part = file.read(size + 1).splitlines(keepends=True)
                # Half a line may be in front, and at the end what was torn by a power cut.
                lines[:0] = [line for line in part[1 if length > size else 0 :] if line.endswith(b"\n")]
                size -= length
        return lines

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _open(self) -> None:
        if self._descriptor >= 0:
            if os.fstat(self._descriptor).st_nlink:
                return
            # Somebody removed it: what goes there now would be seen by nobody.
            self.close()
        self._nothing_there = False
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, PRIVATE_FILE)
        try:
            os.fchmod(descriptor, PRIVATE_FILE)
            self._size = os.fstat(descriptor).st_size
            if self._size and os.pread(descriptor, 1, self._size - 1) != b"\n":
                os.write(descriptor, b"\n")
                self._size += 1
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._remove_beyond()

    def _rotate(self) -> None:
        self.close()
        if self._files == 1:
            self._path.unlink()
        for number in range(self._files - 1, 0, -1):
            # A number may be missing, after a crash in the middle of this or because somebody removed it.
            with contextlib.suppress(FileNotFoundError):
                (self._aside(number - 1) if number > 1 else self._path).rename(self._aside(number))

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _remove_all(self) -> None:
        if self._nothing_there:
            return
        self._nothing_there = True
        self.close()
        # Where the disk refuses, what is there stays: of what is printed nothing is lost by that.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._remove_beyond()

    def _remove_beyond(self) -> None:
        """Remove what is left of a time when more files were kept."""
        prefix = f"{self._path.name}."
        for entry in self._path.parent.iterdir():
            number = entry.name.removeprefix(prefix)
            if entry.name.startswith(prefix) and number.isdecimal() and int(number) >= max(self._files, 1):
                entry.unlink(missing_ok=True)
