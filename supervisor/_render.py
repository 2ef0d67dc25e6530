"""How one event becomes one line: JSON for machines, something short for a person at a terminal."""

from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson

Event = MutableMapping[str, Any]
Render = Callable[[Event], bytes]

WORKER_OUTPUT = "worker"
"""Name of the logger through which lines of workers come, with `service` and `pid`."""

# sd-daemon(3): what the journal reads at the beginning of a line.
PRIORITY = {"critical": b"<2>", "error": b"<3>", "warning": b"<4>", "info": b"<6>", "debug": b"<7>"}

_COLOURS = {
    "critical": "\x1b[1;31m",
    "error": "\x1b[31m",
    "warning": "\x1b[33m",
    "info": "\x1b[32m",
    "debug": "\x1b[2m",
}
_SERVICE_COLOUR = "\x1b[36m"
_DIM = "\x1b[2m"
_PLAIN = "\x1b[0m"
# Foreign text must neither steer the terminal nor pass for another line.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)}
_ESCAPED_LINE = {**_ESCAPED, 9: "\\t", 10: "\\n"}
_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE


def json_line(event: Event) -> bytes:
    """One JSON object and a line end. Whatever the values are, there is a line: odd ones stand as their `repr`."""
    ordered: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "level": event.pop("level", "info"),
        "event": event.pop("event", ""),
    }
    ordered.update(event)
    try:
        return orjson.dumps(ordered, _text, _JSON_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, integers over 64 bits, depth, or a `repr` that raises.
        return orjson.dumps({_safe(key): _safe(value) for key, value in ordered.items()}, None, _JSON_OPTIONS)


def terminal_line(*, colour: bool) -> Render:
    """`12:03:04 warning  what happened  key=value`, with a traceback below where there is one.

    What a worker printed is introduced by its service's name instead: `12:03:04 tts-worker  what it said`.
    """

    def render(event: Event) -> bytes:
        level = str(event.pop("level", "info"))
        text = _safe(event.pop("event", ""))
        trace = _safe(event.pop("exception", ""))
        if event.pop("logger", None) == WORKER_OUTPUT:
            event.pop("pid", None)
            level = _safe(event.pop("service", "worker"))
        elif text.startswith(f"{event.get('service')}: "):
            del event["service"]  # the text begins with it
        moment = f"{datetime.now().astimezone():%H:%M:%S}"
        fields = _fields(event)
        first, last = (_COLOURS.get(level, _SERVICE_COLOUR), _PLAIN) if colour else ("", "")
        dim = _DIM if colour else ""
        line = f"{dim}{moment}{last} {first}{level.translate(_ESCAPED_LINE):<8}{last} {text.translate(_ESCAPED_LINE)}"
        if fields:
            line += f"  {dim}{fields}{last}"
        if trace:
            line += f"\n{trace.translate(_ESCAPED)}"
        return f"{line}\n".encode("utf-8", "replace")

    return render


def _fields(event: Mapping[str, Any]) -> str:
    found = []
    for key, value in event.items():
        text = _safe(value)
        if not text or any(character.isspace() or character in "\"='" for character in text):
            text = repr(text)
        found.append(f"{_safe(key)}={text}".translate(_ESCAPED_LINE))
    return " ".join(found)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)


def _safe(value: object) -> str:
    """The value as text that every encoder takes."""
    try:
        text = value if isinstance(value, str) else _text(value)
    except Exception as error:  # noqa: BLE001 - somebody's `__repr__`: its mistake must not cost the line
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return text.encode("utf-8", "replace").decode()
