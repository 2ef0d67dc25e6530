"""A request's query: what it may say is read strictly, what else stands in it is ignored, unless a call wants `nothing_else`."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from urllib.parse import parse_qsl

from litestar.types import Scope

from api.bodies import invalid
from api.problems import quoted
from schemas.problems import FieldError, listed, unknown_keys

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Separators bound the number of pairs; more than these nobody has sent on purpose.
_LONGEST = 4096
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
# What an offset's plus has become where the client did not encode it.
_LOST_PLUS = re.compile("(?<=.{12}) (?=[0-9]{2}:?[0-9]{2}$)")


class Query:
    """Ask for each parameter, and then `check` them all. Of one that is given several times the last one counts."""

    def __init__(self, scope: Scope, *, form: bool = False) -> None:
        """`form`: an empty value is none, as where a form is sent that was not filled in."""
        query: bytes = scope["query_string"]
        self._given = dict(parse_qsl(query[:_LONGEST].decode("latin-1"), keep_blank_values=not form)) if query else {}
        self._errors: list[FieldError] = []
        if form and len(query) > _LONGEST:
            self.wrong("", f"The query is longer than {_LONGEST} bytes.", "too_long")

    def wrong(self, name: str, message: str, kind: str) -> None:
        """Note a mistake; see `FieldError`."""
        self._errors.append(FieldError(name, message, kind))

    def nothing_else(self, known: Sequence[str]) -> None:
        """Note as a mistake what is none of these parameters."""
        self._errors += unknown_keys([name for name in self._given if name not in known], known)

    def text(self, name: str) -> str | None:
        """What is given, if anything is."""
        return self._given.get(name)

    def moment(self, name: str, *, end: bool) -> datetime | None:
        """A time in ISO 8601 with its offset, in UTC; or a day in UTC: its first moment, or with `end` its last."""
        given = self._given.get(name)
        if given is None:
            return None
        try:
            if _DAY.fullmatch(given):
                return datetime.combine(date.fromisoformat(given), time.max if end else time.min, UTC)
            found = datetime.fromisoformat(_LOST_PLUS.sub("+", given))
            if found.tzinfo is not None:
                return found.astimezone(UTC)
        except ValueError:
            meant = "a time such as 2026-11-20T08:00:00Z, or a day such as 2026-11-20"
            self.wrong(name, f"{name} is {quoted(given)}; it is {meant}.", "format")
        except OverflowError:
            self.wrong(name, f"{name} is {quoted(given)}; in UTC it is not within the years 1 to 9999.", "out_of_range")
        else:
            self.wrong(name, f"{name} is {quoted(given)}; it needs an offset from UTC, such as Z or +01:00.", "format")
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        given = self._given.get(name)
        if given is None:
            return default
        known = _BOOLEANS.get(given.lower())
        if known is None:
            self._errors.append(FieldError(name, f"{name} is {quoted(given)}; it is true or false.", "wrong_type"))
        return bool(known)

    def whole(self, name: str, *, default: int, most: int, least: int = 0) -> int:
        """A number from `least` to `most`."""
        given = self._given.get(name)
        if given is None:
            return default
        if not (given.isascii() and given.isdecimal()):
            self._errors.append(FieldError(name, f"{name} is {quoted(given)}; it is a whole number.", "wrong_type"))
        elif len(given) > 18 or not least <= int(given) <= most:
            self._errors.append(
                FieldError(name, f"{name} is {quoted(given)}; it is {least} to {most}.", "out_of_range")
            )
        else:
            return int(given)
        return default

    def choice(self, name: str, allowed: Sequence[str], *, default: str) -> str:
        given = self._given.get(name, default)
        if given not in allowed:
            self._errors.append(
                FieldError(name, f"{name} is {quoted(given)}; it is one of {listed(allowed)}.", "not_allowed")
            )
        return given

    def check(self) -> None:
        """Raises Problem 422 with everything that is wrong."""
        if self._errors:
            raise invalid(self._errors)
