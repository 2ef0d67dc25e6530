"""The worker's life on real processes: started, ended, killed, flooding, stubborn, and what it says of itself."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from actors.service import ServiceActor, _actor, _policy
from schemas.manifest import Backoff, Output
from schemas.states import Lifecycle
from tests.actors.service.support import (
    APPLIED_TOPIC,
    HEALTH_TOPIC,
    NAME,
    PUBLIC_PEM,
    SLEEPER,
    Rig,
    WorkerLog,
    python,
    shell,
)
from tests.support import eventually

DEAF = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)")


@pytest.fixture
def impatient(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backs off for a moment only."""
    rig.backoff = Backoff(first=0.01, max=0.02)
    monkeypatch.setattr(_actor, "TRY_AGAIN", 0.02)


@pytest.fixture
def patient(rig: Rig) -> None:
    """Backs off for longer than any test."""
    rig.backoff = Backoff(first=600.0, max=600.0)


def applied(rig: Rig, version: int, **more: object) -> None:
    report = {
        "service": NAME,
        "instance": rig.state.instance,
        "config_epoch": rig.state.desired.config_epoch,
        "version": version,
        "ok": True,
        **more,
    }
    rig.service.tell(ServiceActor.applied, json.dumps(report).encode())


async def handled(rig: Rig) -> None:
    """Everything that was told before has been dealt with: a message that changes nothing is answered."""
    await rig.change()


# -- starts and ends


