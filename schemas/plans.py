"""What a change would do, told before it is made."""

from typing import Literal, TypeAlias

from msgspec import Struct

from schemas.problems import FieldError
from schemas.types import JSON

Apply: TypeAlias = Literal["live", "restart", "none"]
"""How the worker gets a new value; `none`: what it runs with stays the same."""


class PlannedKey(Struct, frozen=True):
    """One setting that would change, with the values that are in force in the store or by default. A secret's are marks."""

    key: str
    title: str
    old: JSON
    new: JSON
    old_is_default: bool
    new_is_default: bool
    apply: Apply
    is_secret: bool


class PlannedRestart(Struct, frozen=True):
    """A worker that would be restarted. `last_away_s`: for how many seconds it was away the last time, None where there was none
    in this life of the supervisor.
    """

    service: str
    last_away_s: float | None


class ChangePlan(Struct, frozen=True):
    """What a change of a service at `version` would do; where there are `errors`, it would be refused for them."""

    service: str
    version: int
    config_epoch: str
    changes: tuple[PlannedKey, ...]
    restarts: tuple[PlannedRestart, ...]
    errors: tuple[FieldError, ...]
    message: str
