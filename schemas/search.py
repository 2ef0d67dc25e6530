"""Finding settings by what people call them: key, title, description, help, value, service.

All of it is in memory. What is compared is folded: case and diacritics do not count, and whatever is neither a letter nor a digit
separates words. Every word of a query has to be found. A secret's value is never looked at.
"""

import re
import unicodedata
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from schemas.field_spec import FieldSpec, FieldType
from schemas.service_schema import ServiceSchema
from schemas.settings import Complexity
from schemas.types import JSON

MAX_QUERY: Final = 200
"""Characters."""
MAX_WORDS: Final = 16
MAX_RESULTS: Final = 200

# How well a setting answers a query. The first two are about the query as a whole, the others about a single word of it; of
# several words it is their mean.
EXACT: Final = 1.0
PREFIX: Final = 0.9
WORD: Final = 0.7
"""A word of the key or the title."""
BEGINNING: Final = 0.6
"""The beginning of one."""
SERVICE: Final = 0.5
WHOLE_VALUE: Final = 0.5
VALUE: Final = 0.45
"""The beginning of a word of the value."""
DESCRIPTION: Final = 0.4
"""The beginning of a word of description or help."""
INSIDE: Final = 0.3
"""In the middle of a word, wherever that is."""
ONE_ERROR: Final = 0.25
TWO_ERRORS: Final = 0.2

# In the middle of words, shorter ones are found everywhere.
_INSIDE_FROM: Final = 3
# Letters from which on a word may be mistyped by one, and by two.
_ONE_ERROR_FROM: Final = 4
_TWO_ERRORS_FROM: Final = 8

# Characters that are folded in a step.
_PIECE: Final = 4096

_ASCII_SEPARATORS: Final = {code: " " for code in range(128) if not chr(code).isalnum()}
_SEPARATORS: Final = re.compile(r"[\W_]+")
# The blocks of combining diacritical marks. The marks of other scripts are parts of their words.
_DIACRITICS: Final = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps of well under a millisecond; what it comes to is the generator's return value."""
_Hits = Mapping[int, float]
"""How well one word is answered by the settings of a service, by their places in its model; only those that do."""
_Places = Mapping[int, None]
"""A set of places, in order."""


class Searched(Protocol):
    """A service: `values` gives what a GET shows, secrets masked. Where a value changes, another object takes its place."""

    @property
    def service(self) -> str: ...
    @property
    def schema(self) -> ServiceSchema: ...
    @property
    def values(self) -> Callable[[], Mapping[str, JSON]]: ...


class Query(Struct, frozen=True):
    """What is looked for, and the filters. `changed_only`: those whose value is not their default, and secrets that are set.

    `simple`: advanced ones only where the text is their key.
    """

    text: str
    service: str | None = None
    complexity: Complexity | None = None
    type: FieldType | None = None
    changed_only: bool = False
    simple: bool = False
    max_results: int = 50


class Result(Struct, frozen=True):
    """A setting that was found; `score` is above 0, and 1 at most."""

    service: str
    field: FieldSpec
    value: JSON
    score: float


class Found(Struct, frozen=True):
    """The best results, best first, then as services and model have them; `total` counts all that there are."""

    results: tuple[Result, ...]
    total: int


def fold(text: str) -> str:
    """`text` as it is compared: `"Größe (max.)"` is `"grosse max"`."""
    if text.isascii():
        return " ".join(text.lower().translate(_ASCII_SEPARATORS).split())
    # What only looks like a letter of another case becomes one by the first normalisation.
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return _SEPARATORS.sub(" ", _DIACRITICS.sub("", plain)).strip()


def words_of(text: str) -> tuple[str, ...]:
    """The words that a query asks for, each once."""
    return tuple(dict.fromkeys(fold(text).split()))


def errors_forgiven(word: str) -> int:
    """How many typing errors a word of its length may hold."""
    return 2 if len(word) >= _TWO_ERRORS_FROM else 1 if len(word) >= _ONE_ERROR_FROM else 0


def within(a: str, b: str, errors: int) -> bool:
    """Whether `a` becomes `b` by so many insertions, deletions, substitutions and swaps of neighbours.

    It is the distance of optimal string alignment: what was swapped is not touched again.
    """
    if abs(len(a) - len(b)) > errors:
        return False
    same = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        same += 1
    a, b = a[same:], b[same:]
    if not a or not b:
        return True  # the lengths differ by as much as is left, or less
    if not errors:
        return False
    return (
        within(a[1:], b[1:], errors - 1)
        or within(a[1:], b, errors - 1)
        or within(a, b[1:], errors - 1)
        or (a[:2] == b[1::-1] and within(a[2:], b[2:], errors - 1))
    )


