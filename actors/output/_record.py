"""One line of output as a record: what it says, and who said it when."""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import orjson

from actors.output._levels import Level, level_of_text, level_of_value
from actors.output._lines import Piece
from actors.output._mask import MASK, Mask
from actors.output._text import plain

StreamName = Literal["stdout", "stderr", "supervisor"]
"""`supervisor`: what we tell about the output, such as how much of it was dropped."""

MOST_KEYS: Final = 64
MOST_ITEMS: Final = 64
DEEPEST: Final = 5
LONGEST_KEY: Final = 128
LONGEST_TIME: Final = 64

_LEVEL_KEYS = ("level", "levelname", "severity", "lvl", "loglevel", "log.level", "level_name")
_MESSAGE_KEYS = ("message", "msg", "event")
_TIME_KEYS = ("timestamp", "time", "ts", "@timestamp", "asctime", "datetime")
_HELD_A_SECRET = "(left out: it held a secret in a form that cannot be struck out)"  # noqa: S105  # it says so only


class Record(NamedTuple):
    """A line, finished. What a worker sends under the name of one of these lands in `fields`.

    `sequence` rises within a service, by one from line to line, and further where the supervisor was started anew. `time`
    is when it was read (UTC, ISO 8601), `worker_time` what the worker says itself. `cut`: not all of it is here.
    `json` is the whole as one line of JSON, with its end.
    """

    service: str
    instance: str | None
    stream: StreamName
    pid: int | None
    time: str
    sequence: int
    level: Level
    message: str
    fields: dict[str, Any]
    worker_time: str | float | None
    cut: bool
    json: bytes


class Content(NamedTuple):
    """What a line says, before it is known who says it. `level` is None where the line does not tell."""

    level: Level | None
    message: str
    fields: dict[str, Any]
    worker_time: str | float | None = None
    cut: bool = False


def read(piece: Piece, mask: Mask) -> Content:
    """Read a line: JSON or text, made safe to show, without what `mask` strikes out."""
    data = piece.data
    if data.startswith(b"{") and data.endswith(b"}") and not piece.cut_after:
        try:
            document = orjson.loads(data)
        except ValueError:
            pass
        else:
            return masked(_merged(document), mask)
    text = plain(data.decode("utf-8", "replace"))
    if piece.cut_before or piece.cut_after:
        text = mask.clean_part(text, cut_before=piece.cut_before, cut_after=piece.cut_after)
    level, text = level_of_text(text)
    return masked(Content(level, text, {}, cut=piece.cut_after), mask)


def masked(content: Content, mask: Mask) -> Content:
    """Strike secrets out of all its texts."""
    if not mask.may_be_in(orjson.dumps(content[1:4])):
        return content
    content = content._replace(
        message=mask.clean(content.message),
        fields=_clean(content.fields, mask),
        worker_time=_clean(content.worker_time, mask),
    )
    # A secret may also lie across several values, such as the items of a list.
    if mask.is_in(orjson.dumps([content.fields, content.worker_time])):
        return content._replace(message=mask.clean(_HELD_A_SECRET), fields={}, worker_time=None)
    return content


def finish(
    content: Content,
    *,
    service: str,
    instance: str | None,
    stream: StreamName,
    pid: int | None,
    time: str,
    sequence: int,
    level: Level,
) -> Record:
    """Put a content and its origin together."""
    entry: dict[str, Any] = {
        "service": service,
        "instance": instance,
        "stream": stream,
        "pid": pid,
        "time": time,
        "sequence": sequence,
        "level": level,
        "message": content.message,
    }
    if content.fields:
        entry["fields"] = content.fields
    if content.worker_time is not None:
        entry["worker_time"] = content.worker_time
    if content.cut:
        entry["cut"] = True
    return Record(
        service,
        instance,
        stream,
        pid,
        time,
        sequence,
        level,
        content.message,
        content.fields,
        content.worker_time,
        content.cut,
        # Added rather than asked of orjson, whose results keep a buffer of 4 KiB each.
        orjson.dumps(entry) + b"\n",
    )


def _merged(document: dict[str, Any]) -> Content:
    """Give a JSON line's own level, message and time; everything else becomes a field."""
    record = document.get("record")
    if isinstance(record, dict) and isinstance(record.get("level"), dict):
        return _loguru(document, record)
    level: Level | None = None
    pino = "hostname" in document and "pid" in document
    for key in _LEVEL_KEYS:
        if (level := level_of_value(document.get(key), pino=pino)) is not None:
            del document[key]
            break
    return _content(level, _taken(document, _MESSAGE_KEYS), _taken(document, _TIME_KEYS, _is_time), document)


def _loguru(document: dict[str, Any], record: dict[str, Any]) -> Content:
    """Read what loguru writes with `serialize=True`."""
    extra = record.get("extra")
    fields = dict(extra) if isinstance(extra, dict) else {}
    fields |= {key: record[key] for key in ("name", "function", "line") if key in record}
    if record.get("exception"):
        fields["exception"] = document.get("text")
    time = record.get("time")
    if isinstance(time, dict):
        time = time.get("repr")
    level = level_of_value(record["level"].get("name"))
    return _content(level, record.get("message"), time if _is_time(time) else None, fields)


def _taken(document: dict[str, Any], keys: tuple[str, ...], fits: Callable[[Any], bool] = lambda _: True) -> Any:
    return next((document.pop(key) for key in keys if document.get(key) is not None and fits(document[key])), None)


def _is_time(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TIME
    return isinstance(value, int | float) and not isinstance(value, bool)


def _content(level: Level | None, message: Any, time: Any, fields: dict[str, Any]) -> Content:
    bounds = _Bounds()
    if message is None:
        message = ""
    elif not isinstance(message, str):
        message = orjson.dumps(message).decode()
    worker_time: str | float | None = plain(time) if isinstance(time, str) else time
    bounded = bounds.mapping(fields, 1)
    return Content(level, plain(message), bounded, worker_time, bounds.cut)


class _Bounds:
    """Keeps a worker's fields within `MOST_KEYS`, `MOST_ITEMS` and `DEEPEST`; `cut` tells whether something is missing."""

    def __init__(self) -> None:
        self.cut = False
        self._keys = 0

    def mapping(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        bounded = {}
        for key, item in value.items():
            self._keys += 1
            if self._keys > MOST_KEYS:
                self.cut = True
                break
            if len(key) > LONGEST_KEY:
                # Not cut: a part of a secret in it would be left.
                self.cut = True
                continue
            bounded[plain(key)] = self.value(item, depth)
        return bounded

    def value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return plain(value)
        if isinstance(value, dict | list):
            if depth >= DEEPEST:
                self.cut = True
                return None
            if isinstance(value, dict):
                return self.mapping(value, depth + 1)
            self.cut |= len(value) > MOST_ITEMS
            return [self.value(item, depth + 1) for item in value[:MOST_ITEMS]]
        return value


def _clean(value: Any, mask: Mask) -> Any:
    if isinstance(value, str):
        return mask.clean(value)
    if isinstance(value, dict):
        return {mask.clean(key): _clean(item, mask) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, mask) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown = orjson.dumps(value).decode()
        return MASK if mask.clean(shown) != shown else value
    return value
