"""The library and control signals, without a broker: messages come through `receive_control`."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel
from tars_config import ConfigLibrary, RestartRequired, Surroundings
from tars_config._control import MAX_WAITING
from tars_config.control import ControlSignal
from tars_config.testing import TestSupervisor
from tars_config.wire import Reason

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
async def library(supervisor):
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as library:
        await library.get_values()
        yield library


class Handler:
    """Remembers the commands it was called with; the first one waits where `gate` is closed."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.at_once = self.most_at_once = 0
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self, signal: ControlSignal) -> None:
        self.commands.append(signal.command)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.entered.set()
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1


async def settled(library):
    async with asyncio.timeout(30):
        await library.settle()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_handler_gets_each_command_once_with_what_was_said(supervisor, library, asynchronous):
    seen = []

    async def later(signal):
        await asyncio.sleep(0)
        seen.append(signal)

    library.on_control(later if asynchronous else seen.append)
    await supervisor.send_control(library, "clear-cache", "asked for")
    await supervisor.send_control(library)
    assert [(signal.command, signal.reason) for signal in seen] == [("clear-cache", "asked for"), ("restart", "")]
    assert (seen[0].service, seen[0].version, seen[0].config_epoch) == ("stt-worker", 1, supervisor.config_epoch)
    assert not library.refused
    assert library.last_report.error is None


async def test_it_can_be_a_decorator_and_there_is_one(library):
    @library.on_control
    def act(signal: ControlSignal) -> None:
        raise NotImplementedError

    assert act.__name__ == "act"
    with pytest.raises(RuntimeError, match="already"):
        library.on_control(act)


async def test_bad_ones_are_refused_and_counted_as_updates_are(supervisor, library, eventually, tmp_path):
    seen = []
    library.on_control(seen.append)
    good = supervisor.sign_control().encode()
    library.receive_control(good)
    await settled(library)
    other = TestSupervisor(tmp_path / "other", "stt-worker", {})
    now = datetime.now(UTC)
    late = supervisor.sign_control(issued_at=now + 2 * SECOND).encode()
    supervisor.service = "tts-worker"
    foreign = supervisor.sign_control().encode()
    supervisor.service = "stt-worker"
    bad = [
        (Reason.REPLAYED, good),
        (Reason.REPLAYED, supervisor.sign_control(issued_at=now - MINUTE).encode()),
        (Reason.STALE, supervisor.sign_control(issued_at=now - 6 * MINUTE).encode()),
        (Reason.FUTURE, supervisor.sign_control(issued_at=now + 6 * MINUTE).encode()),
        (Reason.WRONG_SERVICE, foreign),
        (Reason.BAD_SIGNATURE, other.sign_control().encode()),
        (Reason.BAD_SIGNATURE, late.replace(b'"restart"', b'"restore"')),
        (Reason.EXTRA_KEY, supervisor.sign().encode()),
        (Reason.UNSIGNED, b"{}"),
        (Reason.MALFORMED, b"\xff"),
        (Reason.TOO_LARGE, b" " * 10_000),
    ]
    for _, payload in bad:
        library.receive_control(payload)
    library.receive_control(b"")
    expected: dict[str, int] = {}
    for reason, _ in bad:
        expected[reason] = expected.get(reason, 0) + 1
    assert library.refused == expected
    await eventually(lambda: library.last_report.refused == expected)
    await settled(library)
    assert len(seen) == 1
    library.receive_control(late)
    await settled(library)
    assert len(seen) == 2


async def test_each_bit_flipped_is_refused_by_the_library(supervisor, library):
    seen = []
    library.on_control(seen.append)
    good = supervisor.sign_control().encode()
    for position in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        library.receive_control(bytes(flipped))
    await settled(library)
    assert not seen
    assert sum(library.refused.values()) == len(good) * 8


async def test_signals_are_acted_on_one_after_another(supervisor, library):
    handler = library.on_control(Handler())
    payloads = [supervisor.sign_control(f"command-{number}").encode() for number in range(3)]
    for payload in payloads:
        library.receive_control(payload)
    async with asyncio.timeout(30):
        await handler.entered.wait()
    for payload in payloads:  # neither what is acted on nor what waits is taken again
        library.receive_control(payload)
    assert handler.commands == ["command-0"]
    handler.gate.set()
    await settled(library)
    assert handler.commands == ["command-0", "command-1", "command-2"]
    assert handler.most_at_once == 1
    assert library.refused == {"replayed": 3}


