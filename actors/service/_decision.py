"""What a requested change comes to: the rules of PUT and PATCH, without doing anything.

Source: contract, section 4 (PUT, PATCH) and section 6 (secrets); RFC 7396 for the merge patch.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from tars_config.wire import MAX_CONFIG_BYTES, canonical

from actors.exact import exact
from schemas.changes import ConfigChange, OverriddenByEnvironment
from schemas.problems import ConfigInvalid, FieldError
from schemas.records import ABSENT, SECRET_MARK, HistoryChange, ItemRow
from schemas.service_schema import ServiceSchema
from schemas.types import JSON, Checksum

KEYS_TOLD = 20
"""Keys that one line names."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What a service runs with now.

    `stored` is the database layer, `overrides` what the environment sets, `overridden` its keys with the secrets among
    them, `secrets` the keys of the secrets in the store. `reveal(key)` gives a stored secret in clear, to compare with, or
    None where it cannot be opened.
    """

    stored: Mapping[str, JSON]
    overrides: Mapping[str, JSON]
    overridden: frozenset[str]
    secrets: frozenset[str]
    reveal: Callable[[str], str | None] = field(repr=False)


class OnWire(Struct, frozen=True):
    """A configuration as it is signed and sent: defaults overlaid by the database layer."""

    config: Mapping[str, JSON]
    canonical: bytes
    checksum: Checksum


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be stored. `secrets` maps a key to its new value, or to None where it is deleted.

    `live` and `restart` are the keys whose value changes for the worker, environment included.
    """

    stored: Mapping[str, JSON]
    wire: OnWire
    history: tuple[HistoryChange, ...]
    items: tuple[ItemRow, ...]
    secrets: Mapping[str, str | None] = field(repr=False)
    live: tuple[str, ...]
    restart: tuple[str, ...]

    @property
    def changes_anything(self) -> bool:
        return bool(self.history or self.secrets)

    def told(self) -> str:
        """Say which keys change, and how the worker gets each; never a value."""
        how = {**dict.fromkeys(self.live, "live"), **dict.fromkeys(self.restart, "restart")}
        keys = list(dict.fromkeys([*(change.key for change in self.history), *self.secrets]))
        told = [f"{key} ({how.get(key, 'the same value')})" for key in keys[:KEYS_TOLD]]
        more = len(keys) - len(told)
        return ", ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def on_wire(schema: ServiceSchema, stored: Mapping[str, JSON]) -> OnWire:
    """Give what readers get for this database layer."""
    config = schema.effective(stored)
    encoded = exact(canonical(config))
    return OnWire(config, encoded, Checksum(hashlib.sha256(encoded).hexdigest()))


def run_with(schema: ServiceSchema, now: InForce) -> dict[str, JSON]:
    """Give what the worker runs with: the environment included, secrets as mask or null; in the model's order."""
    plain = {**schema.effective(now.stored), **now.overrides}
    return {
        key: (SECRET_MARK if key in now.secrets or key in now.overridden else None)
        if key in schema.secret_keys
        else plain[key]
        for key in schema.keys
    }


def decide(schema: ServiceSchema, now: InForce, change: ConfigChange) -> Decision:
    """Judge a change.

    Raises:
        ConfigInvalid: with every problem, unknown keys among them.
        OverriddenByEnvironment: it changes what the environment sets.
    """
    # What a GET shows, but for secrets; every other mapping here has only the keys that differ from it.
    before = {**schema.effective(now.stored), **now.overrides}
    plain = {key: value for key, value in change.config.items() if key not in schema.secret_keys}
    secrets = _changed_secrets(schema, now, change.config)
    stored = _asked_for(schema, now, change, plain, before)
    if now.overridden and not change.layer:
        _refuse_overridden(schema, now, plain=plain, shown=before, stored=stored, secrets=secrets)

    # Unknown keys are not in the model; they go to the check as they came, to be named by it.
    unknown = {key: value for key, value in plain.items() if key not in schema.fields}
    given = {key: value for key, value in secrets.items() if value is not None}
    checked = schema.check({**schema.effective(stored), **unknown}, secrets=given)
    if now.overrides:
        # Rules between settings must hold for what the worker runs with, too.
        schema.check({**checked, **now.overrides})
    stored = {key: checked.get(key, value) for key, value in stored.items()}

    wire = on_wire(schema, stored)
    if len(wire.canonical) > MAX_CONFIG_BYTES:
        message = f"The configuration has {len(wire.canonical)} bytes; it can have {MAX_CONFIG_BYTES}."
        raise ConfigInvalid([FieldError("config", message, "too_long")])
    history = tuple(
        HistoryChange(key, now.stored.get(key, ABSENT), stored.get(key, ABSENT))
        for key in {**now.stored, **stored}
        if not _same(now.stored.get(key, ABSENT), stored.get(key, ABSENT))
    )
    after = wire.config
    # Defaults and environment are the same before and after: only what is stored can make a difference.
    moved = {
        change.key
        for change in history
        if change.key not in now.overrides and not _same(before.get(change.key), after.get(change.key))
    }
    moved.update(secrets)
    return Decision(
        stored=stored,
        wire=wire,
        history=history,
        items=tuple(_item(schema, change.key, wire.config.get(change.key, ABSENT)) for change in history)
        + tuple(_item(schema, key, SECRET_MARK if value is not None else None) for key, value in secrets.items()),
        secrets=secrets,
        live=tuple(key for key in schema.keys if key in moved and key not in schema.restart_keys),
        restart=tuple(key for key in schema.keys if key in moved and key in schema.restart_keys),
    )


