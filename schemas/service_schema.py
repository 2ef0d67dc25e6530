"""A service's configuration model, as everything else uses it."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import asdict
from enum import Enum
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, Self, final

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.field_spec import FieldSpec, Refused
from schemas.model_reader import read_fields
from schemas.problems import ConfigInvalid, FieldError, SchemaInvalid, unknown_keys
from schemas.records import SECRET_MARK
from schemas.types import JSON

_RANGE: Final = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_LENGTH: Final = frozenset({"string_too_short", "string_too_long", "too_short", "too_long"})


@final
class ServiceSchema:
    """What one service can be set to: built once from a Pydantic model, immutable, shared freely.

    Attributes:
        name: the service's.
        model: the Pydantic model class; every default of it is valid.
        keys: all settings in the model's order, secrets included.
        secret_keys: those that never appear in a configuration.
        restart_keys: those whose change the worker only sees after a restart.
        fields: what is known of each setting.
        digest: SHA-256 over everything that is known of the settings, in hexadecimal; it changes with a default, a
            bound or a text.

    Raises:
        SchemaInvalid: the model holds something that is no setting, or a default that it refuses itself.
    """

    __slots__ = (
        "_accepted",
        "_defaults",
        "_described",
        "digest",
        "fields",
        "keys",
        "model",
        "name",
        "restart_keys",
        "secret_keys",
    )

    def __init__(self, name: str, model: type[BaseModel], *, source: str | None = None) -> None:
        source = source or f"model {model.__module__}:{model.__qualname__}"
        fields = read_fields(model, source)
        self.name = name
        self.model = model
        self.keys: tuple[str, ...] = tuple(fields)
        self.secret_keys = frozenset(key for key, field in fields.items() if field.is_secret)
        self.restart_keys = frozenset(key for key, field in fields.items() if field.apply == "restart")
        self.fields: Mapping[str, FieldSpec] = MappingProxyType(fields)
        self._defaults: dict[str, JSON] = {k: f.default for k, f in fields.items() if not f.is_secret}
        self._accepted: Mapping[str, JSON] = {}
        try:
            # From here on a value that is the default itself needs no second look.
            self._accepted = self._defaults = self.check(self._defaults)
        except ConfigInvalid as error:
            raise SchemaInvalid(source, [f"a default is invalid: {each.message}" for each in error.errors]) from error
        self._described = {key: _described(field, self._defaults.get(key)) for key, field in fields.items()}
        known = [asdict(field) for field in fields.values()]
        self.digest = hashlib.sha256(orjson.dumps(known, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def of(self, name: str) -> Self:
        """The same for another service; nothing is built or held twice."""
        other = copy(self)
        other.name = name
        return other

    def defaults(self) -> dict[str, JSON]:
        """The default of every setting that is not a secret."""
        return dict(self._defaults)

    def effective(self, stored: Mapping[str, JSON]) -> dict[str, JSON]:
        """The defaults overlaid by the database layer: `config` as it is on the wire, without secrets.

        What is stored under a key that the model no longer has is left out. Nothing is checked.
        """
        if stored.keys() <= self._defaults.keys():
            return {**self._defaults, **stored}
        return {key: stored.get(key, default) for key, default in self._defaults.items()}

    def check(self, values: Mapping[str, Any], *, secrets: Mapping[str, Any] | None = None) -> dict[str, JSON]:
        """Validate a whole configuration and return it with normalised JSON values, without secrets.

        A setting that is left out has its default; a secret that is left out or None is not set. `1` for a float
        comes back as `1.0`.

        Raises:
            ConfigInvalid: with every problem. Rules between settings are judged where each of these is valid in
                itself. No message holds the value of a secret.
        """
        secrets = secrets or {}
        errors: list[FieldError] = []
        given = values
        if not values.keys() <= self._defaults.keys():
            errors += unknown_keys([key for key in values if key not in self.fields], self.keys)
            errors += [
                self.fields[key].error("misplaced_secret", "It is a secret and is kept apart from the configuration.")
                for key in self.keys
                if key in self.secret_keys and key in values
            ]
            given = {key: value for key, value in values.items() if key in self._defaults}
        if secrets:
            errors += unknown_keys([key for key in secrets if key not in self.secret_keys], sorted(self.secret_keys))
            known = {key: value for key, value in secrets.items() if key in self.secret_keys and value is not None}
            given = {**given, **known}
        candidate, refused = self._convert(given)
        checked, found = self._validate(candidate, refused.keys())
        errors += [*refused.values(), *found]
        if errors or checked is None:
            hidden = [value for value in secrets.values() if isinstance(value, str) and value]
            raise ConfigInvalid(_in_order(self.keys, [_masked(error, hidden) for error in errors]))
        return checked

    def from_environment(self, environment: Mapping[str, str]) -> dict[str, JSON]:
        """The overrides that `environment` holds for settings that are not secrets: key to value.

        An override is a variable named like the key in upper case. An empty one counts as not there, except where
        the setting is a text that may be empty.

        Raises:
            ConfigInvalid: with every variable that stands for no valid value, naming it. Rules between settings
                are not judged here but by `check`, over the whole.
        """
        return self._overrides(environment, [key for key in self.keys if key not in self.secret_keys])

    def secrets_from_environment(self, environment: Mapping[str, str]) -> dict[str, JSON]:
        """The secrets that `environment` sets: key to value. Not to be mixed into a configuration.

        Raises:
            ConfigInvalid: as `from_environment`; no message holds a value.
        """
        return self._overrides(environment, [key for key in self.keys if key in self.secret_keys])

    def overridden(self, environment: Mapping[str, str]) -> frozenset[str]:
        """The keys, secrets included, that `environment` overrides, whether with a valid value or not."""
        return frozenset(
            key
            for key, field in self.fields.items()
            if (text := environment.get(field.variable)) is not None and not field.unset_by(text)
        )

    def describe(
        self, *, stored: Collection[str], environment: Mapping[str, str], secrets_set: Collection[str]
    ) -> list[dict[str, JSON]]:
        """`fields[]` of the REST API: one object for each setting, with where its value comes from.

        Args:
            stored: the database layer (its keys are read).
            environment: the variables that the worker will see.
            secrets_set: keys of the secrets that the store holds.

        `is_set` tells whether anybody gave a value, so it is `source != "default"`.
        """
        overridden = self.overridden(environment)
        described: list[dict[str, JSON]] = []
        for key, fixed in self._described.items():
            here = key in (secrets_set if key in self.secret_keys else stored)
            source = "env" if key in overridden else "database" if here else "default"
            described.append(
                {**fixed, "is_set": source != "default", "source": source, "env_override": source == "env"}
            )
        return described

    def _convert(self, given: Mapping[str, Any]) -> tuple[dict[str, JSON], dict[str, FieldError]]:
        candidate: dict[str, JSON] = {key: field.default for key, field in self.fields.items()}
        refused: dict[str, FieldError] = {}
        for key, value in given.items():
            if key in self._accepted and value is self._accepted[key]:
                candidate[key] = value
                continue
            try:
                candidate[key] = self.fields[key].from_json(value)
            except Refused as error:
                refused[key] = error.error
        return candidate, refused

    def _validate(
        self, candidate: dict[str, JSON], refused: AbstractSet[str]
    ) -> tuple[dict[str, JSON] | None, list[FieldError]]:
        """The model's judgement; `refused` are keys whose value is a default only because theirs was of no use."""
        valid, details = self._judge(candidate)
        if valid is not None:
            found = vars(valid)
            return {
                key: value if type(value := found[key]) in _SCALARS else _to_json(value) for key in self._defaults
            }, []
        errors = [self._explain(each, candidate) for each in details if each["loc"] and each["loc"][0] not in refused]
        if not errors:
            return None, [error for detail in details for error in _conflicts(detail, refused)]
        # Pydantic judges rules only when every field is valid. Those that concern valid fields alone are judged
        # with the others at their defaults, so that nobody meets them one after the other.
        wrong = refused | {error.field for error in errors}
        _, conflicts = self._validate({**candidate, **{key: self.fields[key].default for key in wrong}}, wrong)
        return None, errors + conflicts

    def _judge(self, candidate: Mapping[str, JSON]) -> tuple[BaseModel | None, list[ErrorDetails]]:
        try:
            return self.model.model_validate(candidate), []
        except ValidationError as error:
            return None, error.errors(include_url=False)
        except Exception as error:  # noqa: BLE001 - a foreign model's validator may raise anything
            # Its text is not repeated, as it may quote a secret.
            message = f"The model's own check failed with {type(error).__name__}."
            return None, [{"type": "failed", "loc": (), "msg": message, "input": None}]

    def _explain(self, detail: ErrorDetails, candidate: Mapping[str, JSON]) -> FieldError:
        field = self.fields[str(detail["loc"][0])]
        value, kind = candidate[field.key], detail["type"]
        if kind in _RANGE:
            return field.out_of_range(value)
        if kind in _LENGTH:
            return field.wrong_length(str(value))
        if kind == "string_pattern_mismatch":
            return field.not_matching(value)
        if kind in {"literal_error", "enum"}:
            return field.not_allowed(value)
        if kind == "format":
            return field.malformed(detail["msg"])
        return field.wrong(value, _reason(detail), "invalid")

    def _overrides(self, environment: Mapping[str, str], keys: Iterable[str]) -> dict[str, JSON]:
        values: dict[str, JSON] = {}
        errors: list[FieldError] = []
        for key in keys:
            field = self.fields[key]
            text = environment.get(field.variable)
            if text is None or field.unset_by(text):
                continue
            try:
                values[key] = field.from_text(text)
            except Refused as error:
                errors.append(error.error)
        candidate = {key: field.default for key, field in self.fields.items()} | values
        valid, details = self._judge(candidate)
        errors += [self._explain(detail, candidate) for detail in details if detail["loc"]]
        if valid is not None:
            values |= {key: _to_json(getattr(valid, key)) for key in values if key not in self.secret_keys}
        if errors:
            hidden = [str(values[key]) for key in values if key in self.secret_keys]
            raise ConfigInvalid(
                FieldError(each.field, f"environment variable {each.field.upper()}: {each.message}", each.type)
                for each in (_masked(error, hidden) for error in errors)
            )
        return values


