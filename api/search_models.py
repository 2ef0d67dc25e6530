"""What a search takes and gives; closed and open as those of `api.models`."""

from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from schemas.base import Model
from schemas.field_spec import FieldType
from schemas.search import MAX_QUERY, MAX_RESULTS, MAX_WORDS
from schemas.settings import Complexity


class SearchBody(Model):
    """What is looked for. Filters that are left out, or null, let everything pass."""

    query: Annotated[
        Annotated[str, StringConstraints(max_length=MAX_QUERY)],
        Field(
            description=(
                f"At most {MAX_WORDS} words, which all have to be found. Case, diacritics and punctuation do not count. "
                "Empty: every setting that passes the filters."
            )
        ),
    ]
    service_filter: Annotated[str | None, Field(description="Only this service.")] = None
    complexity_filter: Complexity | None = None
    type_filter: FieldType | None = None
    changed_only: Annotated[
        bool,
        Field(strict=True, description="Only settings whose value is not their default, and secrets that are set."),
    ] = False
    simple: Annotated[
        bool, Field(strict=True, description="Leave advanced settings out, but for one whose key is the query.")
    ] = False
    max_results: Annotated[int, Field(ge=1, le=MAX_RESULTS, strict=True)] = 50


class SearchResult(Model):
    """A setting that was found, with the value that a GET shows: of a secret, the mask where it is set, else null."""

    service: str
    key: str
    value: JsonValue
    type: FieldType
    complexity: Complexity
    description: str
    is_secret: bool
    match_score: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description=(
                "1: the query is the key. 0.9: the key begins with it. Below: the mean over the query's words, of which one in "
                "key or title counts 0.7, its beginning 0.6, the service's name 0.5, the beginning of a word of the value 0.45, "
                "of description or help 0.4, the middle of a word 0.3, and one that is mistyped 0.25 or 0.2; at least 0.5 where "
                "the query is the whole value."
            ),
        ),
    ]


class SearchAnswer(Model):
    """The best results first; those of one score in the manifest's order, then the model's."""

    query: str
    results: list[SearchResult]
    total_count: Annotated[int, Field(description="How many there are, of which `results` may be a part.")]
