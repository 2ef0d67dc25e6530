"""The history: pages of it, and what differs between two points."""

import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope
from msgspec.structs import asdict

from actors import OutcomeUnknown
from api.bodies import invalid
from api.errors import RETRY_AFTER
from api.problems import Problem, quoted
from api.queries import Query
from api.responses import Finished, json_answer
from api.routes import _history_documents as documents
from api.routes._route import waiting_read
from api.state import ApiState
from api.tokens import Identity
from schemas.history import NotReached, Point
from schemas.problems import FieldError, did_you_mean
from schemas.records import ABSENT, HistoryEntry, HistoryQuery, StoreUnavailable, UnknownService
from schemas.restores import UnknownEntries
from schemas.types import Revision, ServiceName, Version, service_name

T = TypeVar("T")

_NUMBER: Final = re.compile("(revision:)?([0-9]{1,18})")


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    async def page(scope: Scope, _: Identity) -> Finished:
        query = Query(scope, form=True)
        query.nothing_else([each.name for each in documents.PAGE.parameters])
        asked = HistoryQuery(
            service=_service(query),
            key=query.text("key"),
            start=query.moment("start_date", end=False),
            end=query.moment("end_date", end=True),
            limit=query.whole("limit", default=documents.USUAL_ENTRIES, least=1, most=documents.MOST_ENTRIES),
            before=query.whole("before", default=0, least=1, most=documents.MOST_INTEGER) or None,
        )
        if asked.start is not None and asked.end is not None and asked.start > asked.end:
            query.wrong("end_date", "end_date is before start_date.", "conflict")
        query.check()
        entries = await answered(state.history.page(asked), state.board.services)
        return json_answer({"entries": [_entry(each) for each in entries], "total_returned": len(entries)})

    async def difference(scope: Scope, _: Identity) -> Finished:
        query = Query(scope, form=True)
        query.nothing_else([each.name for each in documents.DIFFERENCE.parameters])
        service = _service(query)
        old, new = _point(query, "from"), _point(query, "to")
        if query.text("from") is None:
            query.wrong("from", "Name the point to compare with: a version, revision:17, a time or a day.", "missing")
        query.check()
        found = await answered(state.history.difference(service, old, new), state.board.services)
        return json_answer(
            {
                "service": service,
                "from": asdict(found.old),
                "to": asdict(found.new),
                "changes": [asdict(each) for each in found.keys],
            }
        )

    return [
        waiting_read("/api/config/history", documents.PAGE, page, state.tokens),
        waiting_read("/api/config/history/diff", documents.DIFFERENCE, difference, state.tokens),
    ]


def _service(query: Query) -> ServiceName | None:
    given = query.text("service")
    if given is None:
        return None
    try:
        return service_name(given)
    except ValueError as error:
        query.wrong("service", f"{error}.", "pattern")
        return None


def _point(query: Query, name: str) -> Point:
    given = query.text(name)
    if given is None:
        return Point()
    match = _NUMBER.fullmatch(given)
    if match is None:
        return Point(moment=query.moment(name, end=name == "to"))
    number = int(match[2])
    if match[1]:
        least, point = 0, Point(revision=Revision(number))
    else:
        least, point = 1, Point(version=Version(number))
        if query.text("service") is None:
            message = f"{name} is {quoted(given)}, a version of a service: name the service, or send revision:{given}."
            query.wrong(name, message, "conflict")
    if not least <= number <= documents.MOST_INTEGER:
        query.wrong(
            name, f"{name} is {quoted(given)}; the number is {least} to {documents.MOST_INTEGER}.", "out_of_range"
        )
    return point


async def answered(asked: Awaitable[T], services: Mapping[str, Any], *, field: str | None = None) -> T:
    """What comes of it. `field`: which one names the point, where there is one alone.

    Raises:
        Problem: 422 where something is asked for that there is not, 503 where it cannot be told now.
    """
    try:
        return await asked
    except UnknownService as error:
        message = f"There is no service {quoted(error.service)}{did_you_mean(error.service, services) or '.'}"
        raise invalid([FieldError("service", message, "not_allowed")]) from error
    except UnknownEntries as error:
        raise invalid([FieldError("history_entries", str(error), "not_allowed")]) from error
    except NotReached as error:
        raise invalid([FieldError(field or error.side, error.reason, "out_of_range")]) from error
    except (StoreUnavailable, OutcomeUnknown) as error:
        raise Problem(
            "busy", f"The history cannot be read now: {error}.", headers={"retry-after": str(RETRY_AFTER)}
        ) from error


def _entry(entry: HistoryEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "service": entry.service,
        "key": entry.key,
        "old_value": None if entry.old_value is ABSENT else entry.old_value,
        "new_value": None if entry.new_value is ABSENT else entry.new_value,
        "old_set": entry.old_value is not ABSENT,
        "new_set": entry.new_value is not ABSENT,
        "is_secret": entry.is_secret,
        "version": entry.version,
        "revision": entry.revision,
        "changed_at": entry.changed_at,
        "changed_by": entry.changed_by,
        "change_reason": entry.change_reason,
        "origin": entry.origin,
    }
