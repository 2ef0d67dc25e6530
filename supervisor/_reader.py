"""Typed access to the variables, collecting one sentence for every mistake instead of stopping at the first."""

import base64
import binascii
import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from supervisor._dotenv import Entry
from supervisor._variables import BY_NAME

T = TypeVar("T")

ENVIRONMENT = "environment"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SHOWN = 60
"""Longest piece of a value, in characters, that an error repeats."""


class Found(NamedTuple):
    """A variable's text and where it stands: `environment`, or `file:line`."""

    text: str
    source: str


class BadValueError(ValueError):
    """A value that cannot be used: what is wrong and how to mend it. Never holds a secret."""


class Reader:
    """The process environment over the entries of a `.env`; an empty value counts as not set."""

    def __init__(self, environ: Mapping[str, str], entries: Iterable[Entry], file: Path) -> None:
        self._found: dict[str, Found] = {}
        for entry in entries:
            if entry.value:
                self._found[entry.key] = Found(entry.value, f"{file}:{entry.line}")
        for key, value in environ.items():
            if value:
                self._found[key] = Found(value, ENVIRONMENT)
        self.mistakes: list[str] = []

    def sources(self) -> dict[str, str]:
        """Where it stands, for each variable of ours that is set, and for whatever else `.env` sets."""
        return {
            name: found.source for name, found in self._found.items() if name in BY_NAME or found.source != ENVIRONMENT
        }

    def find(self, name: str) -> Found | None:
        if name not in BY_NAME:
            # A variable that is read is in the table, and so in the documentation.
            raise LookupError(name)
        return self._found.get(name)

    def value(self, name: str, convert: Callable[[str], T], default: T) -> T:
        """The converted value; where there is none, or a mistake (which is noted), `default`."""
        found = self.find(name)
        if found is None:
            return default
        try:
            return convert(found.text)
        except BadValueError as error:
            self.wrong(name, str(error))
            return default

    def wrong(self, name: str, what: str) -> None:
        """Note a mistake in the variable `name`."""
        found = self.find(name)
        self.mistakes.append(f"{found.source if found else ENVIRONMENT}: {name} {what}")

    def one_of(self, *names: str) -> str | None:
        """Which of several names for one thing counts: the process environment goes before the file.

        Two of them in the same place with different values are a mistake.
        """
        present = [(name, found) for name in names if (found := self.find(name)) is not None]
        here = [each for each in present if each[1].source == ENVIRONMENT] or present
        if not here:
            return None
        first, *others = here
        for name, found in others:
            if found.text != first[1].text:
                self.wrong(name, f"and {first[0]} mean the same but have different values; keep one of them")
        return first[0]

    def warnings(self) -> list[str]:
        """A sentence for each variable that is none of ours but almost spelled like one."""
        found = []
        families = {name.split("_")[0] for name in BY_NAME}
        for name in sorted(self._found.keys() - BY_NAME.keys()):
            source = self._found[name].source
            if source == ENVIRONMENT and name.split("_")[0] not in families:
                continue  # the rest of a login's environment is no business of ours
            near = difflib.get_close_matches(name.upper(), BY_NAME, n=1, cutoff=0.85)
            if near:
                found.append(f"{source}: {name} is not a variable of the supervisor; did you mean {near[0]}?")
        return found


def shown(text: str) -> str:
    """A value as an error may repeat it: on one line, quoted, cut."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValueError(f"is {shown(text)}, which is neither yes nor no; write 1 or 0")


def port(text: str) -> int:
    """A TCP port; 0 lets the kernel choose a free one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise BadValueError(f"is {shown(text)}, which is no port; write a whole number from 0 to 65535")
    return int(text)


def choice(*allowed: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        word = text.strip().lower()
        if word in allowed:
            return word
        near = difflib.get_close_matches(word, allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise BadValueError(f"is {shown(text)}; write one of {', '.join(allowed)}{hint}")

    return convert


def key_bytes(text: str) -> bytes:
    """The 32 bytes of a key in base64 (standard alphabet, padded)."""
    mend = "write 32 random bytes in base64, as `openssl rand -base64 32` makes them"
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise BadValueError(f"is not base64; {mend}") from None
    if len(key) != 32:
        raise BadValueError(f"holds {len(key)} bytes where a key has 32; {mend}")
    return key


def base64_text(text: str) -> str:
    """The UTF-8 text that a `_B64` variable carries."""
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadValueError("is not a text in base64; write what `base64 -w0 FILE` gives") from None


def identifier(text: str) -> str:
    """The name of a key."""
    if not (len(text) <= 64 and text.isascii() and all(c.isalnum() or c in "._-" for c in text)):
        raise BadValueError(f"is {shown(text)}, which is no name of a key; use at most 64 letters, digits, and . _ -")
    return text
