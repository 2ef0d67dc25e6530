"""A new version takes over while it all runs: nobody is refused, no worker is touched, and what fails changes nothing."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from supervisor.folders import owner
from tests.support import wait_until
from tests.system.program import Program, demo_manifest
from tests.system.test_adoption import COUNTS, RUNS
from tests.system.test_worker_life import worker

TWO = {"router": "router", "stt-worker": "stt"}

SOUND = "import sys\nfrom supervisor.main import main\nsys.exit(main())\n"

SETTING_OUT = """
import os, signal, sys
from supervisor import succession, run, wiring
from actors import holding

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(owner, name):
    before = getattr(owner, name)
    async def then(*args, **options):
        await before(*args, **options)
        die()
    setattr(owner, name, then)
"""

DEATHS = {
    "at once": "import sys\nsys.exit('this release is broken')\n",
    "while it imports": "import no_such_module_at_all\n",
    "before it is ready": SETTING_OUT + "succession.Succession.take_over = die\n" + SOUND,
    "between ready and go": SETTING_OUT + "receive = succession.receive\nsuccession.receive = die\n" + SOUND,
    "with the locks": SETTING_OUT + "run.run_supervisor = die\n" + SOUND,
    "with the holder": SETTING_OUT + "after(holding.Holding, 'open')\n" + SOUND,
    "with the store": SETTING_OUT + "after(wiring.System, '_start_messaging')\n" + SOUND,
    "with the workers": SETTING_OUT + "after(wiring.System, '_start_services')\n" + SOUND,
    "before it says that it serves": SETTING_OUT + "succession.Succession.serving = die\n" + SOUND,
}
"""Releases that end at some step of taking over, and how."""

REFUSES = (
    SETTING_OUT
    + (
        "from supervisor.boot import StartRefused\n"
        "async def refuse(*_):\n"
        "    raise StartRefused('the store is of a later release')\n"
        "wiring.System._load = refuse\n"
    )
    + SOUND
)

HANGS = SETTING_OUT + ("import time\ndef hang(*_):\n    open('hangs', 'w').close()\n    time.sleep(600)\n")


WAITS = SETTING_OUT + (
    "import time\n"
    "def first(owner, name):\n"
    "    then = getattr(owner, name)\n"
    "    def wait(*args, **options):\n"
    "        open('waits', 'w').write(str(os.getpid()))\n"
    "        while not os.path.exists('go'):\n"
    "            time.sleep(0.01)\n"
    "        return then(*args, **options)\n"
    "    setattr(owner, name, wait)\n"
)


class Installed:
    """A running installation whose program is a file of its own, which is replaced as by a new release."""

    def __init__(self, it: Program) -> None:
        self.it = it
        self._path = it.folder / "tars-supervisor"
        self.release(SOUND)
        it.program = self._path

    def release(self, code: str) -> None:
        new = self._path.with_name("new")
        new.write_text(f"#!{sys.executable}\n{code}")
        new.chmod(0o755)
        new.replace(self._path)

    def start(self) -> Self:
        self.it.start()
        return self

    @property
    def serving(self) -> int:
        """The pid of who has the locks, or 0."""
        return owner(self.it.folder / "data") or 0

    def upgrade(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        self.it.program, before = Path(sys.executable).with_name("tars-supervisor"), self.it.program
        try:
            return self.it.launch_command("upgrade", *arguments)
        finally:
            self.it.program = before

    def reap(self, status: int = 0) -> None:
        """Wait for the end of the process that was started first."""
        assert self.it.wait() == status

    def stop(self) -> None:
        """End who serves now, in order."""
        pid = self.serving
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not psutil.pid_exists(pid), timeout=30, what="its end")
        assert self.it.processes() == []


@pytest.fixture
def installed(program: Callable[..., Program]) -> Iterator[Callable[..., Installed]]:
    made: list[Installed] = []

    def make(manifest: str | None = None) -> Installed:
        one = Installed(program(manifest or demo_manifest(TWO)))
        made.append(one)
        return one

    yield make
    for one in made:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(one.it.folder / "tars-supervisor") in process.cmdline():
                    process.kill()


class Load:
    """Threads that ask, each time on a new connection, until the end of the block."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._where = (where.hostname or "", where.port or 0)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        self.answers: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(self._where, timeout=30) as client:
                    client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    self.answers.append(client.recv(1 << 16)[:12].decode())
            except OSError as error:
                self.answers.append(repr(error))
            self._over.wait(0.003)


