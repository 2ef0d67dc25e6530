"""The history over REST: what may be asked, and how it is answered. What it says of a store: tests/actors/database."""

from datetime import UTC, datetime
from typing import Any

import pytest

from actors import OutcomeUnknown, Rejected
from api.history_models import HistoryDifference, HistoryPage
from schemas.history import NotReached, Point
from schemas.records import HistoryQuery, StoreUnavailable, UnknownService
from schemas.types import ServiceName
from tests.api.conftest import Running
from tests.api.fake_history import FakeHistory

PAGE = "/api/config/history"
DIFF = "/api/config/history/diff"
STT = ServiceName("stt-worker")


def history_of(api: Running) -> FakeHistory:
    history = api.state.history
    assert isinstance(history, FakeHistory)
    return history


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]  # year, month, day and so on


LAST_MICROSECOND = (23, 59, 59, 999999)


async def test_entries_tell_null_from_not_set(api: Running):
    answer = await api.client.get(PAGE)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    page = answer.json()
    HistoryPage.model_validate(page)
    assert page["total_returned"] == 2
    newest, oldest = page["entries"]
    assert newest == {
        "id": 2,
        "service": "stt-worker",
        "key": "vad_threshold",
        "old_value": None,
        "new_value": 0.5,
        "old_set": True,
        "new_set": True,
        "is_secret": False,
        "version": 3,
        "revision": 3,
        "changed_at": "2026-11-20T08:00:02.250000+00:00",
        "changed_by": "owner",
        "change_reason": "why",
        "origin": "rest",
    }
    assert (oldest["old_value"], oldest["old_set"], oldest["origin"]) == (None, False, None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        # A form that nobody has filled in.
        ("service=&key=&start_date=&end_date=&limit=&before=", {}),
        ("service=stt-worker&key=vad_threshold", {"service": "stt-worker", "key": "vad_threshold"}),
        ("limit=1", {"limit": 1}),
        ("limit=1000&before=9007199254740991", {"limit": 1000, "before": 2**53 - 1}),
        ("start_date=2026-11-20T08:00:00Z", {"start": at(2026, 11, 20, 8)}),
        ("start_date=2026-11-20T08:00:00.5%2B01:00", {"start": at(2026, 11, 20, 7, 0, 0, 500000)}),
        # Its plus was not encoded.
        ("start_date=2026-11-20T08:00:00+05:30", {"start": at(2026, 11, 20, 2, 30)}),
        ("start_date=2026-11-20+08:00Z", {"start": at(2026, 11, 20, 8)}),
        (
            "start_date=2026-11-20&end_date=2026-11-20",
            {"start": at(2026, 11, 20), "end": at(2026, 11, 20, *LAST_MICROSECOND)},
        ),
        ("end_date=9999-12-31", {"end": at(9999, 12, 31, *LAST_MICROSECOND)}),
    ],
)
async def test_what_is_asked_for(api: Running, query: str, expected: dict[str, Any]):
    answer = await api.client.get(f"{PAGE}?{query}")
    assert answer.status_code == 200, answer.text
    assert history_of(api).asked == [HistoryQuery(**expected)]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("service=Stt", ["service"]),
        ("limit=0", ["limit"]),
        ("limit=1001", ["limit"]),
        ("limit=ten", ["limit"]),
        ("before=0", ["before"]),
        ("before=-1", ["before"]),
        ("before=9007199254740992", ["before"]),
        (f"before={'9' * 100}", ["before"]),
        ("start_date=yesterday", ["start_date"]),
        ("start_date=2026-11-20T08:00:00", ["start_date"]),
        ("start_date=2026-02-30", ["start_date"]),
        ("start_date=20261120", ["start_date"]),
        ("end_date=0001-01-01T00:00:00%2B14:00", ["end_date"]),
        ("start_date=2026-11-21&end_date=2026-11-20", ["end_date"]),
        ("servcie=stt-worker", ["servcie"]),
        ("limit=0&start_date=x&offset=3", ["offset", "start_date", "limit"]),
        (f"key={'x' * 5000}", [""]),
    ],
)
async def test_what_is_wrong_is_named(api: Running, query: str, fields: list[str]):
    answer = await api.client.get(f"{PAGE}?{query}")
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == fields
    assert history_of(api).asked == []


