"""What the log tells the one who is woken at night: one line for each fact, with the service's name, without values."""

import logging
import os
from collections.abc import Iterator

import pytest

from actors.service import ServiceActor
from schemas.changes import StaleVersion
from schemas.manifest import Backoff
from schemas.states import Lifecycle
from tests.actors.service.support import Rig, WorkerLog, python
from tests.support import eventually

DEAF = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[str, str]]]:
    """Level and text of the lines, as they come; each has the field `service`."""
    lines: list[tuple[str, str]] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.__dict__["service"] == "svc"
            lines.append((record.levelname, record.getMessage()))

    logger, handler = logging.getLogger("actors.service"), Told()
    caplog.set_level(logging.INFO, "actors.service")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


async def test_a_workers_day(rig: Rig, told: list[tuple[str, str]]) -> None:
    rig.backoff = Backoff(first=600.0, max=600.0, jitter=0.0)
    await rig.serve()
    first = await rig.ready()
    for n in range(3):
        rig.report_health(False, err=f"no microphone {n}")
    rig.report_health(True)
    rig.report_health(True, "and well")
    await eventually(lambda: rig.state.reason == "and well")
    await rig.change(engine="other", volume=3, api_key="s3cret-value")
    second = await rig.until(Lifecycle.STARTING, instance=first.instance)
    assert second.pid is not None
    await rig.ready()
    os.kill(second.pid, 9)
    third = await rig.until(Lifecycle.STARTING, instance=second.instance)
    assert third.pid is not None
    os.kill(third.pid, 9)
    await rig.until(Lifecycle.BACKING_OFF)
    await rig.change(volume=4, api_key=None)
    fourth = await rig.until(Lifecycle.STARTING)
    await rig.service.ask(ServiceActor.shut_down)
    assert told == [
        ("INFO", f"svc: started, pid {first.pid} (started with the supervisor)"),
        ("INFO", "svc: ready"),
        ("WARNING", "svc: unhealthy: no microphone 0"),
        ("INFO", "svc: healthy again"),
        ("INFO", "svc: version 2 by me: engine (restart), volume (live), api_key (restart)"),
        ("INFO", "svc: restarts for engine, api_key"),
        ("INFO", "svc: ended (was killed by SIGTERM)"),
        ("INFO", f"svc: started, pid {second.pid} (restarted for engine, api_key)"),
        ("INFO", "svc: ready"),
        ("WARNING", "svc: was killed by SIGKILL; it is started again at once"),
        ("INFO", f"svc: started, pid {third.pid} (started again after it was killed by SIGKILL)"),
        ("WARNING", "svc: was killed by SIGKILL; it is started again in 600.0 s"),
        ("INFO", "svc: version 3 by me: volume (live), api_key (restart)"),
        ("INFO", f"svc: started, pid {fourth.pid} (a setting was changed)"),
        ("INFO", "svc: asked to end: the supervisor stops"),
        ("INFO", "svc: ended (was killed by SIGTERM)"),
    ]


async def test_one_that_does_not_end(rig: Rig, told: list[tuple[str, str]], printed: WorkerLog) -> None:
    await rig.serve(DEAF, grace=0.05)
    await eventually(lambda: "up" in printed.lines)
    await rig.service.ask(ServiceActor.shut_down)
    assert told[1:] == [
        ("INFO", "svc: asked to end: the supervisor stops"),
        ("WARNING", "svc: killed, since it did not end within 0.05 s"),
        ("INFO", "svc: ended (was killed by SIGKILL)"),
    ]


async def test_one_that_cannot_be_started(rig: Rig, told: list[tuple[str, str]]) -> None:
    await rig.serve(("/no/such/program",))
    await rig.until(Lifecycle.FAILED)
    ((level, text),) = told
    assert level == "ERROR"
    assert text.startswith("svc: cannot be started: there is no program /no/such/program; ")
    assert text.endswith("; it is tried again when it is asked for, or its configuration changes")


async def test_one_that_cannot_be_started_for_now(rig: Rig, told: list[tuple[str, str]]) -> None:
    rig.backoff = Backoff(first=600.0, max=600.0, jitter=0.0)
    rig.signer.timeout = 0.1
    rig.signer.detach()
    await rig.serve()
    await rig.until(Lifecycle.BACKING_OFF)
    ((level, text),) = told
    assert level == "ERROR"
    assert text.startswith("svc: cannot be started: signer is down")
    assert text.endswith("; tried again in 600.0 s")


async def test_who_changed_what(rig: Rig, told: list[tuple[str, str]]) -> None:
    """Keys and never values; nothing where nothing was changed."""
    await rig.serve()
    await rig.ready()
    told.clear()
    await rig.change(volume=100)
    await rig.change(volume=100)
    with pytest.raises(StaleVersion):
        await rig.change(version=1, volume=7)
    await rig.change(pin="4711-0815")
    # After the answer, so that nobody waits for it.
    await eventually(lambda: len(told) == 2)
    assert told == [
        ("INFO", "svc: version 2 by me: volume (the same value)"),
        ("INFO", "svc: version 3 by me: pin (live)"),
    ]


async def test_a_new_default_is_told(rig: Rig, told: list[tuple[str, str]]) -> None:
    await rig.serve()
    await rig.ready()
    rig.crash("svc")
    told.clear()
    rig.write_as_foreigner("UPDATE service_configs SET checksum = ?", "0" * 64)
    await eventually(
        lambda: any("version 2 by supervisor: what is stored means something else" in text for _, text in told)
    )