def test_nobody_notices(installed: Callable[..., Installed]) -> None:
    """Upgrades under load: the same workers, no connection without its answer, and the next version is whole."""
    one = installed().start()
    workers, url, first = one.it.workers(), one.it.url, one.serving
    with Load(url) as load:
        for _ in range(3):
            before = one.serving
            done = one.upgrade()
            assert done.returncode == 0, done.stderr
            assert b"serves now" in done.stdout
            assert one.serving not in {before, 0}
    one.reap()
    assert set(load.answers) == {"HTTP/1.1 200"}
    assert one.it.workers() == workers
    assert one.serving != first
    assert one.it.put("router", router_wake_ack_text="Ja?").status_code == 200
    # None until the retained report has come to the new supervisor.
    wait_until(lambda: (_state(one, "router")["reported"] or {}).get("version") == 2, what="the report")
    assert {state["restarts"] for state in (_state(one, name) for name in TWO)} == {0}
    one.stop()


def _state(one: Installed, service: str) -> dict[str, Any]:
    with one.it.client() as client:
        return dict(client.get(f"/api/services/{service}").json())


def test_a_version_that_dies_leaves_the_old_one(installed: Callable[..., Installed]) -> None:
    """At each step, one after the other: what was taken back is sound enough for the next."""
    one = installed().start()
    workers, serving = one.it.workers(), one.serving
    for death, code in DEATHS.items():
        one.release(code)
        with Load(one.it.url) as load:
            done = one.upgrade()
        assert done.returncode == 1, death
        assert b"the upgrade failed: it " in done.stderr, death
        assert set(load.answers) == {"HTTP/1.1 200"}, death
        assert one.serving == serving, death
        assert one.it.workers() == workers, death
    one.it.until("the upgrade failed")
    with one.it.client() as client:
        health = client.get("/api/config/health").json()
    assert "the upgrade failed" in str(health)
    one.release(SOUND)
    assert one.upgrade().returncode == 0
    one.reap()
    assert one.it.workers() == workers
    one.stop()


