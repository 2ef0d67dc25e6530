"""What was in force once: from what is in force now, by undoing. Pure functions, without the store."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from msgspec import Struct

from schemas.history import KeyDifference
from schemas.records import ABSENT, SECRET_MARK
from schemas.service_schema import ServiceSchema
from schemas.types import ServiceName


class Layer(Struct, frozen=True):
    """What the owner of a service has set: its plain values, and the keys of its secrets."""

    values: Mapping[str, Any]
    secrets: AbstractSet[str]

    def shown(self, key: str) -> Any:
        """The value, a secret's mark, or `ABSENT`."""
        return SECRET_MARK if key in self.secrets else self.values.get(key, ABSENT)


class Undo(Struct, frozen=True):
    """The half of a history row that leads back: what the key had before, or `ABSENT`. A secret's is a mark."""

    key: str
    old: Any
    is_secret: bool


def state_at(present: Layer, newer: Iterable[Undo]) -> Layer:
    """Give the layer at a point.

    `newer`: the service's history rows that came after that point, newest first, and all of them; of several rows of one key the
    oldest alone does as well, for that is the one which counts.
    """
    values, secrets = dict(present.values), set(present.secrets)
    for each in newer:
        if each.is_secret:
            (secrets.discard if each.old is ABSENT else secrets.add)(each.key)
        elif each.old is ABSENT:
            values.pop(each.key, None)
        else:
            values[each.key] = each.old
    return Layer(values, secrets)


def differences(
    service: ServiceName, schema: ServiceSchema | None, old: Layer, new: Layer, touched: AbstractSet[str]
) -> Iterator[KeyDifference]:
    """Tell which settings differ, in the model's order, those that it has no more behind.

    `touched`: keys of secrets that were written between the two: nobody knows whether to the same value. No `schema`: the service
    has left the manifest.
    """
    there = {*old.values, *old.secrets, *new.values, *new.secrets}
    known = {} if schema is None else schema.fields
    defaults: Mapping[str, Any] = {} if schema is None else schema.defaults()
    for key in [*(key for key in known if key in there), *sorted(there - known.keys())]:
        before, after = old.shown(key), new.shown(key)
        written = key in touched and before is not ABSENT and after is not ABSENT
        if _same(before, after) and not written:
            continue
        # Also what was a plain value under an earlier model.
        is_secret = key in old.secrets or key in new.secrets or (schema is not None and key in schema.secret_keys)
        values = [_in_force(value, defaults.get(key), is_secret=is_secret) for value in (before, after)]
        apply: Literal["live", "restart", "none"] = "none"
        if schema is not None and key in known and (is_secret or not _same(*values)):
            apply = "restart" if key in schema.restart_keys else "live"
        yield KeyDifference(
            service=service,
            key=key,
            title=known[key].title if key in known else key,
            old=values[0],
            new=values[1],
            old_is_default=before is ABSENT,
            new_is_default=after is ABSENT,
            apply=apply,
            is_secret=is_secret,
        )


def _in_force(value: Any, default: Any, *, is_secret: bool) -> Any:
    if is_secret:
        return None if value is ABSENT else SECRET_MARK
    return default if value is ABSENT else value


def _same(one: Any, other: Any) -> bool:
    """JSON's equality: true is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
