"""Finds the line on which each key of a TOML document stands, which the standard library's parser does not tell."""

import contextlib
import re
import tomllib
from typing import Final

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'", re.DOTALL
)
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")

Path = tuple[str | int, ...]


class TomlLines:
    """Lines, from 1, of the keys of a text that `tomllib` has accepted."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lines: dict[Path, int] = {}
        # Where it stumbles, lines are less exact: those of the table around, instead of the key's own.
        with contextlib.suppress(ValueError, RecursionError):
            self._document()

    def of(self, *path: str | int) -> int:
        """The line of the longest beginning of `path` that is known; 1 where nothing is."""
        for length in range(len(path), 0, -1):
            if (line := self._lines.get(path[:length])) is not None:
                return line
        return 1

    def _document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) and self._at < len(self._text):
            if self._peek("["):
                self._at += 2 if self._peek("[[") else 1
                line = self._line_here()
                table = self._key()
                self._note(table, line)
                self._expect("]")
                self._at += self._peek("]")
            else:
                self._pair(table)

    def _pair(self, table: Path) -> None:
        line = self._line_here()
        path = table + self._key()
        self._note(path, line)
        self._expect("=")
        self._value(path)

    def _key(self) -> Path:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            if match := _BARE_KEY.match(self._text, self._at):
                parts.append(match.group())
            elif match := _STRING.match(self._text, self._at):
                parts.append(tomllib.loads(f"key = {match.group()}")["key"])
            else:
                raise ValueError("no key")
            self._at = match.end()
            self._skip(_SPACE)
            if not self._peek("."):
                return tuple(parts)
            self._at += 1

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        if self._peek("["):
            self._list(path)
        elif self._peek("{"):
            self._at += 1
            while self._skip(_BLANK) and not self._peek("}"):
                self._pair(path)
                self._skip(_BLANK)
                self._at += self._peek(",")
            self._expect("}")
        elif not self._skip(_STRING):
            self._skip(_SCALAR)

    def _list(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip(_BLANK) and not self._peek("]"):
            self._note((*path, index), self._line_here())
            self._value((*path, index))
            self._skip(_BLANK)
            if not self._peek(",") and not self._peek("]"):
                raise ValueError("no list")
            self._at += self._peek(",")
            index += 1
        self._expect("]")

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _peek(self, what: str) -> bool:
        return self._text.startswith(what, self._at)

    def _skip(self, what: re.Pattern[str]) -> bool:
        match = what.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match is not None

    def _expect(self, what: str) -> None:
        self._skip(_SPACE)
        if not self._peek(what):
            raise ValueError(f"no {what}")
        self._at += 1