def test_the_reason_is_told(installed: Callable[..., Installed]) -> None:
    one = installed().start()
    workers = one.it.workers()
    for code, reason in (
        (DEATHS["while it imports"], "it exited with 1: ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        (REFUSES, "the store is of a later release"),
    ):
        one.release(code)
        done = one.upgrade()
        assert done.returncode == 1
        assert reason in done.stderr.decode()
        one.it.until(reason)
    # What a person has to mend is told as a start would.
    manifest = one.it.folder / "services.toml"
    sound = manifest.read_text()
    manifest.write_text(sound + "\n[services.router]\n")
    one.release(SOUND)
    done = one.upgrade()
    assert done.returncode == 1
    assert "services.toml" in done.stderr.decode()
    manifest.write_text(sound)
    assert one.it.workers() == workers
    assert one.it.stop() == 0


def test_another_folder_is_no_upgrade(installed: Callable[..., Installed]) -> None:
    one = installed().start()
    other = one.it.folder / "elsewhere"
    one.release(f"import os\nos.environ['RUNTIME_DIRECTORY'] = {str(other)!r}\n{SOUND}")
    done = one.upgrade()
    assert done.returncode == 1
    assert "its runtime folder would be" in done.stderr.decode()
    assert one.it.stop() == 0


def test_twice_at_once(installed: Callable[..., Installed]) -> None:
    one = installed().start()
    workers, before = one.it.workers(), one.serving
    with ThreadPoolExecutor(2) as pool:
        both = [done.result() for done in [pool.submit(one.upgrade) for _ in range(2)]]
    assert [done.returncode for done in both] == [0, 0]
    one.reap()
    assert one.serving != before
    assert one.it.workers() == workers
    one.stop()


@pytest.mark.parametrize("where", ["preparing", "taking over"])
def test_an_end_during_an_upgrade(installed: Callable[..., Installed], where: str) -> None:
    one = installed().start()
    hooked = "succession.Succession.take_over = hang\n" if where == "preparing" else "run.run_supervisor = hang\n"
    one.release(HANGS + hooked + SOUND)
    os.kill(one.serving, signal.SIGUSR2)
    wait_until((one.it.folder / "hangs").exists, timeout=30, what="the new version")
    assert one.it.process is not None
    one.it.process.send_signal(signal.SIGTERM)
    if where == "taking over":
        # It has the locks; only its end gives them back.
        os.kill(one.serving, signal.SIGKILL)
    one.reap()
    assert one.serving == 0
    assert one.it.processes() == []


@pytest.mark.parametrize("where", ["preparing", "taking over"])
def test_the_old_one_is_killed_during_an_upgrade(installed: Callable[..., Installed], where: str) -> None:
    """Nobody serves then, as after any such death; the new one has let go of all, and the next start adopts."""
    one = installed().start()
    workers = one.it.workers()
    hooked = "first(succession.Succession, 'take_over')\n" if where == "preparing" else "first(run, '_listener')\n"
    one.release(WAITS + hooked + SOUND)
    os.kill(one.serving, signal.SIGUSR2)
    marker = one.it.folder / "waits"
    wait_until(lambda: marker.exists() and marker.read_text(), timeout=30, what="the new version")
    pid = int(marker.read_text())
    one.it.kill()
    (one.it.folder / "go").touch()
    wait_until(lambda: not psutil.pid_exists(pid), timeout=30, what="the end of the new one")
    assert one.serving == 0
    assert one.it.workers() == workers
    one.release(SOUND)
    one.start()
    assert one.it.workers() == workers
    assert one.it.stop() == 0


def test_an_end_that_comes_too_late_for_the_old_one_is_the_new_ones(installed: Callable[..., Installed]) -> None:
    one = installed().start()
    one.release(WAITS + "first(run, '_listener')\n" + SOUND)
    os.kill(one.serving, signal.SIGUSR2)
    wait_until((one.it.folder / "waits").exists, timeout=30, what="the new version")
    assert one.it.process is not None
    one.it.process.send_signal(signal.SIGTERM)
    (one.it.folder / "go").touch()
    # It ends when all has ended: for a service manager that is the end of the service.
    one.reap()
    assert one.serving == 0
    assert one.it.processes() == []


def test_output_goes_on_whole(installed: Callable[..., Installed]) -> None:
    """No line is lost, doubled or cut by an upgrade, nor by one that was taken back."""
    one = installed(worker("router", COUNTS, **RUNS)).start()
    for code, status in ((SOUND, 0), (REFUSES, 1), (SOUND, 0)):
        seen = len(one.it.lines_of("router"))
        wait_until(lambda seen=seen: len(one.it.lines_of("router")) > seen + 20, what="more lines")  # type: ignore[misc]
        one.release(code)
        assert one.upgrade().returncode == status
    seen = len(one.it.lines_of("router"))
    wait_until(lambda: len(one.it.lines_of("router")) > seen + 20, what="more lines")
    lines = one.it.lines_of("router")
    if lines != [f"line {number}" for number in range(1, len(lines) + 1)]:
        strange = [(line, f"line {number}") for number, line in enumerate(lines, 1) if line != f"line {number}"]
        pytest.fail(str(strange[:5]))
    one.reap()
    one.stop()


def test_systemd_is_told_which_process_is_the_service(installed: Callable[..., Installed]) -> None:
    one = installed()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = one.it.folder / "notify"
        manager.bind(str(path))
        manager.settimeout(30)
        one.it.environment["NOTIFY_SOCKET"] = str(path)
        one.start()
        first = one.serving
        assert manager.recv(4096).decode().splitlines() == ["READY=1", f"STATUS=serves, pid {first}"]
        assert one.upgrade().returncode == 0
        one.reap()
        assert manager.recv(4096).decode().splitlines() == [
            f"MAINPID={one.serving}",
            "READY=1",
            f"STATUS=serves, pid {one.serving}",
        ]
        one.stop()


def test_nothing_to_upgrade(installed: Callable[..., Installed]) -> None:
    one = installed()
    done = one.upgrade()
    assert done.returncode == 2
    assert "no supervisor runs with the data folder" in done.stderr.decode()


def test_a_request_under_way_is_finished(installed: Callable[..., Installed]) -> None:
    """What was begun is answered by the old one; a stream ends, and is there again at the new one."""
    one = installed().start()
    answers: list[httpx.Response] = []
    with one.it.client() as client, client.stream("GET", "/api/events") as events:
        lines = events.iter_lines()
        next(lines)

        def restart() -> None:
            with one.it.client() as other:
                answers.append(other.post("/api/services/router/restart", json={}))

        asking = threading.Thread(target=restart)
        asking.start()
        assert one.upgrade().returncode == 0
        asking.join(30)
        with contextlib.suppress(httpx.HTTPError):
            for _ in lines:
                pass
    one.reap()
    assert [answer.status_code for answer in answers] in ([200], [202])
    one.stop()
