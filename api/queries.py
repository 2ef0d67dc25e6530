"""A request's query: what it may say is read strictly, what else stands in it is ignored."""

from collections.abc import Sequence
from urllib.parse import parse_qsl

from litestar.types import Scope

from api.bodies import invalid
from api.problems import quoted
from schemas.problems import FieldError, listed

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Separators bound the number of pairs; more than these nobody has sent on purpose.
_LONGEST = 4096


class Query:
    """Ask for each parameter, and then `check` them all. Of one that is given several times the last one counts."""

    def __init__(self, scope: Scope) -> None:
        query: bytes = scope["query_string"]
        self._given = dict(parse_qsl(query[:_LONGEST].decode("latin-1"), keep_blank_values=True)) if query else {}
        self._errors: list[FieldError] = []

    def flag(self, name: str, *, default: bool) -> bool:
        given = self._given.get(name)
        if given is None:
            return default
        known = _BOOLEANS.get(given.lower())
        if known is None:
            self._errors.append(FieldError(name, f"{name} is {quoted(given)}; it is true or false.", "wrong_type"))
        return bool(known)

    def whole(self, name: str, *, default: int, most: int) -> int:
        """A number from 0 to `most`."""
        given = self._given.get(name)
        if given is None:
            return default
        if not (given.isascii() and given.isdecimal()):
            self._errors.append(FieldError(name, f"{name} is {quoted(given)}; it is a whole number.", "wrong_type"))
        elif len(given) > 18 or int(given) > most:
            self._errors.append(FieldError(name, f"{name} is {quoted(given)}; it is 0 to {most}.", "out_of_range"))
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
