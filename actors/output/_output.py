"""One service's output, from its workers' descriptors to records in a file, in memory and at followers."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from actors.flag import Flag
from actors.output._file import RotatingFile
from actors.output._follow import Follower
from actors.output._levels import Level
from actors.output._lines import Piece
from actors.output._mask import Mask
from actors.output._record import Content, Record, StreamName, finish, masked, read
from actors.output._ring import Ring
from actors.output._settings import LAST_LINES, OutputLimits
from actors.output._stream import Chunk, Stream
from actors.output._turns import Turns
from actors.output._writer import Writer

logger = logging.getLogger(__name__)

_TRACEBACK = "Traceback (most recent call last):"


class _Mood:
    """The level of a stream's lines that do not tell their own: those that belong to the line before share its level."""

    def __init__(self, usual: Level) -> None:
        self._usual = usual
        self._last: Level | None = None
        self._traceback = False

    def level(self, content: Content) -> Level:
        text = content.message
        if text == _TRACEBACK:
            self._last, self._traceback = "error", True
            return "error"
        indented = text.startswith((" ", "\t"))
        if self._traceback:
            # Its last line, the first that is not indented, names the exception.
            self._traceback = indented
            return "error"
        if content.level is not None or not indented:
            self._last = content.level
        return self._last or self._usual


class _Capture:
    """One instance's two streams, and what was read of them and not yet looked at, in the order in which it came."""

    def __init__(self, instance: str, pid: int) -> None:
        self.instance = instance
        self.pid = pid
        self.streams: tuple[Stream, ...] = ()
        self.moods: dict[StreamName, _Mood] = {"stdout": _Mood("info"), "stderr": _Mood("warning")}
        self.backlog: deque[Chunk] = deque()
        self.current: Chunk | None = None
        self.adopted = Flag()
        """What was read of it before it was attached consists of records."""
        self.ended = Flag()
        """Its last line is a record."""

    @property
    def detached(self) -> bool:
        return not any(stream.open for stream in self.streams)


class _Item(NamedTuple):
    """Something to be made into a record."""

    capture: _Capture
    stream: Stream
    piece: Piece