async def test_one_that_comes_at_the_very_end_of_another_is_acted_on_too(supervisor, library):
    """The handler's last moments, step by step: whenever the next one comes, it is not forgotten."""
    for steps in range(12):
        seen = []
        library._controls.handler = lambda signal, seen=seen: seen.append(signal.command)
        library.receive_control(supervisor.sign_control("first").encode())
        async with asyncio.timeout(30):
            while not seen:
                await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        library.receive_control(supervisor.sign_control("second").encode())
        await settled(library)
        assert seen == ["first", "second"]


async def test_one_that_comes_again_while_it_is_written_down_is_acted_on_once(supervisor, library, monkeypatch):
    writing, written = threading.Event(), threading.Event()
    store = library._controls._file.store

    def slow(acted):
        writing.set()
        assert written.wait(30)
        store(acted)

    monkeypatch.setattr(library._controls._file, "store", slow)
    seen = []
    library.on_control(seen.append)
    payload = supervisor.sign_control().encode()
    library.receive_control(payload)
    assert await asyncio.to_thread(writing.wait, 10)
    library.receive_control(payload)
    written.set()
    await settled(library)
    assert len(seen) == 1
    assert library.refused == {"replayed": 1}


async def test_what_waits_is_bounded_and_what_is_dropped_told(supervisor, library, caplog):
    handler = library.on_control(Handler())
    library.receive_control(supervisor.sign_control("first").encode())
    async with asyncio.timeout(30):
        await handler.entered.wait()
    for number in range(MAX_WAITING + 1):
        library.receive_control(supervisor.sign_control(f"command-{number}").encode())
    assert f"control signal command-{MAX_WAITING}: 16 signals wait already" in caplog.text
    assert "16 signals wait already" in library.last_report.error
    handler.gate.set()
    await settled(library)
    assert len(handler.commands) == 1 + MAX_WAITING


@pytest.mark.parametrize("outcome", ["raises", "cancelled", "too long"])
async def test_a_handler_that_fails_is_logged_and_reported_and_not_called_again(supervisor, outcome, caplog):
    supervisor.set_secret("api_key", "hunter2")
    calls, fail = [], True

    async def handler(signal):
        calls.append(signal.command)
        if not fail:
            return
        if outcome == "raises":
            raise ValueError("no hunter2 here")
        if outcome == "cancelled":
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    around = supervisor.surroundings()
    async with ConfigLibrary("stt-worker", surroundings=around, callback_timeout_s=0.05) as library:
        await library.get_values()
        library.on_control(handler)
        payload = supervisor.sign_control("clear-cache").encode()
        library.receive_control(payload)
        await settled(library)
        library.receive_control(payload)
        await settled(library)
        assert calls == ["clear-cache"]
        report = library.last_report
        assert (report.ok, report.version, report.refused) == (True, 1, {})
        says = {"raises": "ValueError: no ***", "cancelled": "was cancelled", "too long": "longer than 0.05 s"}
        assert report.error.startswith("control signal clear-cache: ")
        assert says[outcome] in report.error
        assert f"stt-worker: {report.error}" in caplog.text
        assert "hunter2" not in caplog.text + report.model_dump_json()
        fail = False
        await supervisor.send_control(library, "clear-cache")
        assert library.last_report.error is None


async def test_a_failed_version_and_a_failed_signal_are_both_in_the_report(supervisor, library):
    def refuse(value):
        raise ValueError(f"refuses {value if isinstance(value, dict) else value.command}")

    library.on_control(refuse)
    await supervisor.send_control(library)
    await library.subscribe_values(refuse)
    await supervisor.deliver(library)
    assert not library.last_report.ok
    assert "control signal restart: ValueError: refuses restart" in library.last_report.error
    assert "ValueError: refuses {" in library.last_report.error


async def test_a_signal_before_anything_was_reported_is_in_the_first_report(supervisor):
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as library:
        await supervisor.send_control(library, "dance")
        assert library.last_report is None
        await library.get_values()
        assert library.last_report.ok
        assert library.last_report.error == ("control signal dance: this worker has no handler for it (on_control)")


async def test_reading_and_updates_go_on_while_a_handler_runs(supervisor, library):
    class Stt(BaseModel):
        channels: int

    seen = []
    handler = library.on_control(Handler())
    library.receive_control(supervisor.sign_control().encode())
    async with asyncio.timeout(30):
        await handler.entered.wait()
        await library.subscribe_updates(lambda config: seen.append(config.channels), Stt)
        supervisor.config["channels"] = 2
        supervisor.version += 1
        library.receive(supervisor.sign().encode())
        while not seen:
            await asyncio.sleep(0.001)
        assert await library.get_config(Stt) == Stt(channels=2)
    handler.gate.set()
    await settled(library)