class Search:
    """Searches services, and keeps what it has folded: of texts one copy for each model, of values those of each service.

    Searches may be interleaved, but are one thread's.
    """

    def __init__(self) -> None:
        # By the identity of a model's fields, which services of one model share.
        self._models: dict[int, _Model] = {}
        # By service: whose values they are, and these, folded, a line for each setting.
        self._values: dict[str, tuple[object, str]] = {}

    def find(self, query: Query, services: Iterable[Searched]) -> Found:
        """`steps`, all at once."""
        steps = self.steps(query, services)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Found = end.value
                return found

    def steps(self, query: Query, services: Iterable[Searched]) -> Steps[Found]:
        """Search `services`, in their order, as they are now.

        The query is not judged: who lets strangers ask sees to `MAX_QUERY`, `MAX_WORDS` and `MAX_RESULTS`.
        """
        present = tuple(services)
        self._forget_all_but(present)
        asked = _Asked(query)
        if not asked.words and not asked.everything:
            return Found((), 0)
        answers: list[_Answers] = []
        of_models: dict[int, _OfModel] = {}
        for service in present:
            if query.service is not None and service.service != query.service:
                continue
            fields = id(service.schema.fields)
            if fields not in of_models:
                of_models[fields] = yield from asked.of(self._models.get(fields) or (yield from self._fold(service)))
            of_model = of_models[fields]
            places = _changed(service, of_model) if query.changed_only else of_model.places
            if places:
                values = (yield from self._folded_values(service)) if asked.words else ""
                answers.append(_Answers(service, of_model, places, values, asked))
            yield
        for number, word in enumerate(asked.words):
            if any(each.hits[number] for each in answers):
                continue
            mistyped: dict[int, _Hits] = {}
            for each in answers:
                model = each.of_model.model
                if id(model) not in mistyped:
                    mistyped[id(model)] = model.mistyped(word)
                each.hits[number] = _only(mistyped[id(model)], each.places)
                yield
        return (yield from _best(asked, answers))

    def _fold(self, service: Searched) -> "Steps[_Model]":
        model = _Model(service.schema.fields)
        yield from model.fold()
        self._models[id(model.fields)] = model
        return model

    def _folded_values(self, service: Searched) -> Steps[str]:
        whose, text = self._values.get(service.service, (None, ""))
        if whose is service.values:
            return text
        lines = []
        values = service.values()
        for key, spec in service.schema.fields.items():
            folded = []
            for piece in () if spec.is_secret else _pieces(_as_text(values[key])):
                folded.append(fold(piece))
                yield
            lines.append(" ".join(folded))
        text = "\n".join(lines)
        self._values[service.service] = service.values, text
        return text

    def _forget_all_but(self, present: Sequence[Searched]) -> None:
        for gone in self._models.keys() - {id(each.schema.fields) for each in present}:
            del self._models[gone]
        for name in self._values.keys() - {each.service for each in present}:
            del self._values[name]


class _Model:
    """The texts of a model, folded; by place, which is a setting's in the model's order."""

    def __init__(self, fields: Mapping[str, FieldSpec]) -> None:
        self.fields = fields
        self.specs = tuple(fields.values())
        self.keys: list[str] = []
        # Key and title, with a space on both sides of every word; description and help, with one before.
        self.names: list[str] = []
        self.texts: list[str] = []
        self._vocabulary: dict[str, tuple[int, list[int]]] = {}

    def fold(self) -> Steps[None]:
        for place, spec in enumerate(self.specs):
            self.keys.append(fold(spec.key))
            names = f"{self.keys[-1]} {fold(spec.title)}"
            self.names.append(f" {names} ")
            self.texts.append(f" {fold(spec.description)} {fold(spec.help_text)}")
            for word in dict.fromkeys(names.split()):
                self._vocabulary.setdefault(word, (_letters(word), []))[1].append(place)
            yield

    def hits(self, word: str) -> _Hits:
        """Where `word` stands in the texts."""
        found = {}
        whole, beginning = f" {word} ", f" {word}"
        for place, (names, text) in enumerate(zip(self.names, self.texts, strict=True)):
            if word in names or word in text:
                if beginning in names:
                    found[place] = WORD if whole in names else BEGINNING
                elif beginning in text:
                    found[place] = DESCRIPTION
                elif len(word) >= _INSIDE_FROM:
                    found[place] = INSIDE
        return found

    def mistyped(self, word: str) -> _Hits:
        """Where a word of key or title may have been meant."""
        forgiven = errors_forgiven(word)
        found: dict[int, float] = {}
        if not forgiven:
            return found
        length, letters = len(word), _letters(word)
        for known, (its_letters, places) in self._vocabulary.items():
            # Each error takes one letter at most, and brings one: most words need no closer look.
            if abs(len(known) - length) > forgiven or (letters ^ its_letters).bit_count() > 2 * forgiven:
                continue
            if within(word, known, forgiven):
                score = ONE_ERROR if within(word, known, 1) else TWO_ERRORS
                found.update((place, max(score, found.get(place, 0))) for place in places)
        return found