async def test_a_misspelled_parameter_is_recognised(api: Running):
    answer = await api.client.get(f"{PAGE}?start_dat=2026-11-20")
    assert answer.json()["detail"] == 'unknown key "start_dat"; did you mean "start_date"?'


async def test_a_difference(api: Running):
    answer = await api.client.get(f"{DIFF}?service=stt-worker&from=2")
    assert answer.status_code == 200
    HistoryDifference.model_validate(answer.json())
    assert answer.json() == {
        "service": "stt-worker",
        "from": {"version": 2, "revision": None, "moment": None},
        "to": {"version": None, "revision": 9, "moment": None},
        "changes": [
            {
                "service": "stt-worker",
                "key": "vad_threshold",
                "title": "Threshold",
                "old": 0.4,
                "new": 0.5,
                "old_is_default": True,
                "new_is_default": False,
                "apply": "live",
                "is_secret": False,
            }
        ],
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("service=stt-worker&from=1&to=3", (STT, Point(version=1), Point(version=3))),  # type: ignore[arg-type]
        ("from=revision:0&to=revision:7", (None, Point(revision=0), Point(revision=7))),  # type: ignore[arg-type]
        ("from=revision:1&service=stt-worker&to=", (STT, Point(revision=1), Point())),  # type: ignore[arg-type]
        (
            "from=2026-11-20&to=2026-11-20",
            (None, Point(moment=at(2026, 11, 20)), Point(moment=at(2026, 11, 20, *LAST_MICROSECOND))),
        ),
        ("from=2026-11-20T08:00:00Z", (None, Point(moment=at(2026, 11, 20, 8)), Point())),
    ],
)
async def test_points(api: Running, query: str, expected: Any):
    answer = await api.client.get(f"{DIFF}?{query}")
    assert answer.status_code == 200, answer.text
    assert history_of(api).asked == [expected]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "from"),
        ("service=stt-worker&to=3", "from"),
        ("from=2", "from"),
        ("from=revision:2&to=3", "to"),
        ("service=stt-worker&from=0", "from"),
        ("service=stt-worker&from=v2", "from"),
        ("service=stt-worker&from=9007199254740992", "from"),
        (f"service=stt-worker&from={'1' * 40}", "from"),
        ("from=revision:-1", "from"),
        ("from=2026-11-20T08:00", "from"),
        ("from=revision:1&until=revision:2", "until"),
        ("service=a_b&from=revision:1", "service"),
    ],
)
async def test_what_is_wrong_with_a_point_is_named(api: Running, query: str, field: str):
    answer = await api.client.get(f"{DIFF}?{query}")
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert history_of(api).asked == []


async def test_a_point_that_the_history_does_not_reach(api: Running):
    history_of(api).failure = NotReached("to", "The history of stt-worker goes back to version 3.")
    answer = await api.client.get(f"{DIFF}?service=stt-worker&from=4&to=2")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "to: The history of stt-worker goes back to version 3."
    assert [each["field"] for each in answer.json()["errors"]] == ["to"]


@pytest.mark.parametrize("path", [PAGE, f"{DIFF}?from=1"])
async def test_a_service_that_there_is_not(api: Running, path: str):
    history_of(api).failure = UnknownService(ServiceName("stt-wroker"))
    answer = await api.client.get(path, params={"service": "stt-wroker", **({"from": "1"} if "diff" in path else {})})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith('service: There is no service "stt-wroker"; did you mean "stt-worker"?')
    assert [each["field"] for each in answer.json()["errors"]] == ["service"]


@pytest.mark.parametrize(
    "failure",
    [
        StoreUnavailable("The database config.db is damaged; restore a backup of it", "corrupted"),
        OutcomeUnknown("history was not done within 15 s"),
        Rejected("history is down"),
    ],
)
@pytest.mark.parametrize("path", [PAGE, f"{DIFF}?from=revision:1"])
async def test_where_it_cannot_be_read_now(api: Running, path: str, failure: Exception):
    history_of(api).failure = failure
    answer = await api.client.get(path)
    assert answer.status_code == 503
    assert str(failure) in answer.json()["detail"]
    assert answer.headers["retry-after"] == "1"
