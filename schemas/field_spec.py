"""One setting of a service, as its form, its API and its checks need it."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.problems import FieldError, listed
from schemas.settings import Apply, Complexity
from schemas.types import JSON

FieldType = Literal["string", "integer", "float", "boolean", "enum", "path", "secret"]

# Beyond it two readers of the same JSON may see two different numbers (RFC 8259, section 6).
MAX_INTEGER: Final = 2**53 - 1

# Characters of one text. A whole configuration is at most 256 KiB.
MAX_TEXT: Final = 65536

_SHOWN: Final = 60
_TOO_BIG: Final = f"No setting can be beyond {MAX_INTEGER} or -{MAX_INTEGER}."
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class Refused(Exception):
    """A value that is of no use; `error` says why."""

    def __init__(self, error: FieldError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One setting. `minimum` and `maximum` are inclusive unless `exclusive_*` says otherwise."""

    key: str
    title: str
    type: FieldType
    complexity: Complexity
    apply: Apply
    description: str
    help_text: str
    examples: tuple[JSON, ...]
    default: JSON
    nullable: bool
    unit: str | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    allowed: tuple[str, ...] | None = None

    @property
    def is_secret(self) -> bool:
        return self.type == "secret"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return self.key.upper()

    def from_json(self, value: object) -> JSON:
        """`value` as this setting's JSON type, without judging its range.

        Control characters are left to the setting's own rules, but for NUL, which no text may hold.

        A whole number is taken where a float is wanted, and 5.0 where an integer is, since JSON has one kind of
        number. Nothing else is converted.

        Raises:
            Refused: it is of another type.
        """
        if value is None:
            if self.nullable:
                return None
            raise Refused(self.error("wrong_type", "It cannot be null; leave it out to return to its default."))
        converted: JSON = _FROM_JSON[self.type](value)
        if converted is None:
            raise Refused(self.wrong(value, f"It must be {_TYPE_WORDS[self.type]}.", "wrong_type"))
        if isinstance(converted, int) and abs(converted) > MAX_INTEGER:
            raise Refused(self.out_of_range(value) if self._bounded() else self.wrong(value, _TOO_BIG, "out_of_range"))
        if isinstance(converted, str) and self.type != "enum":
            if "\0" in converted:
                # No environment variable, path or argument of a worker can carry it.
                raise Refused(FieldError(self.key, f"{self.title} holds a NUL character. It must not.", "format"))
            if len(converted) > MAX_TEXT:
                raise Refused(self.wrong_length(converted))
        return converted

    def from_text(self, text: str) -> JSON:
        """The value that the environment variable's `text` stands for, without judging its range.

        Booleans are `true 1 yes on` and `false 0 no off` in any case; numbers as in Python, without underscores.

        Raises:
            Refused: it stands for none.
        """
        stripped = text.strip()
        value: JSON = None
        if self.type == "boolean":
            value = True if stripped.lower() in _TRUE else False if stripped.lower() in _FALSE else None
        elif self.type == "integer":
            value = int(stripped) if _INTEGER.fullmatch(stripped) else None
        elif self.type == "float":
            value = float(stripped) if _NUMBER.fullmatch(stripped) else None
        else:
            value = stripped if self.type == "enum" else text
        if value is None:
            raise Refused(self.wrong(text, f"It must be {_TEXT_WORDS[self.type]}.", "wrong_type"))
        return self.from_json(value)

    def unset_by(self, text: str) -> bool:
        """Whether an environment variable with this `text` counts as not there.

        An empty one does, except where empty is a value that the setting can have.
        """
        return not text.strip() and (self.type != "string" or bool(self.min_length) or self.pattern is not None)

    def error(self, type_: str, sentence: str) -> FieldError:
        """An error that names the setting but no value."""
        return FieldError(self.key, f"{self.title}: {sentence}", type_)

    def wrong(self, value: object, sentence: str, type_: str) -> FieldError:
        """An error that quotes the value, unless it is a secret's."""
        if self.is_secret:
            return self.error(type_, sentence)
        return FieldError(self.key, f"{self.title} is {self.shown(value)}. {sentence}", type_)

    def out_of_range(self, value: object) -> FieldError:
        """`Volume is 240 %. It can be 0 to 200 %.`."""
        return self.wrong(value, self._range(), "out_of_range")

    def wrong_length(self, value: str) -> FieldError:
        """`Acknowledgement has 130 characters. It can have 0 to 100.`; nothing of a secret's length."""
        low, high = self.min_length or 0, self.max_length or MAX_TEXT
        type_ = "too_short" if len(value) < low else "too_long"
        if self.is_secret:
            return self.error(
                type_, f"It must have {f'at least {low}' if type_ == 'too_short' else f'at most {high}'} characters."
            )
        if not value:
            return FieldError(self.key, f"{self.title} is empty. It must have {low} to {high} characters.", type_)
        have = f"{len(value)} character{'s' if len(value) != 1 else ''}"
        return FieldError(self.key, f"{self.title} has {have}. It can have {low} to {high}.", type_)

    def not_allowed(self, value: object) -> FieldError:
        """`Speech recognition is "wisper". It can be whisper, ws or openai.`."""
        return self.wrong(value, f"It can be {listed(self.allowed or ())}.", "not_allowed")

    def not_matching(self, value: object) -> FieldError:
        return self.wrong(value, f"It must match the pattern {self.pattern}{self._such_as()}.", "pattern")

    def malformed(self, predicate: str) -> FieldError:
        """`Memory folder is not absolute. It must begin with "/", for example "/data/memory".`."""
        return FieldError(self.key, f"{self.title} {predicate}{self._such_as()}.", "format")

    def shown(self, value: object) -> str:
        """`value` as a message quotes it: JSON, shortened, numbers with their unit."""
        if isinstance(value, str):
            text = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
            # What cannot be written as UTF-8 must not make the error itself fail.
            return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            number = _number(value)
            return self._with_unit(number) if number[-1].isdigit() else number
        if value is None:
            return "null"
        return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "no JSON value"

    def _with_unit(self, number: str) -> str:
        return f"{number} {self.unit}" if self.unit else number

    def _such_as(self) -> str:
        example = next((each for each in self.examples if isinstance(each, str) and each), None)
        return f", for example {json.dumps(example, ensure_ascii=False)}" if example is not None else ""

    def _bounded(self) -> bool:
        return self.minimum is not None and self.maximum is not None

    def _range(self) -> str:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and not (self.exclusive_minimum or self.exclusive_maximum):
            return f"It can be {_number(low)} to {self._with_unit(_number(high))}."
        bounds = []
        if low is not None:
            words = "more than" if self.exclusive_minimum else "at least"
            bounds.append(f"{words} {self._with_unit(_number(low))}")
        if high is not None:
            words = "less than" if self.exclusive_maximum else "at most"
            bounds.append(f"{words} {self._with_unit(_number(high))}")
        return f"It must be {listed(bounds, 'and')}."


def _number(value: float) -> str:
    if isinstance(value, int):
        # Python refuses to write out integers of more than 4300 digits.
        return str(value) if abs(value) < 10**_SHOWN else "a number of more than 60 digits"
    if math.isnan(value):
        return "not a number (NaN)"
    if math.isinf(value):
        return "infinite"
    return repr(value).removesuffix(".0")


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _as_boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _as_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        # Adding zero turns -0.0 into 0.0: equal values have one checksum.
        number = float(value) + 0.0
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_FROM_JSON: Final[dict[str, Callable[[object], Any]]] = {
    "string": _as_text,
    "path": _as_text,
    "enum": _as_text,
    "secret": _as_text,
    "boolean": _as_boolean,
    "integer": _as_integer,
    "float": _as_float,
}
_TYPE_WORDS: Final[dict[str, str]] = {
    "string": "text",
    "path": "text",
    "enum": "text",
    "secret": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "float": "a number",
}
_TEXT_WORDS: Final[dict[str, str]] = {
    "boolean": "true, 1, yes or on, or false, 0, no or off",
    "integer": "a whole number",
    "float": "a number",
}
