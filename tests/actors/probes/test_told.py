"""Probes that go by what the worker says, or by the clock."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.probes._probe import Count, aligned
from schemas.manifest import DelayProbe, HealthTopicProbe, LogLineProbe, NoProbe, NotifyProbe
from tests.actors.probes.support import probing
from tests.support import eventually


def quick(**values: Any) -> HealthTopicProbe:
    """Bounds of the manifest are for boards."""
    return HealthTopicProbe().model_copy(update={"interval": 0.01, **values})


# -- thresholds and timers


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_verdicts_are_rows(tries: list[bool], successes: int, failures: int) -> None:
    count = Count(successes=successes, failures=failures, start_until=0.0)
    expected: bool | None = None
    for n, ok in enumerate(tries, start=1):
        agrees = count.take(ok, 1.0)
        need = successes if ok else failures
        if n >= need and all(each is ok for each in tries[n - need : n]):
            expected = ok
        assert count.verdict is expected
        assert agrees == (expected is ok)


def test_failures_of_a_start_do_not_count_until_the_first_success() -> None:
    count = Count(successes=1, failures=2, start_until=10.0)
    assert not any(count.take(False, now) for now in (0.0, 5.0, 9.9, 10.0))
    assert count.take(False, 11.0)
    count = Count(successes=1, failures=1, start_until=10.0)
    assert count.take(True, 1.0)
    assert count.take(False, 2.0)


@given(st.floats(0, 1e6), st.floats(0.01, 1e4))
def test_alignment_is_late_by_a_quarter_or_a_second_at_most(now: float, delay: float) -> None:
    when = aligned(now, delay)
    assert -1e-6 <= when - now - delay <= min(1.0, delay / 4) + 1e-6


def test_timers_fall_together() -> None:
    whole = {aligned(1000.0 + n / 100, 5.0) for n in range(100)}
    assert whole <= {1005.0, 1006.0}
    halves = {aligned(1000.0 + n / 100, 2.0) for n in range(100)}
    assert len(halves) <= 3
    assert len({aligned(1000.3, 5.0), aligned(1001.9, 4.0), aligned(1003.8, 2.0)}) == 1


# -- the health topic


async def test_a_report_is_a_verdict_at_once_and_costs_no_timer() -> None:
    async with probing(quick()) as (probe, results):
        assert probe._timer is None
        probe.heard(True, "ready")
        assert results == [(True, "ready")]
        assert probe._timer is None
        probe.heard(True, "ready")
        probe.heard(True, "merry")
        assert results == [(True, "ready"), (True, "merry")]


async def test_thresholds_count_the_last_report_again_after_each_interval() -> None:
    async with probing(quick(success_threshold=2, failure_threshold=3)) as (probe, results):
        probe.heard(True, "ready")
        assert results == []
        await results.until(True, "ready")
        probe.heard(False, "no microphone")
        probe.heard(False, "no microphone")
        assert len(results) == 1
        await results.until(False, "no microphone")
        await eventually(lambda: probe._timer is None)


async def test_a_good_report_between_starts_the_row_anew() -> None:
    async with probing(quick(failure_threshold=2, interval=3600.0)) as (probe, results):
        for ok in (True, False, True, False, True):
            probe.heard(ok, "word")
        assert results == [(True, "word")]


async def test_a_report_goes_stale_and_so_does_silence() -> None:
    async with probing(quick(stale_after=0.05, failure_threshold=1)) as (probe, results):
        await results.until(False, "it has said nothing on its health topic for 0.05 s")
        probe.heard(True, "there")
        await results.until(True, "there")
        await results.until(False, "said nothing")


async def test_what_comes_after_the_end_is_not_heard() -> None:
    async with probing(quick(stale_after=0.05)) as (probe, results):
        probe.stop()
        probe.stop()
        probe.heard(True, "ready")
        await asyncio.sleep(0)
        assert results == []


async def test_it_may_be_stopped_by_whom_it_tells() -> None:
    async with probing(quick(stale_after=1.0, success_threshold=1)) as (probe, results):
        probe._on_result = lambda ok, text: (results(ok, text), probe.stop())  # type: ignore[assignment, func-returns-value]
        probe.heard(True, "ready")
        assert results == [(True, "ready")]
        assert probe._timer is None


# -- the others


async def test_a_line_of_output() -> None:
    async with probing(LogLineProbe(pattern=r"listening on \d+")) as (probe, results):
        assert probe.listens
        for line in ("", "listening on all ports", "x" * 5000 + "listening on 80", "now listening on 8090, all well"):
            probe.line(line)
        assert results == [(True, "it wrote: now listening on 8090, all well")]
        assert not probe.listens
        probe.line("listening on 1")
        assert len(results) == 1


async def test_a_long_line_is_told_in_part() -> None:
    async with probing(LogLineProbe(pattern="up")) as (probe, results):
        probe.line("up" + "x" * 9999)
        assert len(results[0][1]) == 500


async def test_notified() -> None:
    async with probing(NotifyProbe()) as (probe, results):
        probe.notified_ready("models are loaded")
        assert results == [(True, "models are loaded")]


@pytest.mark.parametrize(("spec", "text"), [(DelayProbe(after=0.0), "it has run for 0 s"), (NoProbe(), "running")])
async def test_ready_by_itself(spec: Any, text: str) -> None:
    async with probing(spec) as (_, results):
        assert await results.until(True) == text


async def test_what_is_said_to_one_whom_it_does_not_concern() -> None:
    async with probing(DelayProbe(after=3600.0)) as (probe, results):
        probe.heard(True, "ready")
        probe.line("ready")
        probe.notified_ready("ready")
        assert results == []
