"""Secrets: given to the worker before it can hear of them, and to nobody else."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from schemas.manifest import ExecProbe, NoProbe, NotifyProbe, Restart
from schemas.states import Kind, Lifecycle
from tests.actors.service.conftest import MakeRig
from tests.actors.service.support import Rig, WorkerLog, python, shell
from tests.support import eventually

SECRET = "c4nary-7f3e9a1b5d"
SHOW = shell('echo "key=$(cat "$CREDENTIALS_DIRECTORY/api_key" 2>/dev/null)"; exec sleep 600')


def files(rig: Rig) -> dict[str, tuple[str, int]]:
    return {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in rig.credentials.iterdir()}


async def test_set_replaced_and_deleted(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    await rig.change(pin="4711")
    await eventually(lambda: rig.wanted_version() == 2)
    assert files(rig) == {"pin": ("4711", 0o400)}
    await rig.change(pin="0815", api_key=SECRET)
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    assert files(rig) == {"pin": ("0815", 0o400), "api_key": (SECRET, 0o400)}
    (rig.credentials / "stray").touch()
    await rig.change(api_key=None)
    await eventually(lambda: rig.wanted_version() == 4)
    assert files(rig) == {"pin": ("0815", 0o400)}
    assert rig.shown["config"]["api_key"] is None
    assert [rig.credentials.stat().st_mode & 0o777, rig.runtime.joinpath("services/svc").stat().st_mode & 0o777] == [
        0o700,
        0o700,
    ]


async def test_the_file_is_there_before_the_version_is_published(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.serve()
    await rig.ready()
    seen: list[bool] = []
    original = type(rig.desired).retain

    def retain(self: object, topic: str, content: object, token: object = None) -> None:
        if getattr(content, "version", 0) == 2:
            seen.append((rig.credentials / "pin").exists())
        original(self, topic, content, token)  # type: ignore[arg-type]

    monkeypatch.setattr(type(rig.desired), "retain", retain)
    await rig.change(pin="4711")
    await eventually(lambda: seen)
    assert seen == [True]


async def test_the_file_is_there_before_the_process(rig: Rig, printed: WorkerLog) -> None:
    await rig.serve(SHOW)
    await eventually(lambda: "key=" in printed.lines)
    await rig.change(api_key=SECRET)
    await eventually(lambda: len(printed.lines) == 2)
    assert printed.lines == ["key=", "key=********"]  # it was there, and is not shown


async def test_output_hides_old_and_new_secrets(make_rig: MakeRig, printed: WorkerLog) -> None:
    """The worker may print the one it runs with until it has taken the next; those of the environment are secrets too."""
    rig = await make_rig(environment={"API_KEY": "from-the-environment"})
    await rig.serve(
        python(
            "import os, time, pathlib\n"
            "pin = pathlib.Path(os.environ['CREDENTIALS_DIRECTORY'], 'pin')\n"
            "old = None\n"
            "while True:\n"
            "    now = pin.read_text() if pin.exists() else None\n"
            "    if now != old:\n"
            "        print('old', old, 'now', now, 'key', os.environ['API_KEY'], os.environ['MQTT_URL'], end='\\n')\n"
            "        old = now\n"
            "    time.sleep(0.01)\n"
        )
    )
    await rig.ready()
    await rig.change(pin="first\nline-two")
    await eventually(lambda: any("old None" in line for line in printed.lines))
    await rig.change(pin="second-one")
    await eventually(lambda: any("now second" in line or "now ****" in line for line in printed.lines[2:]))
    text = "\n".join(printed.lines)
    for secret in ("first", "line-two", "second-one", "from-the-environment", "broker-password"):
        assert secret not in text
    assert "mqtt://svc:********@127.0.0.1:1" in text


async def test_what_a_worker_says_of_itself_is_cleaned_too(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.serve()
    before = await rig.ready()
    await rig.change(api_key=SECRET)
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    await rig.ready()
    rig.report_health(False, err=f"401 for {SECRET}")
    assert (await rig.until(Lifecycle.UNHEALTHY)).reason == "401 for ********"
    assert SECRET not in caplog.text
    await rig.change()
    wanted = rig.desired.wanted("system/state/svc")
    assert wanted is not None
    assert SECRET.encode() not in wanted.content  # type: ignore[operator]


@pytest.mark.parametrize("before", [190, 470, 16 * 1024 - 5])
async def test_a_probe_that_prints_one_where_it_is_cut_shows_no_part_of_it(make_rig: MakeRig, before: int) -> None:
    rig = await make_rig(environment={"API_KEY": SECRET})
    prints = python(f"import os; print('x' * {before} + os.environ['API_KEY'] + 'y'); raise SystemExit(1)")
    probe = ExecProbe(command=prints, interval=0.1, start_period=0.0, failure_threshold=1)
    await rig.serve(readiness=NoProbe(), liveness=probe)
    await eventually(lambda: rig.state.ends)
    told = rig.state.ends[0].reason
    assert "exited with 1: xxx" in told
    assert told.rpartition("x")[2].removesuffix("y").strip("*") == ""


@pytest.mark.parametrize("before", [490, 499])
async def test_a_status_that_holds_one_where_it_is_cut_shows_no_part_of_it(make_rig: MakeRig, before: int) -> None:
    rig = await make_rig(environment={"API_KEY": SECRET})
    tells = python(
        "import os, socket, time\n"
        "with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:\n"
        f"    text = 'STATUS=' + 'x' * {before} + os.environ['API_KEY']\n"
        "    one.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])\n"
        "time.sleep(600)\n"
    )
    await rig.serve(tells, readiness=NotifyProbe())
    await eventually(lambda: "xxx" in rig.state.reason)
    assert rig.state.reason == ("x" * before + "********")[:500]


async def test_what_a_probe_of_one_that_somebody_else_runs_prints(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    prints = python(f"import os\nif os.path.exists('ill'): print('x' * 190 + '{SECRET}'); raise SystemExit(1)")
    probe = ExecProbe(command=prints, interval=0.1, start_period=0.0, failure_threshold=1)
    await rig.serve(kind=Kind.EXTERNAL, readiness=NoProbe(), liveness=probe, restart=Restart.NEVER)
    await rig.until(Lifecycle.READY)
    await rig.change(api_key=SECRET)
    await eventually(lambda: rig.wanted_version() == 2)
    (rig.folder / "ill").touch()
    state = await rig.until(Lifecycle.UNHEALTHY)
    assert state.reason.endswith("x********")
    assert "c4n" not in caplog.text


async def test_a_secret_that_does_not_open_can_be_set_anew(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Another master key, or a row that was tampered with: the worker runs without it, and the owner types it again."""
    await rig.serve()
    await rig.ready()
    await rig.change(api_key=SECRET)
    for spoilt in (b"", b"x" * 40):
        rig.write_as_foreigner("UPDATE encrypted_secrets SET ciphertext = ?, nonce = ?", spoilt, spoilt)
        rig.crash("svc")
        count = len(rig.refs["svc"])
        await eventually(lambda count=count: len(rig.refs["svc"]) > count)  # type: ignore[misc]
        await rig.change()
        await eventually(lambda: files(rig) == {})
        assert "the secret svc/api_key does not open" in caplog.text
        await eventually(lambda: not rig.board.health.ok)
        assert (rig.board.health.err or "").startswith(
            "service svc: the secret svc/api_key does not open under master key"
        )
        assert rig.shown["config"]["api_key"] == "********"
        assert (await rig.change(api_key=SECRET)).restart == ("api_key",)
        await eventually(lambda: files(rig) == {"api_key": (SECRET, 0o400)})
        await eventually(lambda: rig.board.health.ok)
        assert rig.board.health.err is None
    assert SECRET not in caplog.text