def _asked_for(
    schema: ServiceSchema, now: InForce, change: ConfigChange, plain: Mapping[str, Any], shown: Mapping[str, JSON]
) -> dict[str, Any]:
    """The database layer that the change wants."""
    if change.layer:
        return dict(plain)
    return _patched(schema, now, plain) if change.merge else _replaced(now, plain, shown)


def _replaced(now: InForce, plain: Mapping[str, Any], shown: Mapping[str, JSON]) -> dict[str, Any]:
    """PUT: the whole object. What is left out returns to its default; what was not set and is sent back stays unset."""
    stored: dict[str, Any] = {}
    for key, value in shown.items():
        if key not in plain:
            continue
        if key in now.overridden:
            # Unchanged, or refused below.
            if key in now.stored:
                stored[key] = now.stored[key]
        elif key in now.stored:
            stored[key] = plain[key]
        else:
            given = plain[key]
            # Of one type, as nearly all are, it takes no call to see that nothing differs.
            if (type(given) is not type(value) or given != value) and not _same(given, value):
                stored[key] = given
    return stored


def _patched(schema: ServiceSchema, now: InForce, plain: Mapping[str, Any]) -> dict[str, Any]:
    """PATCH: null returns a key to its default, any other value is pinned, the default's own included."""
    stored: dict[str, Any] = dict(now.stored)
    for key, value in plain.items():
        if key not in schema.fields or key in now.overridden:
            continue
        if value is None:
            stored.pop(key, None)
        else:
            stored[key] = value
    return stored


def _changed_secrets(schema: ServiceSchema, now: InForce, config: Mapping[str, Any]) -> dict[str, Any]:
    """Secrets that are set or deleted: absent and mask mean unchanged, null deletes, anything else sets."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key not in schema.secret_keys or value == SECRET_MARK:
            continue
        if value is None:
            if key in now.secrets:
                changed[key] = None
        elif not (key in now.secrets and now.reveal(key) == value):
            changed[key] = value
    return changed


def _refuse_overridden(
    schema: ServiceSchema,
    now: InForce,
    *,
    plain: Mapping[str, Any],
    shown: Mapping[str, JSON],
    stored: Mapping[str, Any],
    secrets: Mapping[str, Any],
) -> None:
    refused = tuple(
        key
        for key in schema.keys
        if key in now.overridden
        and (
            key in secrets
            or (key in plain and not _same(plain[key], shown[key]))
            or (key in now.stored and key not in stored)
        )
    )
    if refused:
        raise OverriddenByEnvironment(refused)


def _same(one: Any, other: Any) -> bool:
    """JSON's equality: true is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _item(schema: ServiceSchema, key: str, value: Any) -> ItemRow:
    spec = schema.fields.get(key)
    if spec is None:
        # A key that the model no longer has: its row goes.
        return ItemRow(key, ABSENT, "string", "advanced", "")
    return ItemRow(
        key=key,
        value=value,
        type=spec.type,
        complexity=spec.complexity,
        description=spec.description,
        help_text=spec.help_text,
        examples=spec.examples,
        is_secret=spec.is_secret,
    )
