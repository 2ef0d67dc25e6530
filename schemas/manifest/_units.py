"""Durations and sizes of a manifest: numbers, or texts with a unit."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from msgspec import Struct
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from schemas.manifest._texts import wrong
from schemas.problems import listed

SECONDS: Final[Mapping[str, Fraction]] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
}
BYTES: Final[Mapping[str, Fraction]] = {
    "B": Fraction(1),
    "KiB": Fraction(2**10),
    "MiB": Fraction(2**20),
    "GiB": Fraction(2**30),
    "TiB": Fraction(2**40),
}
KIB: Final = 2**10
MIB: Final = 2**20
GIB: Final = 2**30
TIB: Final = 2**40

_MEANT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("msec", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("byte", "bytes"), "B"),
    **dict.fromkeys(("k", "kb", "kib"), "KiB"),
    **dict.fromkeys(("mb", "mib"), "MiB"),
    **dict.fromkeys(("g", "gb", "gib"), "GiB"),
    **dict.fromkeys(("t", "tb", "tib"), "TiB"),
}
_TEXT: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))? ?([A-Za-z]{0,12})")


class Duration(Struct, frozen=True):
    """Marks a `float` as a number of seconds from `low` to `high`; the manifest may say `90`, `1.5` or `"2 min"`."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return f'{self.low:g} to {self.high:g} seconds, such as 10, 1.5, "500 ms" or "2 min"'

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _json_schema("number", self.low, self.high, _pattern(SECONDS))

    def read(self, value: object) -> float:
        number = _number(value, SECONDS, self.words)
        if not self.low <= number <= self.high:
            raise wrong(f"must be {self.words}")
        return float(number)


class Size(Struct, frozen=True):
    """Marks an `int` as a number of bytes from `low` to `high`; the manifest may say `4096` or `"1.5 GiB"`."""

    low: int
    high: int

    @property
    def words(self) -> str:
        return f'{in_bytes(self.low)} to {in_bytes(self.high)}, such as 4194304 or "4 MiB"'

    @property
    def pattern(self) -> str:
        """A regular expression for the texts, in every dialect."""
        return _pattern(BYTES)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _json_schema("integer", self.low, self.high, self.pattern)

    def read(self, value: object) -> int:
        number = _number(value, BYTES, self.words)
        # A text may name a part of a byte ("0.1 KiB"), which nobody means.
        whole = number.__floor__()
        if isinstance(value, float) or not self.low <= whole <= self.high:
            raise wrong(f"must be {self.words}")
        return whole


def in_seconds(seconds: float) -> str:
    """The largest unit that gives a whole number, such as `90 s`."""
    # Through its text: 0.1 is meant, not the binary fraction next to it.
    return _in(Fraction(str(seconds)), SECONDS, "s")


def in_bytes(size: int) -> str:
    """The largest unit that gives a whole number, such as `4 MiB`."""
    return _in(Fraction(size), BYTES, "B")


def _in(number: Fraction, units: Mapping[str, Fraction], zero: str) -> str:
    if not number:
        return f"0 {zero}"
    for unit, factor in reversed(list(units.items())):
        if (number / factor).denominator == 1:
            return f"{number // factor} {unit}"
    return f"{float(number)} {zero}"


def _number(value: object, units: Mapping[str, Fraction], words: str) -> Fraction:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return Fraction(value)
        except (OverflowError, ValueError):  # infinite, or not a number
            raise wrong(f"must be {words}") from None
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise wrong(f"must be {words}")
    whole, part, unit = match.groups()
    if unit not in units:
        meant = _MEANT.get(unit.lower(), "")
        hint = f'; did you mean "{whole}{f".{part}" if part else ""} {meant}"?' if meant in units else ""
        what = f'has the unknown unit "{unit}"' if unit else "has no unit"
        raise wrong(f"{what}; the units are {listed(list(units))}{hint}")
    return Fraction(f"{whole}.{part or 0}") * units[unit]


def _pattern(units: Mapping[str, Fraction]) -> str:
    return rf"^[0-9]{{1,20}}(\.[0-9]{{1,9}})? ?({'|'.join(units)})$"


def _json_schema(kind: str, low: float, high: float, pattern: str) -> JsonSchemaValue:
    return {"anyOf": [{"type": kind, "minimum": low, "maximum": high}, {"type": "string", "pattern": pattern}]}
