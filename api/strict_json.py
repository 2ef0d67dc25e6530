"""JSON from outside: one meaning for each text, or an error that says where it is wrong (RFC 8259, RFC 7493)."""

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import orjson

from api.problems import Problem
from schemas.problems import FieldError

# A megabyte of brackets or one-digit numbers would hold the loop up for a tenth of a second on a fast machine. Commas and
# brackets inside texts count, too, which takes less time than telling them apart and harms nobody.
_MAX_MARKS = 100_000
_MAX_ERRORS = 20
_INT64 = range(-(2**63), 2**63)
_SPACES = b" \t\r\n"
_NOT_PLAIN = object()
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},]')

_Path = tuple[str | int, ...]


class _Wrong(NamedTuple):
    """Stands in the tree for what is no JSON. The text itself is not kept: it may be a secret."""

    message: str
    type: str


def loads(body: bytes, *, depth: int) -> Any:
    """The value of `body`.

    Raises:
        Problem: 400. Not UTF-8, not JSON, a key given twice in an object, a number that is not finite or does not
            fit (integers: 64 bits), half of a surrogate pair, more than `depth` arrays and objects inside one
            another, or far more values than any configuration has. Whatever has a place in the tree is named by it,
            and all such mistakes stand in `errors`.
    """
    opened = body.count(b"{") + body.count(b"[")
    if opened + body.count(b",") > _MAX_MARKS:
        raise Problem("malformed", f"The body has more than {_MAX_MARKS} commas and brackets.")
    if opened <= depth and (value := _plain(body)) is not _NOT_PLAIN:
        return value
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            "malformed", f"The body is not UTF-8: byte {error.start + 1} cannot be read. Send JSON in UTF-8."
        ) from None
    return _explained(text, depth)


def _plain(body: bytes) -> Any:
    """The value, by the fast parser, or `_NOT_PLAIN` where that leaves room for any doubt.

    orjson lets pass what is refused here: a key given twice, of which it keeps the last, and numbers that it rounds. Such a
    text it cannot write again. Spaces are left out of both texts, also within strings: no member comes or goes by that.
    """
    try:
        value = orjson.loads(body)
        again = orjson.dumps(value, None, orjson.OPT_STRICT_INTEGER)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return _NOT_PLAIN
    return value if again.translate(None, _SPACES) == body.translate(None, _SPACES) else _NOT_PLAIN


def _explained(text: str, depth: int) -> Any:
    """The value, by a parser that tells what is wrong and where. Raises as `loads` does."""
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise Problem(
            "malformed", f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise _too_deep(text, depth) from None
    if _nests_deeper(text, value, depth):
        raise _too_deep(text, depth)
    found = list(islice(_mistakes(value, ()), _MAX_ERRORS))
    # Where the two parsers differ in something else, the stricter one has the word.
    if not found and not _accepted_by_orjson(text):
        found = [((), _Wrong("It is not JSON.", "invalid"))]
    if found:
        raise _refused(found)
    return value


def _decoder() -> Callable[[str], Any]:
    def object_(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    found[key] = _Wrong("It stands twice in one object; send it once.", "invalid")
                seen.add(key)
        return found

    def integer(text: str) -> Any:
        # Beyond 20 characters it cannot fit, and reading it would take time that grows faster than its length.
        if len(text) <= 20 and (value := int(text)) in _INT64:
            return value
        return _Wrong("The number does not fit into 64 bits.", "out_of_range")

    def float_(text: str) -> Any:
        value = float(text)
        return value if math.isfinite(value) else _Wrong("The number is too large.", "out_of_range")

    def constant(text: str) -> Any:
        return _Wrong(f"{text} is not a JSON number; numbers must be finite.", "wrong_type")

    return json.JSONDecoder(
        object_pairs_hook=object_, parse_int=integer, parse_float=float_, parse_constant=constant
    ).decode


_decode = _decoder()


def _nests_deeper(text: str, value: Any, depth: int) -> bool:
    # Counting opening brackets settles nearly every case without a walk.
    if text.count("{") + text.count("[") <= depth:
        return False
    layer = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        children = [child for each in layer for child in (each.values() if isinstance(each, dict) else each)]
        layer = [child for child in children if isinstance(child, (dict, list))]
    return bool(layer)


def _accepted_by_orjson(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _mistakes(value: Any, path: _Path) -> Iterator[tuple[_Path, _Wrong]]:
    """Whatever in the tree is wrong, in its order; the tree is not deep any more."""
    if isinstance(value, _Wrong):
        yield path, value
    elif isinstance(value, str):
        if not _has_utf8(value):
            yield path, _Wrong("It holds half of a surrogate pair, which is no character.", "format")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not _has_utf8(key):
                yield (
                    (*path, key),
                    _Wrong("The key holds half of a surrogate pair, which is no character.", "format"),
                )
            yield from _mistakes(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _mistakes(inner, (*path, index))


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(found: list[tuple[_Path, _Wrong]]) -> Problem:
    """400 that names the first of `found` by its whole path, and each by its field, as a 422 does."""
    errors = [FieldError(_field(path), wrong.message, wrong.type) for path, wrong in found]
    path, first = found[0]
    more = f" ({len(found) - 1} more in `errors`)" if len(found) > 1 else ""
    return Problem("malformed", f"{_shown(path) or 'The body'}: {first.message}{more}", errors=errors)


def _too_deep(text: str, depth: int) -> Problem:
    # The way down is of no interest, the setting is.
    path = tuple(step for step in _deep_path(text, depth)[:2] if isinstance(step, str))
    path = path[: 2 if path[:1] == ("config",) else 1]
    return _refused([(path, _Wrong(f"It nests deeper than {depth} arrays and objects.", "invalid"))])


def _deep_path(text: str, depth: int) -> _Path:
    """Where the first one that is too deep stands. The text is sound up to there: else the parser had ended before it."""
    path: list[str | int | None] = []
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark in "{[":
            if len(path) == depth:
                break
            path.append(0 if mark == "[" else None)
        elif mark in "}]":
            path.pop()
        elif mark == ",":
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else None
        elif path and path[-1] is None:
            path[-1] = json.loads(mark)
    return tuple(step for step in path if step is not None)


def _field(path: _Path) -> str:
    """What a 422 calls it: the setting, or the member of the body."""
    match path:
        case ("config", str(key), *_):
            return _printable(key)
        case (str(member), *_):
            return _printable(member)
    return ""


def _shown(path: _Path) -> str:
    """`config.colours[2]`, cut where it is long."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_printable(step)}" for step in path)
    text = text.removeprefix(".")
    return f"{text[:120]}…" if len(text) > 120 else text


def _printable(key: str) -> str:
    return key[:80].encode("utf-8", "replace").decode()
