"""Texts of a manifest, each with its bound, and how a value is refused in our own words."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError

from schemas.reserved import reserved_for_workers

MAX_ENTRIES: Final = 256

HEALTH: Final = "system/health/"
_OWN_TOPIC: Final = "system/health/config-manager"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# As useradd(8) takes them, and a little more: names from a directory service have capitals and dots.
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}[A-Za-z0-9_$.-]?")
MAX_ID: Final = 2**32 - 2
"""The number above means "nobody" to chown(2) and setreuid(2)."""


def wrong(sentence: str) -> PydanticCustomError:
    """Give the error that refuses a value. `sentence` follows the key: "must be ...", "is ..."; it is no template."""
    return PydanticCustomError("manifest", "{sentence}", {"sentence": sentence})


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise wrong("is not the name of an environment variable; use letters, digits and _")
    if reserved_for_workers(name):
        raise wrong("is reserved: the supervisor sets it, or no worker may have it; remove it here")
    return name


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise wrong("holds a NUL character; remove it")
    return text


def _health_topic(topic: str) -> str:
    levels = topic.removeprefix(HEALTH).split("/")
    if not topic.startswith(HEALTH) or not all(levels) or re.search(r"[+#\x00-\x1f\x7f]", topic):
        raise wrong(f'is not a health topic; write "{HEALTH}" and a name, without +, # and empty levels')
    if topic == _OWN_TOPIC:
        raise wrong("is the supervisor's own health topic; give the service another")
    return topic


def _account(value: object) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return value
    if isinstance(value, str) and _ACCOUNT.fullmatch(value):
        return value
    raise wrong(f'must be a name in quotes, such as "tars-stt", or a number from 0 to {MAX_ID}')


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_without_nul)]
Value = Annotated[str, StringConstraints(max_length=32768), AfterValidator(_without_nul)]
Variable = Annotated[str, AfterValidator(_variable)]
HealthTopic = Annotated[str, StringConstraints(max_length=200), AfterValidator(_health_topic)]
# A user or a group: its name, or its number.
Account = Annotated[str | int, BeforeValidator(_account)]
