"""From layers to values: environment over secrets over wire over defaults, into a model or a plain mapping."""

import logging
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import orjson
from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tars_config._files import read_bounded
from tars_config.wire import canonical

Source: TypeAlias = Literal["env", "database", "default"]
ModelT = TypeVar("ModelT", bound=BaseModel)
ValueT = TypeVar("ValueT")

MAX_SECRET_BYTES = 64 * 1024
MAX_SECRETS = 256

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_NEVER_OVERRIDES = re.compile(r"PATH|HOME|LANG|LD_.*|PYTHON.*|TARS_.*")
_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}

_log = logging.getLogger(__name__)


class ConfigInvalid(ValueError):
    """The configuration does not fit; `problems` has one sentence for each key, none with a secret's value."""

    def __init__(self, subject: str, problems: list[str]) -> None:
        super().__init__(f"{subject}: {'; '.join(problems)}")
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What lies over the model's defaults."""

    config: Mapping[str, Any]
    secrets: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built(Generic[ValueT]):
    """A model (or mapping), where each key came from, the secrets, and the wire's keys that the model leaves out."""

    value: ValueT
    sources: Mapping[str, Source]
    secrets: Mapping[str, str]
    unknown: frozenset[str] = frozenset()


def read_credentials(directory: Path | None) -> dict[str, str]:
    """Read the secrets: one file for each, named by its key (as systemd.exec(5) lays out credentials).

    Values are taken as they are, a trailing newline included. What is not a readable text file of at most 64 KiB
    with a key's name is left out, with a warning that names it.
    """
    if directory is None:
        return {}
    try:
        names = sorted(entry.name for entry in directory.iterdir() if _KEY.fullmatch(entry.name))
    except OSError as error:
        _log.warning("secrets cannot be read: %s", error)
        return {}
    if len(names) > MAX_SECRETS:
        _log.warning("%s holds %d files; only %d secrets are read", directory, len(names), MAX_SECRETS)
    found = {}
    for name in names[:MAX_SECRETS]:
        try:
            found[name] = read_bounded(directory / name, MAX_SECRET_BYTES).decode()
        except FileNotFoundError:
            continue  # deleted since the listing
        except UnicodeDecodeError:
            _log.warning("secret %s is not UTF-8 and is left out", name)
        except OSError as error:
            _log.warning("secret %s is left out: %s", name, error)
    return found


def masked(text: str, values: Iterable[str]) -> str:
    """Replace each of the values in a text by the mask."""
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, "********")
    return text


def override_of(key: str, environment: Mapping[str, str]) -> str | None:
    """Give the text of the environment variable that overrides a key, if it is set."""
    name = key.upper()
    return None if _NEVER_OVERRIDES.fullmatch(name) else environment.get(name)


def build(model: type[ModelT], layers: Layers) -> Built[ModelT]:
    """Validate the layers as a model. Keys that the model does not know are left out, unless it allows extras.

    A model may know fewer keys than the service has, also with `extra="forbid"`.

    Raises:
        ConfigInvalid: every problem at once.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    secret_values = dict(layers.secrets)
    problems: list[str] = []
    known: set[str] = set()
    for name, info in model.model_fields.items():
        keys = _keys_of(name, info)
        known.update(keys)
        for key in keys:
            text = override_of(key, layers.environment)
            if text is not None:
                origins.update(dict.fromkeys(keys, f" (environment variable {key.upper()})"))
                if _is_secret(info) or key in layers.secrets:
                    secret_values[key] = text
                    values[name] = text
                else:
                    try:
                        values[name] = _parse_override(info, text)
                    except ValueError as error:
                        problems.append(f"{key}{origins[name]}: {error}")
                break
            if key in layers.secrets:
                values[name] = layers.secrets[key]
                break
            if key in layers.config:
                values[name] = layers.config[key]
                break
    unknown = frozenset(layers.config.keys() - known)
    if model.model_config.get("extra") == "allow":
        values.update({key: layers.config[key] for key in unknown})
        unknown = frozenset()
    if problems:
        raise ConfigInvalid(model.__name__, [masked(problem, secret_values.values()) for problem in problems])
    try:
        # JSON mode: the wire is JSON, and a strict model still takes an enum or a path from its text.
        built = model.model_validate_json(orjson.dumps(values), by_alias=True, by_name=True)
    except ValidationError as error:
        problems = [masked(sentence, secret_values.values()) for sentence in _sentences(error, origins)]
        raise ConfigInvalid(model.__name__, problems) from None
    return Built(
        value=built,
        sources=_sources_of(model, built, values, origins),
        secrets=secret_values,
        unknown=unknown,
    )


def plain(layers: Layers) -> Built[dict[str, Any]]:
    """Give the wire's keys with the environment laid over them, without a model and without secrets.

    An override takes the type of the value that it covers. With no model to know defaults, everything that is not
    from the environment counts as `database`.

    Raises:
        ConfigInvalid: an override that is not of the type of its key.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    problems = []
    for key, value in layers.config.items():
        if key in layers.secrets:
            continue
        text = override_of(key, layers.environment)
        values[key], sources[key] = deepcopy(value), "database"  # the worker may change what it is given
        if text is not None:
            try:
                values[key], sources[key] = _like(value, text), "env"
            except ValueError as error:
                problems.append(f"{key} (environment variable {key.upper()}): {error}")
    if problems:
        raise ConfigInvalid("environment", problems)
    secrets = {}
    for key, value in layers.secrets.items():
        text = override_of(key, layers.environment)
        sources[key] = "database" if text is None else "env"
        secrets[key] = value if text is None else text
    return Built(value=values, sources=sources, secrets=secrets)


