r"""Strict JSON: one spelling for each value, bounded in size and depth.

A signature covers what a message means, not how it is spelled, so a lax parser lets a changed byte through
whenever two spellings mean the same: a key given twice, `1E5` for `1e5`, an upper-case digit in `\u001b`,
digits beyond a double's precision, an integer that does not fit and silently becomes a float.
Here a text counts only if writing its value again gives the same text. White space between tokens is free.
"""

import json
import re
from typing import Any

import orjson

MAX_DEPTH = 32

_BETWEEN_TOKENS = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\n]+', re.DOTALL)


class NotStrictJson(ValueError):
    """The bytes are not JSON, or not spelled the one way that counts."""


def too_deep(encoded: bytes, limit: int = MAX_DEPTH) -> bool:
    """Say whether valid JSON nests deeper than `limit` arrays and objects.

    Counting opening brackets settles nearly every case without a walk.
    """
    if encoded.count(b"{") + encoded.count(b"[") <= limit:
        return False
    layer: list[Any] = [orjson.loads(encoded)]
    for _ in range(limit):
        layer = [
            child
            for value in layer
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not any(isinstance(value, (dict, list)) for value in layer):
            return False
    return True


def loads(text: bytes) -> Any:
    """Parse strictly.

    Accepted spellings are those of orjson and of Python's `json` (with and without ASCII escapes). A carriage
    return between tokens is refused although JSON allows it: it is one flipped bit away from a tab.

    Raises:
        NotStrictJson: not JSON (RFC 8259), not UTF-8, a repeated key, a number that is not finite, does not fit
            or is not in its shortest form, an unusual escape, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotStrictJson(f"not JSON: {error}") from None
    if too_deep(text):
        raise NotStrictJson(f"nested deeper than {MAX_DEPTH} levels")
    if orjson.dumps(value) == text:  # compact, as a supervisor sends it
        return value
    compact = _BETWEEN_TOKENS.sub(rb"\1", text)
    if compact == orjson.dumps(value):
        return value
    for ascii_only in (True, False):
        spelled = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
        if compact == spelled.encode():
            return value
    raise NotStrictJson("a repeated key, or a number or an escape in an unusual spelling")
