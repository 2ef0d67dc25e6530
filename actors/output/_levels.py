"""How bad a line is, told by the forms that Python's and the system's logging libraries print."""

import re
from functools import cache
from typing import Any, Final, Literal

Level = Literal["debug", "info", "warning", "error", "critical"]

_NAMES: Final[dict[str, Level]] = {
    **dict.fromkeys(("trace", "debug", "dbg", "verbose"), "debug"),
    **dict.fromkeys(("info", "information", "notice", "success"), "info"),
    **dict.fromkeys(("warn", "warning"), "warning"),
    **dict.fromkeys(("err", "error", "exception", "severe"), "error"),
    **dict.fromkeys(("crit", "critical", "fatal", "panic", "alert", "emerg", "emergency"), "critical"),
}
# syslog(3); sd-daemon(3) writes them as <N> before a line.
_PRIORITIES: Final[tuple[Level, ...]] = (
    "critical",
    "critical",
    "critical",
    "error",
    "warning",
    "info",
    "info",
    "debug",
)
_KLOG: Final[dict[str, Level]] = {"I": "info", "W": "warning", "E": "error", "F": "critical"}
_NUMBERS: Final[tuple[tuple[int, Level], ...]] = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))

SEARCHED: Final = 160
"""Characters at the beginning of a line in which its level may stand."""

_WORD = "|".join(sorted(_NAMES, key=len, reverse=True))
_UPPER = _WORD.upper()
_STAMP = r"\[?(?:\d{4}[-/]\d\d[-/]\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?"

_SYSLOG_FORM = re.compile(r"<(\d{1,3})>")
_FORMS: Final = (
    rf"(?P<klog>[IWEF])\d{{4}} \d\d:\d\d:\d\d\.\d+ "
    # structlog's console, nginx: a bracketed word, after a time and perhaps a name.
    rf"|(?:{_STAMP}\s+(?:[\w.-]{{1,60}}:?\s+)?)?\[\s*(?P<bracketed>(?i:{_WORD}))\s*\]"
    # logging and loguru: capitals at the beginning, after a time, or after a time and a name.
    rf"|(?:{_STAMP}[\s|:-]*)?(?:[\w.\[\]-]{{1,60}}(?:\s+[-|]\s+|:\s*))?(?P<capitals>{_UPPER})(?=[\s:|\]-]|$)"
    # Rust's env_logger.
    rf"|\[{_STAMP} (?P<rust>{_UPPER})\s"
    rf"|(?P<colon>(?i:{_WORD})):\s"
    r"|.{0,100}?\blevel=\"?(?P<logfmt>\w{3,11})\b"
)


@cache
def _forms() -> re.Pattern[str]:
    # With the first line: it takes a start 2 ms.
    return re.compile(_FORMS)


def level_of_text(text: str) -> tuple[Level | None, str]:
    """Tell the level that a line gives itself, and the line without a priority in front of it."""
    if text[:1].isspace():
        # It belongs to the line before, such as a source line in a traceback.
        return None, text
    if text.startswith("<") and (match := _SYSLOG_FORM.match(text)) is not None and int(match[1]) < 192:
        return _PRIORITIES[int(match[1]) % 8], text[match.end() :]
    match = _forms().match(text, 0, SEARCHED)
    if match is None:
        return None, text
    form = match.lastgroup
    assert form is not None
    word = match[form]
    return (_KLOG[word] if form == "klog" else _NAMES.get(word.lower())), text


def level_of_value(value: Any, *, pino: bool = False) -> Level | None:
    """Tell the level that a JSON line names, as a word or as a number of Python's logging; of pino's and bunyan's where said."""
    if isinstance(value, str):
        return _NAMES.get(value.strip().lower())
    if isinstance(value, int | float) and not isinstance(value, bool):
        # logging: 10 debug ... 50 critical. pino: 10 trace, 20 debug, 30 info ... 60 fatal.
        number = value - 10 if pino else value
        return next((name for least, name in _NUMBERS if number >= least), "debug")
    return None