def _conflicts(detail: ErrorDetails, wrong: AbstractSet[str]) -> Iterable[FieldError]:
    """The contradictions that do not involve any key of `wrong`."""
    context = detail.get("ctx", {})
    if "conflicts" in context:
        yield from (
            FieldError(keys[0], text, "conflict") for keys, text in context["conflicts"] if wrong.isdisjoint(keys)
        )
    elif not wrong:
        # A validator of a plain Pydantic model does not say which fields it is about.
        yield FieldError("", _reason(detail), "conflict")


def _described(field: FieldSpec, default: JSON) -> dict[str, JSON]:
    return {
        "key": field.key,
        "title": field.title,
        "type": field.type,
        "complexity": field.complexity,
        "description": field.description,
        "help_text": field.help_text,
        "examples": list(field.examples),
        "is_secret": field.is_secret,
        "is_set": False,
        "source": "default",
        "env_override": False,
        "apply": field.apply,
        "default": default,
        "minimum": field.minimum,
        "maximum": field.maximum,
        "pattern": field.pattern,
        "allowed": list(field.allowed) if field.allowed is not None else None,
        "unit": field.unit,
    }


def _to_json(value: Any) -> JSON:
    if isinstance(value, Enum):
        return _to_json(value.value)
    if isinstance(value, PurePath):
        return str(value)
    return value  # type: ignore[no-any-return] # the model reader lets only JSON's scalars through


def _reason(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _masked(error: FieldError, hidden: Iterable[str]) -> FieldError:
    """The error without secrets that a model's own validator may have quoted."""
    message = error.message
    if error.type in {"invalid", "format", "conflict"}:
        for secret in hidden:
            message = message.replace(secret, SECRET_MARK)
    return FieldError(error.field, message, error.type)


def _in_order(keys: Iterable[str], errors: Iterable[FieldError]) -> list[FieldError]:
    position = {key: index for index, key in enumerate(keys)}
    return sorted(errors, key=lambda error: position.get(error.field, len(position)))
