"""The watchdog bites one that is silent, once, and nobody else."""

import asyncio

from actors.probes import Watchdog
from tests.support import eventually


async def test_silence_is_told_once() -> None:
    told: list[str] = []
    watchdog = Watchdog(0.05, told.append)
    watchdog.start()
    await eventually(lambda: told)
    assert told == ["its watchdog has heard nothing for 0.05 s"]
    assert watchdog._timer is None
    watchdog.start()
    await eventually(lambda: len(told) == 2)


async def test_pats_keep_it_quiet_and_cost_no_timer() -> None:
    told: list[str] = []
    watchdog = Watchdog(3600.0, told.append)
    watchdog.start()
    timer = watchdog._timer
    for _ in range(1000):
        watchdog.pat()
    assert watchdog._timer is timer
    watchdog._look(False)  # the timer is up, and finds it patted
    assert watchdog._timer is not None
    watchdog.stop()
    watchdog.stop()
    assert told == []


async def test_what_was_sent_while_the_loop_was_busy_counts() -> None:
    """The deadline passes while nothing is read; the pat is there when it is looked at again."""
    told: list[str] = []
    watchdog = Watchdog(1000.0, told.append)
    watchdog.start()
    watchdog._patted -= 2000.0
    watchdog._look(False)
    assert told == []
    watchdog.pat()
    watchdog._look(True)
    await asyncio.sleep(0)
    assert told == []
    watchdog.stop()


async def test_one_that_is_stopped_does_not_bite() -> None:
    told: list[str] = []
    watchdog = Watchdog(0.01, told.append)
    watchdog.start()
    watchdog.stop()
    await asyncio.sleep(0.1)
    assert told == []