async def test_a_handler_may_read_the_configuration(supervisor, library):
    seen = []

    async def act(signal):
        seen.append((await library.get_values())["channels"])
        return RestartRequired(["channels"])  # of no meaning here

    library.on_control(act)
    await supervisor.send_control(library)
    assert seen == [1]


async def test_close_cancels_a_running_handler_and_forgets_what_waits(supervisor):
    library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings())
    handler = library.on_control(Handler())
    library.receive_control(supervisor.sign_control().encode())  # before initialize: nothing
    await library.initialize()
    for command in ("first", "second"):
        library.receive_control(supervisor.sign_control(command).encode())
    async with asyncio.timeout(30):
        await handler.entered.wait()
        await library.close()
    library.receive_control(supervisor.sign_control().encode())
    await settled(library)
    assert (handler.commands, handler.at_once) == (["first"], 0)


async def test_a_handler_that_was_replaced_by_a_restart_does_not_act_again(supervisor, library):
    library.on_control(lambda signal: None)
    payload = supervisor.sign_control().encode()
    library.receive_control(payload)
    await settled(library)
    await library.close()
    seen = []
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as again:
        again.on_control(seen.append)
        again.receive_control(payload)
        await settled(again)
        assert again.refused == {"replayed": 1}
    assert not seen