async def test_one_that_does_not_open_shows_without_a_worker_too(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.serve(kind=Kind.EXTERNAL)
    await rig.change(api_key=SECRET)
    rig.write_as_foreigner("UPDATE encrypted_secrets SET nonce = ?", b"x" * 12)
    rig.crash("svc")
    await eventually(lambda: "svc/api_key" in (rig.board.health.err or ""))
    assert caplog.text.count("does not open") == 1
    await rig.change(api_key=None)
    await eventually(lambda: rig.board.health.ok)


async def test_no_other_file_holds_it(rig: Rig) -> None:
    await rig.serve()
    await rig.ready()
    await rig.change(api_key=SECRET)
    await eventually(lambda: rig.cached_version == 2)
    holders = [path for path in rig.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holders == [rig.credentials / "api_key"]
    with closing(sqlite3.connect(rig.folder / "config.db")) as connection:
        assert SECRET not in "\n".join(connection.iterdump())


async def test_a_link_in_the_place_of_a_file_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    await rig.serve()
    await rig.ready()
    (rig.credentials / "pin").symlink_to(victim)
    await rig.change(pin="4711")
    await eventually(lambda: rig.wanted_version() == 2)
    assert victim.read_text() == "precious"
    assert not (rig.credentials / "pin").is_symlink()
