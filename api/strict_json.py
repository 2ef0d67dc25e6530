"""JSON from outside: one meaning for each text, or an error that says where it is wrong (RFC 8259, RFC 7493)."""

import json
import math
from typing import Any

import orjson

from api.problems import Problem, quoted

# A megabyte of brackets or one-digit numbers would hold the loop up for a tenth of a second on a fast machine. Commas and
# brackets inside texts count, too, which takes less time than telling them apart and harms nobody.
_MAX_MARKS = 100_000
_INT64 = range(-(2**63), 2**63)


def loads(body: bytes, *, depth: int) -> Any:
    """The value of `body`.

    Raises:
        Problem: 400. Not UTF-8, not JSON, a key given twice in an object, a number that is not finite or does not
            fit (integers: 64 bits), half of a surrogate pair, more than `depth` arrays and objects inside one
            another, or far more values than any configuration has.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            "malformed", f"The body is not UTF-8: byte {error.start + 1} cannot be read. Send JSON in UTF-8."
        ) from None
    if text.count(",") + text.count("{") + text.count("[") > _MAX_MARKS:
        raise Problem("malformed", f"The body has more than {_MAX_MARKS} commas and brackets.")
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise Problem(
            "malformed", f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise _too_deep(depth) from None
    if _nests_deeper(text, value, depth):
        raise _too_deep(depth)
    # Only an escape can smuggle half a surrogate pair into UTF-8.
    if "\\u" in text:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Problem("malformed", f"The body is not JSON: {error}.") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Problem("malformed", f"The key {quoted(key)} stands twice in one object. Send it once.")
            seen.add(key)
    return found


def _integer(text: str) -> int:
    # Beyond 20 characters it cannot fit, and reading it would take time that grows faster than its length.
    if len(text) <= 20 and (value := int(text)) in _INT64:
        return value
    raise Problem("malformed", f"The number {quoted(text, 30)} does not fit into 64 bits.")


def _float(text: str) -> float:
    value = float(text)
    if math.isfinite(value):
        return value
    raise Problem("malformed", f"The number {quoted(text, 30)} is too large.")


def _constant(text: str) -> Any:
    raise Problem("malformed", f"{text} is not a JSON number. Numbers must be finite.")


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
).decode


def _nests_deeper(text: str, value: Any, depth: int) -> bool:
    # Counting opening brackets settles nearly every case without a walk.
    if text.count("{") + text.count("[") <= depth:
        return False
    layer = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        children = [child for each in layer for child in (each.values() if isinstance(each, dict) else each)]
        layer = [child for child in children if isinstance(child, (dict, list))]
    return bool(layer)


def _too_deep(depth: int) -> Problem:
    return Problem("malformed", f"The body nests deeper than {depth} arrays and objects.")
