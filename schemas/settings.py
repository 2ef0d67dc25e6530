"""How a service's model declares its settings, and the rules between them."""

import re
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.base import Model

Complexity = Literal["simple", "advanced"]
Apply = Literal["live", "restart"]

M = TypeVar("M", bound="ServiceModel")


def setting(
    default: Any,
    *,
    title: str,
    description: str,
    help_text: str,
    complexity: Complexity,
    apply: Apply,
    examples: Sequence[Any] = (),
    unit: str | None = None,
    **constraints: Any,
) -> Any:
    """A field of a service's model.

    `title` is the label; `description` one sentence on what it does; `help_text` what higher, lower or other
    values bring; `unit` stands behind the number (`ms`, `%`). `constraints` are Pydantic's: `ge`, `gt`, `le`,
    `lt`, `min_length`, `max_length`, `pattern`. A field of type `SecretStr` is a secret, one of type `PathText` or
    `AbsolutePath` a path.
    """
    extra: dict[str, Any] = {"x-help": help_text, "x-complexity": complexity, "x-apply": apply}
    if unit is not None:
        extra["x-unit"] = unit
    return Field(
        default=default,
        title=title,
        description=description,
        examples=list(examples) or None,
        json_schema_extra=extra,
        **constraints,
    )


class Rule(Struct, frozen=True):
    """A condition between settings: `check(model)` is None, or a sentence that tells what contradicts."""

    keys: tuple[str, ...]
    check: Callable[[Any], str | None]


def rule(*keys: str) -> Callable[[Callable[[M], str | None]], Callable[[M], str | None]]:
    """Mark a method of a `ServiceModel` as a rule between `keys`; the error is shown at the first of them."""

    def mark(check: Callable[[M], str | None]) -> Callable[[M], str | None]:
        check.rule_keys = keys  # type: ignore[attr-defined] # a mark on a plain function, read below
        return check

    return mark


class ServiceModel(Model):
    """Base of the models that come with the program: numbers and booleans only as such, and rules."""

    model_config = ConfigDict(strict=True)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        # Not everything that hangs on a model may be asked: Pydantic builds its validator when that is.
        methods = [each for each in vars(cls).values() if isinstance(each, FunctionType)]
        own = [Rule(check.rule_keys, check) for check in methods if hasattr(check, "rule_keys")]
        cls.rules = (*cls.rules, *own)

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        conflicts = [(rule.keys, text) for rule in self.rules if (text := rule.check(self)) is not None]
        if conflicts:
            raise PydanticCustomError(
                "conflict", "{text}", {"text": " ".join(text for _, text in conflicts), "conflicts": conflicts}
            )
        return self


def _path(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("format", "holds a NUL character. It must not")
    return text


def _absolute_path(text: str) -> str:
    if not text.startswith("/"):
        raise PydanticCustomError("format", 'is not absolute. It must begin with "/"')
    return text


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets that do not close
        sound = False
    if not sound or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise PydanticCustomError(
            "format", "is not a web address. It must begin with http:// or https:// and name a host"
        )
    return text


def _regular_expression(text: str) -> str:
    try:
        with warnings.catch_warnings():
            # What Python only warns of works, and is the owner's choice.
            warnings.simplefilter("ignore")
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError(
            "format",
            "is not a regular expression ({reason}). It must be one in Python's notation",
            {"reason": str(error)},
        ) from None
    return text


# The path of a file or folder, relative to the worker's folder or absolute.
PathText = Annotated[str, Field(json_schema_extra={"format": "path"}), AfterValidator(_path)]
AbsolutePath = Annotated[PathText, AfterValidator(_absolute_path)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
RegularExpression = Annotated[str, AfterValidator(_regular_expression)]
