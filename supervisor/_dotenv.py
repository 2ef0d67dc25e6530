"""Reading and writing `.env` files: one small grammar, strict, without interpolation.

A line is blank, a comment, or `[export] KEY=value`. A value is bare (up to white space and `#`), in single
quotes (literal) or in double quotes (with the escapes below); a quoted value may span lines. `$` means nothing
special anywhere. What the writer writes is also understood by a POSIX shell, Docker Compose and systemd's
EnvironmentFile=.
"""

import re
from typing import NamedTuple

MAX_BYTES = 256 * 1024
MAX_MISTAKES = 20
"""More than these of one file help nobody; the rest is counted."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT_OR_END = re.compile(r"[ \t]*(#.*)?")
_EXPORT = re.compile(r"export[ \t]+(?=[^=\s])")
_COMMENT = re.compile(r"[ \t]#")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "$": "$", "`": "`"}
_UNESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"', "$": "\\$", "`": "\\`"}


class Entry(NamedTuple):
    """One assignment and the line (from 1) that it begins on."""

    key: str
    value: str
    line: int


class Mistake(NamedTuple):
    """What is wrong at a line (from 1), and how to mend it. Never holds a value."""

    line: int
    what: str


def parse(data: bytes) -> tuple[list[Entry], list[Mistake]]:
    """Every assignment, and every mistake, of a `.env` file; whatever the bytes, nothing is raised."""
    if len(data) > MAX_BYTES:
        return [], [Mistake(1, f"the file is larger than {MAX_BYTES // 1024} KiB; take out what is not a setting")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [], [Mistake(line, "the text is not UTF-8; save the file as UTF-8")]
    entries: list[Entry] = []
    mistakes: list[Mistake] = []
    # Only "\n" ends a line: str.splitlines() would also split at characters that may stand in a value.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    position = 0
    while position < len(lines):
        number = position + 1
        try:
            entry, position = _line(lines, position)
        except _WrongError as wrong:
            mistakes.append(Mistake(number, wrong.what))
            position += 1
        else:
            if entry is not None:
                entries.append(entry)
    mistakes += _repeated(entries)
    mistakes.sort()
    if len(mistakes) > MAX_MISTAKES:
        more = len(mistakes) - MAX_MISTAKES
        mistakes[MAX_MISTAKES:] = [Mistake(mistakes[MAX_MISTAKES].line, f"and {more} more mistakes from here on")]
    return entries, mistakes


def render(key: str, value: str) -> str:
    """The line `KEY=value`, without its line end, that `parse` reads back as exactly this."""
    if _KEY.fullmatch(key) is None:
        raise ValueError("not a variable's name")
    if "\0" in value:
        raise ValueError("an environment variable cannot hold a NUL")
    if _PLAIN.fullmatch(value):
        return f"{key}={value}"
    if not any(character in value for character in "'\n\r"):
        return f"{key}='{value}'"
    return f'{key}="{"".join(_UNESCAPES.get(character, character) for character in value)}"'


class _WrongError(Exception):
    def __init__(self, what: str) -> None:
        self.what = what


def _line(lines: list[str], position: int) -> tuple[Entry | None, int]:
    """The entry that begins at `position`, if any, and the position after it."""
    text = lines[position].lstrip(" \t")
    if not text or text.startswith("#"):
        return None, position + 1
    if export := _EXPORT.match(text):
        text = text[export.end() :]
    key, separator, rest = text.partition("=")
    key = key.rstrip(" \t")
    if not separator:
        raise _WrongError("no `=` in this line; write KEY=value, or begin a comment with #")
    if _KEY.fullmatch(key) is None:
        raise _WrongError(
            "the part before `=` is no variable name; use letters, digits and _, beginning with a letter or _"
        )
    if not rest.lstrip(" \t").startswith(("'", '"')):
        comment = _COMMENT.search(rest)
        value = (rest[: comment.start()] if comment else rest).strip(" \t")
        _refuse_nul(value)
        return Entry(key, value, position + 1), position + 1
    # The rest of this line, then whole lines, until the quote is closed.
    value, end, after = _quoted(rest.lstrip(" \t"), lines, position)
    if _COMMENT_OR_END.fullmatch(after) is None:
        raise _WrongError(
            "there is text after the closing quote; quote the whole value, or put a space and # before a comment"
        )
    _refuse_nul(value)
    return Entry(key, value, position + 1), end + 1


def _quoted(rest: str, lines: list[str], position: int) -> tuple[str, int, str]:
    """The value, the position of the line in which its closing quote stands, and the text after that quote."""
    quote = rest[0]
    parts: list[str] = []
    text = rest[1:]
    end = position
    while True:
        index = 0
        while index < len(text):
            character = text[index]
            if character == quote:
                return "".join(parts), end, text[index + 1 :]
            if character == "\\" and quote == '"':
                parts.append(_escape(text[index + 1 : index + 2]))
                index += 2
            else:
                parts.append(character)
                index += 1
        end += 1
        if end == len(lines):
            raise _WrongError(f"the quote {quote} opened in this line is never closed; close it")
        parts.append("\n")
        text = lines[end]


def _escape(letter: str) -> str:
    try:
        return _ESCAPES[letter]
    except KeyError:
        shown = f"\\{letter}" if letter.isalnum() else "a backslash"
        raise _WrongError(
            f"{shown} means nothing inside double quotes; write \\\\ for a backslash, or use single quotes"
        ) from None


def _refuse_nul(value: str) -> None:
    if "\0" in value:
        raise _WrongError("the value holds a NUL character; take it out")


def _repeated(entries: list[Entry]) -> list[Mistake]:
    """A key with two values. An empty one counts as not set: files made from an example are full of those."""
    first: dict[str, int] = {}
    mistakes: list[Mistake] = []
    for key, value, line in entries:
        if not value:
            continue
        if key in first:
            mistakes.append(Mistake(line, f"{key} is set in line {first[key]} already; keep one of the two lines"))
        else:
            first[key] = line
    return mistakes