class _Asked:
    """A query, folded."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.whole = fold(query.text)
        self.words = words_of(query.text)
        # Who looks for "?" has not asked for all there is.
        self.everything = not query.text.strip(" \t\r\n_-")

    def of(self, model: _Model) -> "Steps[_OfModel]":
        query = self.query
        places = {
            place: None
            for place, spec in enumerate(model.specs)
            if query.complexity in {None, spec.complexity}
            and query.type in {None, spec.type}
            and not (query.simple and spec.complexity != "simple" and model.keys[place] != self.whole)
        }
        yield
        hits = []
        for word in self.words:
            hits.append(model.hits(word) if places else {})
            yield
        return _OfModel(model, places, hits)


class _OfModel(Struct, frozen=True):
    """What holds for every service of a model: the places that pass the filters, and by word the hits in its texts."""

    model: _Model
    places: _Places
    hits: list[_Hits]


class _Answers:
    """One service's: the places that pass all filters, and by word the hits among them, in values and name too."""

    def __init__(self, service: Searched, of_model: _OfModel, places: _Places, values: str, asked: _Asked) -> None:
        self.service = service
        self.of_model = of_model
        self.places = places
        self._values = values
        name = f" {fold(service.service)}"
        self.hits = [
            self._hits(word, _only(hits, places), named=f" {word}" in name)
            for word, hits in zip(asked.words, of_model.hits, strict=True)
        ]

    def _hits(self, word: str, in_texts: _Hits, *, named: bool) -> _Hits:
        if not named and word not in self._values:
            return in_texts
        found = dict.fromkeys(self.places, SERVICE) if named else {}
        if word in self._values:
            for place, line in enumerate(self._values.split("\n")):
                if word in line and place in self.places:
                    score = VALUE if f" {word}" in f" {line}" else INSIDE if len(word) >= _INSIDE_FROM else 0
                    if score:
                        found[place] = max(score, found.get(place, 0))
        for place, score in in_texts.items():
            found[place] = max(score, found.get(place, 0))
        return found

    def scores(self, asked: _Asked) -> Iterable[tuple[int, float]]:
        """Place and score of all that every word was found at, in the model's order."""
        if not asked.words:
            return [(place, EXACT) for place in self.places]
        first, *others = self.hits
        common = sorted(first.keys() & set.intersection(*map(set, others)) if others else first)
        keys, whole, count = self.of_model.model.keys, asked.whole, len(self.hits)
        lines = self._values.split("\n") if whole in self._values else ()
        found = []
        for place in common:
            if keys[place].startswith(whole):
                score = EXACT if keys[place] == whole else PREFIX
            else:
                score = round(sum(hits[place] for hits in self.hits) / count, 4)
                if lines and lines[place] == whole:
                    score = max(score, WHOLE_VALUE)
            found.append((place, score))
        return found


def _best(asked: _Asked, answers: Sequence[_Answers]) -> Steps[Found]:
    limit = asked.query.max_results
    # Few different scores there are, so nothing has to be sorted, nor kept that will not be shown.
    by_score: dict[float, list[tuple[_Answers, int]]] = {}
    total = 0
    for each in answers:
        for place, score in each.scores(asked):
            total += 1
            kept = by_score.setdefault(score, [])
            if len(kept) < limit:
                kept.append((each, place))
        yield
    best = [(each, place, score) for score in sorted(by_score, reverse=True) for each, place in by_score[score]][:limit]
    values: dict[str, Mapping[str, JSON]] = {}
    results = []
    for each, place, score in best:
        service, spec = each.service, each.of_model.model.specs[place]
        if service.service not in values:
            values[service.service] = service.values()
            yield
        results.append(Result(service.service, spec, values[service.service][spec.key], score))
    return Found(tuple(results), total)


def _changed(service: Searched, of_model: _OfModel) -> _Places:
    values, defaults, specs = service.values(), service.schema.defaults(), of_model.model.specs
    # Secrets have no default, so those that are set differ from it.
    return {place: None for place in of_model.places if values[key := specs[place].key] != defaults.get(key)}


def _only(hits: _Hits, places: _Places) -> _Hits:
    return hits if hits.keys() <= places.keys() else {each: hits[each] for each in hits if each in places}


def _as_text(value: JSON) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _pieces(text: str) -> Iterable[str]:
    """`text`, cut between words where it is long: a value may take long to fold."""
    while len(text) > _PIECE:
        end = text.rfind(" ", 0, _PIECE) + 1 or _PIECE
        yield text[:end]
        text = text[end:]
    yield text


def _letters(word: str) -> int:
    """A set of its letters; some share a place in it."""
    letters = 0
    for letter in word:
        letters |= 1 << (ord(letter) & 31)
    return letters