def _keys_of(name: str, info: FieldInfo) -> list[str]:
    """Give the names under which the wire may have a field, most specific first."""
    keys = []
    for alias in (info.validation_alias, info.alias):
        if isinstance(alias, str):
            keys.append(alias)
        elif isinstance(alias, AliasChoices):
            keys.extend(choice for choice in alias.choices if isinstance(choice, str))
    return [*dict.fromkeys([*keys, name])]


def _is_secret(info: FieldInfo) -> bool:
    # By name, which also finds it in a union or behind an annotation.
    return "Secret" in str(info.annotation)


def _parse_override(info: FieldInfo, text: str) -> Any:
    annotated: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(annotated)
    try:
        try:
            value = adapter.validate_strings(text)
        except ValidationError:
            # Lists and objects are written as JSON.
            if text[:1] not in {"[", "{"}:
                raise
            value = adapter.validate_json(text)
    except ValidationError as error:
        raise ValueError(error.errors(include_input=False, include_url=False)[0]["msg"]) from None
    if isinstance(value, str):
        return str(value)
    jsonable = adapter.dump_python(value, mode="json", warnings=False)
    canonical(jsonable)  # refuses what JSON would turn into null
    return jsonable


def _like(value: object, text: str) -> Any:
    if isinstance(value, bool):
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError("should be true or false")
    if isinstance(value, (int, float)):
        try:
            number = int(text) if isinstance(value, int) else float(text)
            canonical(number)
        except ValueError:
            raise ValueError("should be a number") from None
        return number
    if isinstance(value, (list, dict)):
        try:
            parsed = orjson.loads(text)
        except orjson.JSONDecodeError:
            parsed = None
        if type(parsed) is not type(value):
            raise ValueError(f"should be a JSON {'array' if isinstance(value, list) else 'object'}")
        return parsed
    return text


def _sentences(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    sentences = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(map(str, problem["loc"])) or "config"
        origin = origins.get(str(problem["loc"][0]), "") if problem["loc"] else ""
        sentences.append(f"{where}{origin}: {problem['msg']}")
    return sentences


def _sources_of(
    model: type[BaseModel], built: BaseModel, values: Mapping[str, Any], origins: Mapping[str, str]
) -> dict[str, Source]:
    """Tell each key's source. The wire has defaults filled in, so a value that equals the default counts as one."""
    sources: dict[str, Source] = {}
    for name, info in model.model_fields.items():
        source: Source = "database"
        if name in origins:
            source = "env"
        elif name not in values or _is_default(info, getattr(built, name)):
            source = "default"
        for key in _keys_of(name, info):
            sources[key] = source
    return sources


def _is_default(info: FieldInfo, value: object) -> bool:
    if info.is_required():
        return False
    try:
        default = info.get_default(call_default_factory=True, validated_data={})
    except Exception:  # noqa: BLE001 - a foreign factory that wants its sibling fields; only the origin is unknown
        return False
    return bool(default == value)
