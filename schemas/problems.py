"""What is wrong with a configuration, a model or a file: every problem at once, in sentences."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Suggestions cost time that grows with their number; input decides how many are asked for.
MAX_UNKNOWN = 20


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem.

    `field` is the key it belongs to; `message` a sentence for people, which never holds the value of a secret;
    `type` one of `unknown_key wrong_type out_of_range too_short too_long not_allowed pattern format conflict
    misplaced_secret invalid`.
    """

    field: str
    message: str
    type: str


class ConfigInvalid(Exception):
    """Values that a service's model refuses; `errors` holds every problem."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors: tuple[FieldError, ...] = tuple(errors)
        super().__init__(" ".join(error.message for error in self.errors))


class SchemaInvalid(Exception):
    """A model or a JSON Schema document that cannot describe a service's settings; `problems` are sentences."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source = source
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "vad_threshold"?`, or nothing where nothing known is near."""
    near = difflib.get_close_matches(word[:80], list(known), n=1, cutoff=0.55)
    return f'; did you mean "{near[0]}"?' if near else ""


def unknown_key(key: str, known: Iterable[str]) -> str:
    """`unknown key "vad_treshold"; did you mean "vad_threshold"?`."""
    shown = key if len(key) <= 80 else f"{key[:80]}…"
    return f'unknown key "{shown}"{did_you_mean(key, known)}'


def unknown_keys(keys: Sequence[str], known: Sequence[str]) -> list[FieldError]:
    """One error for each unknown key; from `MAX_UNKNOWN` on, one for all others together."""
    errors = [FieldError(key[:80], unknown_key(key, known), "unknown_key") for key in keys[:MAX_UNKNOWN]]
    if len(keys) > MAX_UNKNOWN:
        more = len(keys) - MAX_UNKNOWN
        errors.append(FieldError(keys[MAX_UNKNOWN][:80], f"and {more} more unknown keys", "unknown_key"))
    return errors


def listed(words: Sequence[str], conjunction: str = "or") -> str:
    """`whisper, ws or openai`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