async def test_from_start_to_end(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(shell("echo up $TARS_SERVICE $TARS_INSTANCE; exec sleep 600"))
    started = await rig.until(Lifecycle.STARTING)
    await eventually(lambda: printed.lines)
    assert printed.lines == [f"up svc {started.instance}"]
    assert (rig.runtime / "instances" / "svc").read_text() == started.instance
    ready = await rig.ready()
    assert (ready.pid, ready.reason, ready.restarts) == (started.pid, "ready", 0)
    await rig.service.ask(ServiceActor.shut_down)
    assert (rig.state.state, rig.state.pid, rig.state.instance) == (Lifecycle.STOPPED, None, None)
    assert rig.state.reason == "the supervisor stops"


async def test_a_crash_is_mended_at_once_and_then_with_delays(rig: Rig, patient: None) -> None:
    await rig.serve()
    first = await rig.ready()
    assert first.pid is not None
    os.kill(first.pid, 9)
    second = await rig.until(Lifecycle.STARTING, instance=first.instance)
    assert second.reason == "started again after it was killed by SIGKILL"
    assert second.pid is not None
    rig.hear_the_clearing()
    applied(rig, 1)
    await eventually(lambda: rig.state.reported is not None)
    os.kill(second.pid, 9)
    down = await rig.until(Lifecycle.BACKING_OFF)
    assert (down.reason, down.restarts, down.reported) == ("was killed by SIGKILL", 2, None)


async def test_a_change_while_it_backs_off_tries_at_once(rig: Rig, patient: None, tmp_path: Path) -> None:
    """Any change, a live one too: it may be the cure."""
    await rig.serve(shell(f"test -e {tmp_path}/cure && exec sleep 600; exit 3"))
    down = await rig.until(Lifecycle.BACKING_OFF)
    assert down.reason == "exited with 3"
    (tmp_path / "cure").touch()
    assert (await rig.change(volume=1)).message == "Saved. The worker starts with it."
    assert (await rig.until(Lifecycle.STARTING)).reason == "a setting was changed"


@pytest.mark.parametrize("command", [("/no/such/program",), ("/etc/passwd",)])
async def test_a_command_that_cannot_be_started(rig: Rig, patient: None, command: tuple[str, ...]) -> None:
    """Somebody has to mend something first, so it is not tried again by itself; a change may be the cure."""
    await rig.serve(command)
    down = await rig.until(Lifecycle.FAILED)
    assert command[0] in down.reason
    await rig.change(volume=1)
    await eventually(lambda: rig.state.state is Lifecycle.FAILED and rig.state.since > down.since)
    assert len(rig.refs["svc"]) == 1
    await rig.service.ask(ServiceActor.shut_down)
    assert rig.state.state is Lifecycle.STOPPED


async def test_an_end_while_it_backs_off(rig: Rig, patient: None) -> None:
    await rig.serve(shell("exit 1"))
    await rig.until(Lifecycle.BACKING_OFF)
    await rig.service.ask(ServiceActor.shut_down)
    assert (rig.state.state, rig.state.reason) == (Lifecycle.STOPPED, "the supervisor stops")


async def test_nothing_is_started_after_the_end(rig: Rig) -> None:
    """The race that restarts a worker for ever: a restart, a change and the end, all at once."""
    await rig.serve()
    await rig.ready()
    changes = [asyncio.ensure_future(rig.change(engine=engine)) for engine in ("other", "piper", "other")]
    end = asyncio.ensure_future(rig.service.ask(ServiceActor.shut_down))
    late = asyncio.ensure_future(rig.change(volume=9, api_key="new"))
    await asyncio.gather(*changes, end, late)
    await handled(rig)
    assert rig.state.state is Lifecycle.STOPPED
    assert rig.state.pid is None
    await handled(rig)
    assert rig.state.state is Lifecycle.STOPPED


async def test_an_end_during_the_start(rig: Rig) -> None:
    await rig.serve()
    await rig.service.ask(ServiceActor.shut_down)  # behind the first `follow`, before its worker
    await handled(rig)
    assert rig.state.pid is None


async def test_an_end_during_a_restart(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(DEAF, grace=600.0)
    await eventually(lambda: printed.lines)
    await rig.change(engine="other")
    await rig.until(Lifecycle.STOPPING)
    end = asyncio.ensure_future(rig.service.ask(ServiceActor.shut_down))
    await asyncio.sleep(0)
    rig.hurry.set()
    await end
    assert (rig.state.state, rig.state.reason) == (Lifecycle.STOPPED, "the supervisor stops")


async def test_one_that_ignores_term_is_killed_after_its_grace(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(DEAF, grace=0.05)
    await eventually(lambda: printed.lines)
    before = rig.state
    await rig.change(engine="other")
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    await rig.service.ask(ServiceActor.shut_down)
    assert rig.state.state is Lifecycle.STOPPED


async def test_changes_while_it_ends_ask_only_once(rig: Rig, printed: WorkerLog, tmp_path: Path) -> None:
    """A second TERM would hurry many a program that is still saving its work."""
    await rig.serve(
        python(
            "import signal, time, os\n"
            f"signal.signal(15, lambda *_: (print('term'), os.path.exists('{tmp_path}/go') and os._exit(0)))\n"
            "print('up')\n"
            f"while not os.path.exists('{tmp_path}/go'): time.sleep(0.01)\n"
        )
    )
    await eventually(lambda: printed.lines)
    before = rig.state
    await rig.change(engine="other")
    await rig.change(engine="piper", api_key="another")
    await rig.change(engine="other")
    await handled(rig)
    await eventually(lambda: "term" in printed.lines)
    (tmp_path / "go").touch()
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    assert printed.lines.count("term") == 1
    assert rig.snapshot().config["engine"] == "other"


async def test_back_to_what_it_runs_with_needs_no_restart_when_it_has_not_begun(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    there = asyncio.ensure_future(rig.change(engine="other"))
    back = asyncio.ensure_future(rig.change(engine="piper"))
    await asyncio.gather(there, back)
    await handled(rig)
    after = await rig.until(Lifecycle.STARTING, Lifecycle.READY)
    assert rig.snapshot().config["engine"] == "piper"
    assert after.instance == before.instance


# -- output


async def test_a_flood_of_output_is_held_back_and_harms_nobody(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(python("import os\nwhile True: os.write(1, b'spam spam spam\\n' * 4096)"))
    await eventually(lambda: len(printed.lines) > 500)
    assert (await rig.change(volume=1)).version == 2
    await rig.service.ask(ServiceActor.shut_down)
    assert rig.state.state is Lifecycle.STOPPED


async def test_binary_output_passes(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(python("import os, time; os.write(1, bytes(range(256)) + b'\\nend\\n'); time.sleep(600)"))
    await eventually(lambda: "end" in printed.lines)


async def test_without_files_the_last_lines_are_in_memory_alone(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(output=Output(files=0))
    await eventually(lambda: printed.lines == ["up"])
    output = rig.outputs.get(NAME)
    assert output is not None
    assert json.loads(output.tail(1)[0])["message"] == "up"
    await rig.service.ask(ServiceActor.shut_down)
    await rig.outputs.close()
    assert list((rig.folder / "logs").iterdir()) == []


# -- reports


async def test_one_that_never_reports_can_be_changed_and_ended(rig: Rig) -> None:
    await rig.serve()
    before = await rig.until(Lifecycle.STARTING)
    await rig.change(engine="other")
    await rig.until(Lifecycle.STARTING, instance=before.instance)


async def test_health_comes_and_goes(rig: Rig) -> None:
    await rig.serve()
    await rig.until(Lifecycle.STARTING)
    rig.hear_the_clearing()
    rig.report_health(False, "loading the model")
    await eventually(lambda: rig.state.reason == "loading the model")
    assert rig.state.state is Lifecycle.STARTING  # "not yet" is no illness
    rig.report_health(True, "ready")
    since = (await rig.until(Lifecycle.READY)).since
    for n in range(20):
        rig.report_health(False, "", err=f"no microphone {n}")
        assert (await rig.until(Lifecycle.UNHEALTHY)).since >= since
        rig.report_health(True)
        assert (await rig.until(Lifecycle.READY)).reason == "healthy"
    assert rig.state.restarts == 0


async def test_a_control_signal_that_failed_is_logged_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.serve()
    await rig.until(Lifecycle.STARTING)
    rig.hear_the_clearing()
    await rig.change(pin="4711-0815")
    await eventually(lambda: rig.wanted_version() == 2)
    failed = {"error": "control signal restart: ValueError: no 4711-0815"}
    for version in (1, 1, 2):
        applied(rig, version, **failed)
    await eventually(lambda: rig.state.reported is not None and rig.state.reported.version == 2)
    told = [record.getMessage() for record in caplog.records if "control signal" in record.getMessage()]
    assert told == ["svc: the worker reports a failure: control signal restart: ValueError: no ********"]


async def test_one_that_says_nothing_of_itself_is_said_to_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_policy, "SILENT_AFTER", 0.05)
    await rig.serve()
    await eventually(lambda: rig.state.reason == f"running; it has not said on {HEALTH_TOPIC} that it is ready")
    assert rig.state.state is Lifecycle.STARTING
    await rig.ready()
    assert (rig.state.state, rig.state.reason) == (Lifecycle.READY, "ready")


async def test_the_envelope_is_read_too(rig: Rig) -> None:
    await rig.serve()
    await rig.until(Lifecycle.STARTING)
    rig.hear_the_clearing()
    envelope = {"id": "1", "type": "health", "ts": 1, "source": "svc", "data": {"ok": True, "event": "up", "err": None}}
    rig.service.tell(ServiceActor.health, json.dumps(envelope).encode())
    assert (await rig.until(Lifecycle.READY)).reason == "up"


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"ok": 1}',
        b'{"ok": "true"}',
        b"{}",
        b'{"data": {"ok": true, "event": 5}}',
        b'{"ok": true, "event": "' + b"x" * 5000 + b'"}',
        b'{"ok": true, "event": "' + b"x" * 70_000 + b'"}',
        b'{"ok": true, "a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
async def test_what_cannot_be_read_is_said_once_and_changes_nothing(
    rig: Rig, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.serve()
    before = await rig.ready()
    for _ in range(3):
        rig.service.tell(ServiceActor.health, payload)
    rig.service.tell(ServiceActor.applied, payload)
    await handled(rig)
    assert rig.state == before
    warnings = [record.getMessage() for record in caplog.records if HEALTH_TOPIC in record.getMessage()]
    assert len(warnings) == 1
    assert len(warnings[0]) < 600
    assert len(rig.refs["svc"]) == 1


async def test_the_reported_version_is_the_present_instances(rig: Rig) -> None:
    await rig.serve()
    await rig.ready()
    applied(rig, 1)
    await eventually(lambda: rig.state.reported is not None and rig.state.reported.version == 1)
    applied(rig, 9, instance="somebody-else")
    applied(rig, 9, service="other")
    applied(rig, 9, ok=False, error="cannot")
    await handled(rig)
    assert rig.state.reported is not None
    assert rig.state.reported.version == 1
    await rig.change(volume=50)
    applied(rig, 2, instance=None)  # of a library that does not say
    await eventually(lambda: rig.state.reported is not None and rig.state.reported.version == 2)
    await rig.change(engine="other")
    await eventually(lambda: rig.state.reported is None)


async def test_the_previous_instance_is_not_heard(rig: Rig) -> None:
    await rig.serve()
    first = await rig.ready()
    assert first.pid is not None
    os.kill(first.pid, 9)
    await rig.until(Lifecycle.STARTING, instance=first.instance)
    rig.report_health(True, "late words of the one before")
    applied(rig, 1, instance=None)
    await handled(rig)
    assert rig.state.state is Lifecycle.STARTING
    assert rig.state.reported is None
    rig.hear_the_clearing()
    rig.report_health(True, "ready")
    await rig.until(Lifecycle.READY)


async def test_it_is_never_deaf_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clearing was acknowledged, and the connection broke before it came back: it is made again."""
    monkeypatch.setattr(_actor, "CLEAR_AGAIN", 0.01)
    cleared: list[str] = []
    original = type(rig.desired).retain

    def retain(self: object, topic: str, content: object, token: object = None) -> None:
        if content == b"":
            cleared.append(topic)
        original(self, topic, content, token)  # type: ignore[arg-type]

    monkeypatch.setattr(type(rig.desired), "retain", retain)
    await rig.serve()
    await eventually(lambda: cleared.count(HEALTH_TOPIC) > 2 and cleared.count(APPLIED_TOPIC) > 2)
    rig.hear_the_clearing()
    await handled(rig)
    made = len(cleared)
    rig.report_health(True)
    await rig.until(Lifecycle.READY)
    await asyncio.sleep(0.05)
    assert len(cleared) <= made + 2


async def test_a_flood_of_reports_keeps_no_change_and_no_end_from_being_seen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mailbox is full of reports all the time: while a change is committed, when the worker ends."""
    monkeypatch.setattr(ServiceActor, "mailbox_capacity", 3)
    await rig.serve()
    before = await rig.ready()
    full = 0

    async def flood() -> None:
        nonlocal full
        while True:
            for n in range(5):
                full += not rig.service.tell(ServiceActor.health, b'{"ok": true, "event": "flood %d"}' % n)
            await asyncio.sleep(0)

    change = asyncio.ensure_future(rig.change(engine="other"))
    await asyncio.sleep(0)  # it is in the mailbox, before the flood
    flooding = asyncio.ensure_future(flood())
    try:
        assert (await change).version == 2
        after = await rig.until(Lifecycle.STARTING, Lifecycle.READY, instance=before.instance)
        assert after.pid is not None
        os.kill(after.pid, 9)
        await rig.until(Lifecycle.STARTING, Lifecycle.READY, instance=after.instance)
    finally:
        flooding.cancel()
        await asyncio.wait([flooding])
    assert full
    assert len(rig.refs["svc"]) == 1


# -- what fails around it


async def test_the_signer_is_down(rig: Rig, impatient: None) -> None:
    """Nobody can sign the snapshot: the worker waits for it, and the actor is not restarted over it."""
    root = rig.supervisor
    rig.signer.timeout = 0.1
    rig.refs["signer"][-1].cancel()
    await eventually(lambda: len(rig.refs["signer"]) == 2)
    rig.signer.detach()
    await rig.serve()
    down = await rig.until(Lifecycle.BACKING_OFF)
    assert "signer is down" in down.reason
    assert rig.wanted_version() == 1  # the bridge signs when it can
    rig.signer.attach(rig.refs["signer"][-1])
    await rig.until(Lifecycle.STARTING)
    rig.signer.detach()
    # A snapshot of this very version is there, so a restart does not need the signer.
    before = rig.state
    assert before.pid is not None
    os.kill(before.pid, 9)
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    assert len(rig.refs["svc"]) == 1
    assert root.is_alive()


async def test_the_runtime_folder_cannot_be_written(rig: Rig, impatient: None) -> None:
    """A live change is published all the same; one of a secret when the secret is there; nobody is restarted."""
    await rig.serve()
    before = await rig.ready()
    away = rig.runtime / "away"
    (rig.runtime / "services").rename(away)
    (rig.runtime / "services").touch()
    await rig.change(volume=1)
    await eventually(lambda: rig.wanted_version() == 2)
    await rig.change(pin="1234")
    await handled(rig)
    assert rig.wanted_version() == 2
    await eventually(lambda: rig.cached_version == 3)
    (rig.runtime / "services").unlink()
    away.rename(rig.runtime / "services")
    await eventually(lambda: rig.wanted_version() == 3)
    assert (rig.credentials / "pin").read_text() == "1234"
    assert (rig.state.state, rig.state.instance) == (Lifecycle.READY, before.instance)
    assert len(rig.refs["svc"]) == 1


async def test_the_runtime_folder_vanishes(rig: Rig, impatient: None) -> None:
    """A login manager removes it at the last logout. Whatever starts next finds everything there again, for us alone."""
    await rig.serve()
    before = await rig.until(Lifecycle.STARTING)
    await rig.change(pin="1234")
    await eventually(lambda: rig.wanted_version() == 2)
    await handled(rig)  # whoever removes a folder while it is written to is told that it is not empty
    shutil.rmtree(rig.runtime)
    await rig.change(pin="5678")  # live: written while it runs
    await eventually(lambda: rig.wanted_version() == 3)
    await handled(rig)
    assert (rig.credentials / "pin").read_text() == "5678"
    shutil.rmtree(rig.runtime)
    assert before.pid is not None
    os.kill(before.pid, 9)
    after = await rig.until(Lifecycle.STARTING, instance=before.instance)
    assert (rig.runtime / "instances" / "svc").read_text() == after.instance
    assert (rig.runtime / "public_keys.pem").read_text() == PUBLIC_PEM
    assert (rig.credentials / "pin").read_text() == "5678"
    assert rig.snapshot().version == 3
    folders = [rig.runtime, *(path for path in rig.runtime.rglob("*") if path.is_dir())]
    assert len(folders) == 5
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert len(rig.refs["svc"]) == 1


async def test_no_worker_is_started_in_somebody_elses_folder(rig: Rig, impatient: None) -> None:
    """Where the runtime folder was, under /tmp perhaps, another user may have made one since."""
    rig.runtime.chmod(0o777)
    await rig.serve()
    assert str(rig.runtime) in (await rig.until(Lifecycle.BACKING_OFF)).reason
    rig.runtime.chmod(0o700)
    await rig.until(Lifecycle.STARTING)


async def test_the_instance_cannot_be_recorded(rig: Rig, impatient: None) -> None:
    """No process without a record: a crash must not leave one that nobody finds."""
    (rig.runtime / "instances").rmdir()
    (rig.runtime / "instances").touch()
    await rig.serve()
    down = await rig.until(Lifecycle.BACKING_OFF)
    assert "instances" in down.reason
    (rig.runtime / "instances").unlink()
    started = await rig.until(Lifecycle.STARTING)
    assert (rig.runtime / "instances" / "svc").read_text() == started.instance
    assert len(rig.refs["svc"]) == 1


async def test_the_bridge_is_restarted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told while it was down, or waited in the mailbox it had, is told again."""
    monkeypatch.setattr(_actor, "TRY_AGAIN", 0.02)
    await rig.serve(SLEEPER)
    await rig.ready()
    ref = rig.refs["bridge"][-1]
    rig.bridge.detach()
    await rig.change(volume=1)
    await handled(rig)
    assert rig.wanted_version() == 1
    rig.bridge.attach(ref)
    await eventually(lambda: rig.wanted_version() == 2)
    # A message that was taken and is lost with the actor.
    ref.cancel()
    rig.bridge.attach(ref)
    await rig.change(volume=2)
    await eventually(lambda: rig.wanted_version() == 3)
    await eventually(lambda: json.loads(rig.desired.wanted("system/state/svc").content)["desired"]["version"] == 3)  # type: ignore[union-attr, arg-type]


async def test_the_cache_is_restarted(rig: Rig) -> None:
    await rig.serve()
    await eventually(lambda: rig.cached_version == 1)
    ref = rig.refs["cache"][-1]
    ref.cancel()
    await rig.change(volume=1)
    await eventually(lambda: rig.cached_version == 2)
    assert len(rig.refs["cache"]) == 2
