"""What the history's calls say of themselves."""

from typing import Final

from api.documents import Answer, Content, Operation, Parameter
from api.history_models import HistoryDifference, HistoryPage
from schemas.states import Role
from schemas.types import SERVICE_NAME_PATTERN

MOST_ENTRIES: Final = 1000
USUAL_ENTRIES: Final = 100
MOST_INTEGER: Final = 2**53 - 1
"""Beyond it readers of JSON may disagree (RFC 8259, section 6)."""

_TAG: Final = "History"
_SERVICE = Parameter(
    "service",
    "query",
    "Only of this service, which may have left the manifest.",
    {"type": "string", "pattern": SERVICE_NAME_PATTERN},
    "stt-worker",
)
_TIME: Final = "a time in ISO 8601 with its offset, or a day in UTC"

_ENTRY = {
    "id": 41,
    "service": "stt-worker",
    "key": "vad_threshold",
    "old_value": None,
    "new_value": 0.5,
    "old_set": False,
    "new_set": True,
    "is_secret": False,
    "version": 3,
    "revision": 17,
    "changed_at": "2026-11-20T08:00:00.250000+00:00",
    "changed_by": "admin",
    "change_reason": "too many false starts",
    "origin": "rest",
}
_DIFFERENCE = {
    "service": "stt-worker",
    "from": {"version": 2, "revision": None, "moment": None},
    "to": {"version": None, "revision": 18, "moment": None},
    "changes": [
        {
            "service": "stt-worker",
            "key": "vad_threshold",
            "title": "Speech threshold",
            "old": 0.4,
            "new": 0.5,
            "old_is_default": True,
            "new_is_default": False,
            "apply": "live",
            "is_secret": False,
        }
    ],
}

PAGE = Operation(
    id="getHistory",
    summary="Who changed what, and when",
    description=(
        "One entry for each setting that a change has set, changed or returned to its default, the newest first. What was not "
        "set has the value null and `old_set` or `new_set` false; a setting that was set to null has true. For the next page, "
        "send the last entry's `id` as `before`; a page with fewer entries than `limit` is the last. An empty parameter is none."
    ),
    tag=_TAG,
    role=Role.READ,
    parameters=(
        _SERVICE,
        Parameter("key", "query", "Only of this setting.", {"type": "string"}, "vad_threshold"),
        Parameter(
            "start_date", "query", f"Not before: {_TIME}, from its first moment.", {"type": "string"}, "2026-11-01"
        ),
        Parameter(
            "end_date",
            "query",
            f"Not after: {_TIME}, to its last moment.",
            {"type": "string"},
            "2026-11-20T08:00:00+00:00",
        ),
        Parameter(
            "limit",
            "query",
            "How many at most.",
            {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES, "default": USUAL_ENTRIES},
            20,
        ),
        Parameter("before", "query", "Only older than the entry of this `id`.", {"type": "integer", "minimum": 1}, 41),
    ),
    answers={200: Answer("The entries.", Content(HistoryPage, {"entries": [_ENTRY], "total_returned": 1}))},
    problems=("invalid",),
)
DIFFERENCE = Operation(
    id="getHistoryDifference",
    summary="What differs between two points of the history",
    description=(
        "Each setting whose stored value differs, whatever it was in between; of a secret only that it was written or deleted. "
        "`from` and `to` are each a version of `service`, a revision of the store as `revision:17`, "
        f"or {_TIME} (`from`: its first moment, `to`: its last). Without `service` all services are compared. "
        "Either may be the later one. What the environment overrides is not looked at. Where the history does not reach back "
        "as far the answer is 422, and says how far it does."
    ),
    tag=_TAG,
    role=Role.READ,
    parameters=(
        _SERVICE,
        Parameter("from", "query", "The point to compare with.", {"type": "string"}, "2", required=True),
        Parameter(
            "to", "query", "The other point; the present where it is left out.", {"type": "string"}, "2026-11-20"
        ),
    ),
    answers={200: Answer("The differences.", Content(HistoryDifference, _DIFFERENCE))},
    problems=("invalid",),
)
