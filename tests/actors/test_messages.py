"""What workers send, in all its forms: read, or refused with a sentence that repeats none of it."""

import contextlib
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import MAX_REPORT_BYTES, ReportInvalid, read_applied, read_health

EPOCH = "7a77eccc-6606-4cda-b273-59fce21ce739"


def applied(**more: object) -> bytes:
    return json.dumps({"service": "svc", "ok": True, **more}).encode()


def test_health_is_read_bare_and_in_its_envelope() -> None:
    bare = {"ok": False, "event": "loading", "err": "no model", "extra": {"any": [1]}}
    envelope = {
        "id": "1",
        "type": "health",
        "ts": 1.5,
        "source": "svc",
        "data": {**bare, "message_id": "2", "timestamp": 3},
    }
    for document in (bare, envelope):
        health = read_health(orjson.dumps(document))
        assert (health.ok, health.event, health.err) == (False, "loading", "no model")
    assert read_health(b'{"ok": true}').event == ""
    assert read_health(b'{"ok": true, "event": null, "err": null}').err is None


def test_a_report_of_a_release_to_come_is_read() -> None:
    report = read_applied(
        applied(
            instance="i",
            config_epoch=EPOCH,
            version=3,
            applied_at="2026-11-20T09:00:00+00:00",
            error=None,
            restart_required=["engine"],
            refused={"stale": 2},
            something_new={"a": 1},
        )
    )
    assert (report.instance, report.config_epoch, report.version, report.ok) == ("i", EPOCH, 3, True)
    assert report.restart_required == ("engine",)


@pytest.mark.parametrize(
    "payload",
    [
        applied(version=-1),
        applied(version="1"),
        applied(version=True),
        applied(config_epoch="x"),
        applied(ok=1),
        applied(service=None),
        applied(service="x" * 64),
        applied(instance="x" * 129),
        applied(error="x" * 4097),
        applied(restart_required=["x"] * 1001),
        applied(refused={"x": "many"}),
        b'{"service": "svc"}',
        b"{}",
        b'{"service": "svc", "ok": NaN}',
    ],
)
def test_what_is_no_report(payload: bytes) -> None:
    with pytest.raises(ReportInvalid) as refused:
        read_applied(payload)
    assert len(str(refused.value)) < 400


def test_the_size_is_bounded() -> None:
    with pytest.raises(ReportInvalid, match="larger than"):
        read_health(b'{"ok": true, "pad": "' + b"x" * MAX_REPORT_BYTES + b'"}')


def test_no_value_is_repeated() -> None:
    with pytest.raises(ReportInvalid) as refused:
        read_applied(applied(error=["c4nary"], version="c4nary"))
    assert "c4nary" not in str(refused.value)
    with pytest.raises(ReportInvalid) as refused:
        read_applied(applied(refused={"k" * 60_000: "x"}))
    assert len(str(refused.value)) < 400


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["ok", "data", "event", "err", "service", "version"]) | st.text(), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_else_comes_out(payload: bytes) -> None:
    for read in (read_health, read_applied):
        with contextlib.suppress(ReportInvalid):
            assert isinstance(read(payload).ok, bool)
