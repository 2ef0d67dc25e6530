"""Text that is safe to show: no colours, no control characters, nothing that turns the reading direction around."""

import re

_ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor (ECMA-48, section 5.4)
    r"|\x1b[\]PX^_][^\x07\x1b]{0,2048}(?:\x07|\x1b\\)"  # OSC, DCS and the other strings: titles, links
    r"|\x1b[ -/]*[0-Z\\^-~]"  # two bytes, and character sets
)
# A tab shows; a line feed can only have come in a JSON string. The others would move a terminal's cursor, end a line
# somewhere, or let text read as what it is not (CVE-2021-42574).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: str) -> str:
    r"""`text` without escape sequences of terminals, other control characters written as `\x1b`, `\u2028`."""
    if text.isprintable():
        return text
    return _CONTROL.sub(_escaped, _ANSI.sub("", text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 0x0D:
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