class Output:
    """Made by `Outputs.open`. Everything runs on the loop's thread and nothing here waits, but for what is `async`.

    `on_record` is called with each record, after it is in memory and before it is on disk.
    """

    def __init__(
        self,
        service: str,
        path: Path,
        limits: OutputLimits,
        *,
        turns: Turns,
        buffer: bytearray,
        executor: Executor,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        """Read the end of the file at `path` for what came before: up to `ring_bytes`, blocking."""
        self.service = service
        self._turns = turns
        self._buffer = buffer
        self._on_record = on_record
        self._mask = Mask()
        self._captures: list[_Capture] = []
        self._now = self._time = ""
        self._file = file = RotatingFile(path, limits.file_bytes, limits.files)
        self._ring = Ring[bytes](limits.ring_lines, limits.ring_bytes, len)
        # Microseconds since 1970 at first: higher than any number of an earlier life, whatever of it came to the disk.
        self._sequence = max(time.time_ns() // 1000, self._recall(file.tail(limits.ring_bytes)) + 1)
        self._writer = Writer(service, file, executor, on_healed=self._healed)

    @property
    def trouble(self) -> str | None:
        """Why lines are not written to the file at present, for a person; None where they are."""
        return self._writer.trouble

    def configure(self, limits: OutputLimits) -> None:
        """Keep to other limits from now on."""
        self._file.configure(limits.file_bytes, limits.files)
        self._ring.configure(limits.ring_lines, limits.ring_bytes)

    def hide(self, secrets: Iterable[str]) -> None:
        """Strike these values out too, from the next line on. None is ever forgotten: a worker may still hold an old one."""
        self._mask = self._mask.adding(secrets)

    def clean(self, text: str) -> str:
        """Strike the service's secrets out of a text that goes somewhere else."""
        return self._mask.clean(text)

    def attach(
        self,
        instance: str,
        pid: int,
        stdout: int,
        stderr: int,
        *,
        resumed: bool = False,
        drained: Iterable[tuple[StreamName, float, bytes]] = (),
        dropped: int = 0,
    ) -> None:
        """Read an instance's output from now on. The descriptors are ours to close from here on.

        For one that ran before: `resumed`, since its first line may be the end of one that was begun; `drained`, what was
        read of it meanwhile, in order, with seconds since 1970; `dropped`, how many bytes of it, before those, were not
        kept. An instance that is still attached is detached.
        """
        self.detach()
        capture = _Capture(instance, pid)

        def take(chunk: Chunk) -> None:
            capture.backlog.append(chunk)
            self._turns.ask(self._work)

        def stream(name: StreamName, descriptor: int) -> Stream:
            return Stream(
                name, descriptor, turns=self._turns, buffer=self._buffer, on_chunk=take, resumed=resumed or dropped > 0
            )

        by_name: dict[StreamName, Stream] = {"stdout": stream("stdout", stdout), "stderr": stream("stderr", stderr)}
        capture.streams = tuple(by_name.values())
        self._captures.append(capture)
        for name, at, data in drained:
            if not data:
                continue
            by_name[name].push(data, time=_iso(datetime.fromtimestamp(at, UTC)), dropped=dropped)
            dropped = 0
        # The first chunk without bytes: it tells that all of those before it have been looked at.
        by_name["stdout"].push(b"", time="", dropped=dropped)

    def detach(self) -> None:
        """The instance has ended: take what is left in its pipes and close them. Its last lines become records soon after."""
        for capture in self._captures:
            for stream in capture.streams:
                stream.finish(drain=True)

    def release(self) -> dict[StreamName, bytes]:
        """Somebody else reads the instance's output from now on: close our descriptors, and take nothing more.

        Gives what was read and is no record yet, such as a line that was begun: it goes before what the other one reads.
        """
        if not self._captures or (capture := self._captures[-1]).detached:
            return {}
        for stream in capture.streams:
            stream.finish(drain=False)
        rests: dict[StreamName, bytes] = {stream.name: stream.lines.unread() for stream in capture.streams}
        for chunk in capture.backlog:
            if chunk.dropped:
                self._tell_dropped(capture, chunk)
            rests[chunk.stream.name] += chunk.data
        capture.backlog.clear()
        capture.current = None
        # Those before it are looked at as always, and then it ends.
        self._turns.ask(self._work)
        return {name: data for name, data in rests.items() if data}

    async def adopted(self, instance: str) -> None:
        """Wait until what was `drained` of the instance is in the file, or the disk refuses it: its keeper may forget it."""
        for capture in tuple(self._captures):
            if capture.instance == instance:
                await capture.adopted.wait()
        await self._writer.settled()

    def note(self, message: str, level: Level = "info", **fields: Any) -> None:
        """Put a line of our own among the others, with `stream` "supervisor"."""
        capture = self._captures[-1] if self._captures else None
        self._note(capture, message, level, fields)
        self._writer.flush()

    def tail(self, lines: int) -> list[bytes]:
        """Give the last records as lines of JSON with their ends, the oldest first; those before a restart of ours too."""
        return self._ring.last(lines)

    def follow(self, lines: int = 0) -> "Follower":
        """Give what `tail` gives, and then each record as it comes."""
        return Follower(self._ring, max(self._ring.first, self._ring.next - max(0, lines)), self._notice)

    async def last_lines(self, instance: str, lines: int = LAST_LINES) -> tuple[str, ...]:
        """Give the last messages of an instance, the oldest first; of one that was detached when all have become records."""
        for capture in tuple(self._captures):
            if capture.instance == instance and capture.detached:
                await capture.ended.wait()
        mark = orjson.dumps({"instance": instance})[1:-1]
        found: list[str] = []
        for line in reversed(self._ring.last()):
            if (
                mark in line
                and (entry := orjson.loads(line))["instance"] == instance
                and entry["stream"] != "supervisor"
            ):
                found.append(entry["message"])
                if len(found) >= lines:
                    break
        return tuple(reversed(found))

    async def close(self) -> None:
        """Detach, make everything into records, write them, and end the followers."""
        self.detach()
        for capture in tuple(self._captures):
            await capture.ended.wait()
        self._ring.end()
        await self._writer.close()

    def _recall(self, lines: list[bytes]) -> int:
        """Take lines of an earlier life into memory; the highest sequence among them."""
        highest = 0
        for line in lines:
            try:
                entry = orjson.loads(line)
                highest = max(highest, int(entry["sequence"]))
                str(entry["instance"]), str(entry["stream"]), str(entry["message"])
            except (ValueError, TypeError, KeyError):
                continue  # somebody else wrote it
            self._ring.add(line)
        return highest

    def _work(self, until: float) -> bool:
        """Make lines into records until it is time to stop; whether there are more."""
        self._now = _iso(datetime.now(UTC))
        while self._captures and time.perf_counter() < until:
            capture = self._captures[0]
            if not self._step(capture):
                if not capture.detached:
                    break
                self._end(capture)
        self._writer.flush()
        return bool(self._captures) and bool(self._captures[0].backlog or self._captures[0].current)

    def _step(self, capture: _Capture) -> bool:
        """Take the next line, or the next chunk; False where there is none."""
        chunk = capture.current
        if chunk is not None:
            self._time = chunk.time or self._now
            piece = chunk.stream.lines.take()
            if piece is not None:
                self._take(_Item(capture, chunk.stream, piece))
                return True
            chunk.stream.done(chunk)
            capture.current = None
        if not capture.backlog:
            return False
        chunk = capture.current = capture.backlog.popleft()
        if not chunk.data:
            capture.adopted.set()
        if chunk.dropped:
            self._gap(capture, chunk)
        chunk.stream.lines.feed(chunk.data)
        return True

    def _gap(self, capture: _Capture, chunk: Chunk) -> None:
        lines = chunk.stream.lines
        if (begun := lines.end()) is not None:
            self._take(_Item(capture, chunk.stream, begun))
        if chunk.mid_line:
            lines.skip()
        self._tell_dropped(capture, chunk)

    def _tell_dropped(self, capture: _Capture, chunk: Chunk) -> None:
        self._note(
            capture,
            f"{chunk.dropped} bytes of {chunk.stream.name} were left out: more was printed than is kept",
            "warning",
            {"dropped_bytes": chunk.dropped},
        )

    def _end(self, capture: _Capture) -> None:
        del self._captures[0]
        self._time = self._now
        capture.adopted.set()
        for stream in capture.streams:
            if (begun := stream.lines.end()) is not None:
                self._take(_Item(capture, stream, begun))
        capture.ended.set()

    def _take(self, item: _Item) -> None:
        capture, stream, piece = item
        if piece.left_out:
            self._note(
                capture,
                f"the rest of a line of {stream.name}, {piece.left_out} bytes, was left out",
                "info",
                {"dropped_bytes": piece.left_out},
            )
            return
        content = read(piece, self._mask)
        level = capture.moods[stream.name].level(content)
        self._record(capture, stream.name, content, level)

    def _note(self, capture: _Capture | None, message: str, level: Level, fields: dict[str, Any]) -> None:
        self._time = _iso(datetime.now(UTC))
        self._record(capture, "supervisor", masked(Content(level, message, fields), self._mask), level)

    def _record(self, capture: _Capture | None, stream: StreamName, content: Content, level: Level) -> None:
        record = finish(
            content,
            service=self.service,
            instance=capture.instance if capture else None,
            stream=stream,
            pid=capture.pid if capture else None,
            time=self._time,
            sequence=self._sequence,
            level=level,
        )
        self._sequence += 1
        self._ring.add(record.json)
        self._writer.add(record.json)
        if self._on_record is not None:
            try:
                self._on_record(record)
            except Exception:
                logger.exception("%s: a line of output was not dealt with", self.service)

    def _healed(self, lost: int, why: str) -> None:
        if lost:
            self.note(f"{lost} lines were not written to the file: {why}", "warning", dropped_lines=lost)

    def _notice(self, lost: int) -> bytes:
        """Tell a follower what it missed. It is no record of the output and has no sequence."""
        return orjson.dumps(
            {
                "service": self.service,
                "instance": None,
                "stream": "supervisor",
                "pid": None,
                "time": _iso(datetime.now(UTC)),
                "sequence": None,
                "level": "warning",
                "message": f"{lost} lines were left out: this reader is too slow",
                "fields": {"dropped_lines": lost},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
