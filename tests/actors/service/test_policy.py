"""When a worker is started again, as a function of what happened, a clock and a source of chance."""

import random
from pathlib import Path
from signal import SIGINT, SIGTERM

from hypothesis import given
from hypothesis import strategies as st

from actors.service._policy import SILENT_AFTER, Mishaps, Policy, delay_of
from schemas.manifest import Backoff, Intensity, Restart, parse_manifest


def test_what_the_manifest_says() -> None:
    text = """
        [services.lamp]
        command = ["lamp"]
        restart = "on-failure"
        success_exit_codes = [0, 3]
        success_signals = ["SIGTERM", "SIGINT"]
        stop_signal = "SIGINT"
        grace = "3 s"
        readiness = { kind = "tcp", port = 80, start_period = "1 min" }
        backoff = { first = 1 }
        intensity = { restarts = 3 }
        [services.plain]
        command = ["plain"]
    """
    lamp, plain = (Policy.of(service) for service in parse_manifest(text, "services.toml", Path("/")).services)
    assert lamp.success == {0, 3, -SIGTERM, -SIGINT}
    assert (lamp.restart, lamp.stop_signal, lamp.grace, lamp.start_period) == (Restart.ON_FAILURE, SIGINT, 3.0, 60.0)
    assert (lamp.backoff.first, lamp.intensity.restarts, lamp.silent_after) == (1.0, 3, None)
    assert (plain.restart, plain.stop_signal, plain.start_period) == (Restart.ALWAYS, SIGTERM, None)
    assert plain.silent_after == SILENT_AFTER
    assert plain.silently == "running; it has not said on system/health/plain that it is ready"


def test_delays_grow_to_the_longest() -> None:
    backoff = Backoff(first=0.5, factor=3.0, max=10.0, jitter=0.5)
    assert [delay_of(backoff, n, 0.0) for n in range(1, 6)] == [0.5, 1.5, 4.5, 10.0, 10.0]
    assert [delay_of(backoff, n, 1.0) for n in range(1, 4)] == [0.25, 0.75, 2.25]
    assert delay_of(backoff, 10**6, 0.0) == 10.0


def test_a_steady_run_wipes_the_slate() -> None:
    policy, mishaps = Policy(backoff=Backoff(reset_after=60.0, at_once_if_ready=False)), Mishaps(lambda: 0.0)
    assert mishaps.ended(policy, 0.0, 0.0, None) == 0.5
    assert mishaps.ended(policy, 59.0, 0.0, None) == 1.0
    assert mishaps.ended(policy, 100.0, 0.0, 41.0) == 2.0  # ready for 59 s only
    assert mishaps.ended(policy, 101.0, 0.0, 41.0) == 0.5
    assert mishaps.ended(policy, 200.0, None, None) == 1.0  # nobody knows since when it ran


def test_more_than_the_intensity_is_too_many_and_the_window_forgets() -> None:
    policy, mishaps = Policy(intensity=Intensity(restarts=2, window=10.0)), Mishaps(lambda: 0.0)
    assert [mishaps.ended(policy, now, now, None) is None for now in (0.0, 5.0, 10.0, 14.0)] == [
        False,
        False,
        False,
        True,
    ]
    assert mishaps.ended(policy, 30.0, 30.0, None) is not None
    mishaps.forgive()
    assert mishaps.ended(policy, 30.0, 30.0, 30.0) == 0.0


def test_without_intensity_nothing_is_too_many_nor_kept() -> None:
    policy, mishaps = Policy(), Mishaps(lambda: 0.0)
    assert all(mishaps.ended(policy, 0.0, 0.0, None) is not None for _ in range(2000))
    assert not mishaps._ends


@given(st.integers(0, 2**32), st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=20))
def test_the_same_chance_gives_the_same_delays(seed: int, ends: list[tuple[float, bool]]) -> None:
    def run() -> list[float | None]:
        mishaps, now, found = Mishaps(random.Random(seed).random), 0.0, []
        for ran, ready in ends:
            now += ran
            delay = mishaps.ended(policy, now, now - ran, now - ran if ready else None)
            assert delay is None or 0.0 <= delay <= policy.backoff.max
            found.append(delay)
        return found

    policy = Policy(intensity=Intensity(restarts=5, window=50.0))
    assert run() == run()