async def test_one_that_cannot_be_written_down_is_not_acted_on(supervisor, tmp_path, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the state directory should be")
    seen = []
    async with ConfigLibrary(
        "stt-worker", surroundings=supervisor.surroundings(TARS_STATE_DIRECTORY=str(blocked))
    ) as library:
        library.on_control(seen.append)
        payload = supervisor.sign_control().encode()
        library.receive_control(payload)
        await settled(library)
        assert not seen
        assert "cannot be written down, so it is not acted on" in caplog.text
        blocked.unlink()
        library.receive_control(payload)  # nothing was acted on: it still counts
        await settled(library)
        assert len(seen) == 1


async def test_without_a_state_directory_none_is_acted_on(supervisor, caplog):
    seen = []
    around = replace(supervisor.surroundings(), state_directory=None)
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        library.on_control(seen.append)
        await supervisor.send_control(library)
    assert not seen
    assert "no control signal is acted on" in caplog.text
    assert "without TARS_STATE_DIRECTORY" in caplog.text


async def test_without_keys_none_counts(supervisor):
    around = Surroundings(state_directory=supervisor.state_directory)
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        await supervisor.send_control(library)
        assert library.refused == {"bad_signature": 1}


async def test_reason_and_command_cannot_forge_a_line_of_the_log(supervisor, library, caplog):
    caplog.set_level(logging.INFO, logger="tars_config")
    library.on_control(lambda signal: None)
    await supervisor.send_control(library, "dance", "x\nCRITICAL forged")
    assert all("\n" not in record.getMessage() for record in caplog.records)


# --- the end of the process ---

START = """
import asyncio, atexit, os, signal, sys, threading, time
from pathlib import Path
from tars_config import ConfigLibrary, _ending, _files

async def run(library, message):
    try:
        await library.initialize()
        library.receive_control(Path(message).read_bytes())
        await asyncio.Event().wait()
    finally:
        print("finally", flush=True)
        await library.close()

library = ConfigLibrary()
atexit.register(print, "atexit", flush=True)
"""
RUN = "asyncio.run(run(library, sys.argv[1]))\n"


def started(supervisor, tmp_path, code, signal=None):
    message = tmp_path / "message.json"
    message.write_bytes((signal or supervisor.sign_control(reason="asked for")).encode())
    return subprocess.run(  # noqa: PLW1510 - the caller looks at the code
        [sys.executable, "-X", "dev", "-W", "error", "-c", START + code, message],
        env=os.environ | supervisor.environment(),
        capture_output=True,
        timeout=30,
        text=True,
    )


async def test_without_a_handler_a_restart_ends_the_process_in_order(supervisor, tmp_path):
    done = started(supervisor, tmp_path, RUN)
    assert (done.returncode, done.stdout) == (75, "finally\natexit\n"), done.stderr
    assert done.stderr == "stt-worker: ending with exit code 75, to be started again\n"


@pytest.mark.parametrize("form", ["def", "async def"])
@pytest.mark.parametrize(("leave", "code"), [("library.end_process()", 75), ("sys.exit(9)", 9)])
async def test_a_handler_may_end_the_process_itself(supervisor, tmp_path, form, leave, code):
    handler = f"@library.on_control\n{form} act(signal):\n    print('saved', flush=True)\n    {leave}\n"
    done = started(supervisor, tmp_path, handler + RUN)
    assert (done.returncode, done.stdout) == (code, "saved\nfinally\natexit\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["thread", "executor", "finally"])
async def test_what_does_not_end_is_ended_hard_with_the_same_code(supervisor, tmp_path, where):
    block = {
        "thread": "threading.Thread(target=time.sleep, args=(3600,)).start()\n",
        "executor": "async def block(): asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)\n"
        "before = library.initialize\n"
        "async def initialize():\n    await block()\n    await before()\n"
        "library.initialize = initialize\n",
        "finally": "library.close = lambda: time.sleep(3600)\n",
    }[where]
    done = started(supervisor, tmp_path, "_ending.GRACE_S = 0.3\n" + block + RUN)
    assert done.returncode == 75, done.stderr
    assert done.stdout.startswith("finally\n")


async def test_outside_the_main_thread_it_is_an_error_that_says_what_to_do(supervisor, library):
    failed = []

    async def call():
        try:
            library.end_process()
        except RuntimeError as error:
            failed.append(str(error))

    thread = threading.Thread(target=lambda: asyncio.run(call()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "in a handler (on_control)" in failed[0]


async def test_a_process_that_ends_already_is_left_to_end(supervisor, tmp_path):
    """The last words take long, and the worker is done meanwhile: its way out is not cut short."""
    code = (
        "async def main():\n"
        "    library._ending._last_words = asyncio.Event().wait\n"
        "    async def slow():\n"
        "        try:\n"
        "            await asyncio.Event().wait()\n"
        "        finally:\n"
        "            for _ in range(100): await asyncio.sleep(0)\n"
        "            print('slow', flush=True)\n"
        "    task = asyncio.create_task(slow())\n"
        "    await library.initialize()\n"
        "    library.end_process()\n"
        "    library.end_process()\n"
        "    await asyncio.sleep(0)\n"
        "    await library.close()\n"
        "asyncio.run(main())\n"
    )
    done = started(supervisor, tmp_path, code)
    assert (done.returncode, done.stdout) == (0, "slow\natexit\n"), done.stderr


async def test_without_a_loop_nothing_ends():
    code = (
        "import threading\nfrom tars_config import ConfigLibrary\nlibrary = ConfigLibrary('stt-worker')\n"
        "try:\n    library.end_process()\nexcept RuntimeError:\n    print(threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"1\n"


@pytest.mark.parametrize(
    ("crash", "stored", "acts_again"),
    [
        # Not even begun to be written: nothing was acted on, and it still counts.
        ("_files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n", False, True),
        # Written down, not acted on.
        (
            "library._controls._act = lambda signal_: os.kill(os.getpid(), signal.SIGKILL)\n",
            True,
            False,
        ),
        # While it is acted on.
        ("library.on_control(lambda _: os.kill(os.getpid(), signal.SIGKILL))\n", True, False),
    ],
    ids=["before it is stored", "between storing and acting", "while acting"],
)
async def test_a_crash_at_any_step_never_makes_it_act_twice(supervisor, tmp_path, crash, stored, acts_again):
    signal = supervisor.sign_control()
    done = started(supervisor, tmp_path, crash + RUN, signal)
    assert done.returncode == -9, done.stderr
    assert (supervisor.state_directory / "control.json").exists() == stored
    seen = []
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as library:
        library.on_control(seen.append)
        library.receive_control(signal.encode())
        await settled(library)
        assert library.refused == ({} if acts_again else {"replayed": 1})
    assert bool(seen) == acts_again
    assert sorted(path.name for path in supervisor.state_directory.iterdir()) == ["control.json"]


async def test_the_package_imports_nothing_before_it_is_used():
    code = "import sys, tars_config; print(sorted(name for name in sys.modules if name.startswith('tars_config')))"
    code += (
        "\nfrom tars_config import control"
        "\nprint({'pydantic', 'aiomqtt', 'asyncio', 'tars_config.library'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, text=True, check=True)
    assert done.stdout == "['tars_config']\nset()\n"
