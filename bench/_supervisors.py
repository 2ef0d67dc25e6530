"""Ours and the other supervisors, each with its default settings, keeping sleepers running in a folder of its own.

`./taskw bench:peers` installs the others; one that is not there is `Skipped`.
"""

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from actors.mqtt import packets
from bench._clients import TOKEN_HEADER, Mqtt, Request
from bench._natives import children_of, command_line, end, processes_of, processes_with
from bench._sides import Ours, Skipped
from schemas.states import Lifecycle
from tests.support import Mosquitto, end_process
from tests.system.program import ROOT

TOOLS: Final = ROOT / ".tools"
PYTHON_PROGRAMS: Final = TOOLS / "peers" / "bin"
NODE_PROGRAMS: Final = TOOLS / "pm2" / "node_modules" / ".bin"

READY_WITHIN: Final = 30.0
"""Seconds within which all of our workers must be ready."""

Workers = Mapping[str, Sequence[str]]
"""Commands by their names."""


class Native(Ours):
    """Ours, with native workers and no probes, and a Mosquitto of its own that lets everybody in."""

    def __init__(
        self,
        folder: Path,
        workers: Workers,
        *,
        concurrent_starts: int | None = None,
        keys: Mapping[str, Any] | None = None,
        more: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`keys`: further ones of each worker in the manifest. `more`: what else it says."""
        lines = [] if concurrent_starts is None else ["[supervisor]", f"concurrent_starts = {concurrent_starts}"]
        for name, command in workers.items():
            table = {
                "command": list(command),
                "model": "router",
                "health_topic": f"system/health/{name}",
                **(keys or {}),
            }
            lines += [f"[services.{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
            lines += ['readiness = { kind = "none" }']
        # Beside its folder: it is none of its helpers.
        self._mqtt = Mosquitto(folder.with_name(f"{folder.name}-mosquitto"))
        super().__init__(folder, "\n".join((*lines, more)), MQTT_URL=self._mqtt.url)
        self.environment |= environment or {}
        self.commands = workers

    def __enter__(self) -> Self:
        """Start it; all workers are ready."""
        self._mqtt.start()
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        try:
            if self.process is not None:
                self.stop()
        finally:
            # Whom it has left behind: all at once, since to wait for each takes as long as PID 1 takes to collect it.
            for pid in processes_with(self.commands.values()):
                end(pid, grace=0)
            super().__exit__(*exception)
            self._mqtt.stop()

    def launch(self) -> "subprocess.Popen[bytes]":
        process = super().launch()
        self._wait_until_ready()
        return process

    def begin(self) -> "subprocess.Popen[bytes]":
        """Start it, and wait for nothing."""
        self._mqtt.start()
        return super().launch()

    def restarts(self, service: str) -> Request:
        return Request("POST", f"/api/services/{service}/restart", headers={TOKEN_HEADER: self.token})

    def helpers(self) -> list[int]:
        """Processes of its own besides the supervisor: they name its folder, and are no workers."""
        programs = {command[0] for command in self.commands.values()}
        return [
            pid
            for pid in processes_of(self.folder)
            if pid != self.pid and not programs.intersection(command_line(pid)[:1])
        ]

    def _wait_until_ready(self) -> None:
        """Wait until `system/state/<service>` says so of every worker."""
        missing = set(self.commands)
        client = Mqtt(self._mqtt.port)
        client.socket.sendall(packets.subscribe(1, [("system/state/+", 0)]))
        deadline = time.monotonic() + READY_WITHIN
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready within {READY_WITHIN:g} s: {', '.join(sorted(missing)[:5])}")
            if select.select([client.socket], [], [], 0.1)[0]:
                client.receive()
            for kind, body in client.packets():
                if kind >> 4 == packets.Kind.PUBLISH:
                    told = packets.parse_publish(kind & 0xF, body)
                    if told.payload and json.loads(told.payload)["state"] == Lifecycle.READY:
                        missing.discard(told.topic.rpartition("/")[2])
        client.close()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value)


class Peer:
    """One of them, with its workers. `fast`: it restarts a worker at once, so that one block can have many samples."""

    name: ClassVar[str]
    program: ClassVar[str]
    found_in: ClassVar[Path | None] = None
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    fast: ClassVar[bool] = False

    def __init__(self, folder: Path, workers: Workers) -> None:
        where = None if self.found_in is None else str(self.found_in)
        program = shutil.which(self.program, path=where)
        if program is None:
            raise Skipped(f"{self.program} is not installed: ./taskw bench:peers")
        self._program = program
        self.folder = folder
        self.commands = workers
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir()
        command = self.configured()
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        theirs = []
        if self._process.poll() is None:
            # runsv does not name the run's folder, so it must be known before runsvdir is gone.
            theirs = children_of(self._process.pid)
            self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        end_process(self._process)
        for pid in theirs:
            end(pid, grace=2)

    def configured(self) -> list[str]:
        """Write its configuration; the command that runs it in the foreground."""
        raise NotImplementedError


class _Folders(Peer):
    """A folder for each worker with a program `run`: a shell script that becomes the worker, as their manuals have it."""

    def configured(self) -> list[str]:
        services = self.folder / "services"
        for name, command in self.commands.items():
            run = services / name / "run"
            run.parent.mkdir(parents=True)
            run.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
            run.chmod(0o755)
        return [self._program, str(services)]


class Runit(_Folders):
    name, program, fast = "runit", "runsvdir", True
    # runsvdir(8): at HUP it ends what it runs before it ends itself.
    stop_signal = signal.SIGHUP


class S6(_Folders):
    name, program = "s6", "s6-svscan"


class Supervisord(Peer):
    name, program, found_in = "supervisord", "supervisord", PYTHON_PROGRAMS

    def configured(self) -> list[str]:
        lines = ["[supervisord]", "nodaemon=true", "user=root" if os.geteuid() == 0 else ""]
        lines += [f"{key}={self.folder / key}" for key in ("logfile", "pidfile")]
        lines.append(f"childlogdir={self.folder}")
        for name, command in self.commands.items():
            lines += [f"[program:{name}]", f"command={shlex.join(command)}"]
        return [self._program, "-c", _written(self.folder / "supervisord.conf", lines)]


class Circus(Peer):
    name, program, found_in = "circus", "circusd", PYTHON_PROGRAMS

    def configured(self) -> list[str]:
        # Its own ports are fixed ones, which somebody else may have.
        lines = ["[circus]", *(f"{key} = ipc://{self.folder / key}" for key in ("endpoint", "pubsub_endpoint"))]
        for name, command in self.commands.items():
            lines += [f"[watcher:{name}]", f"cmd = {shlex.join(command)}"]
        return [self._program, _written(self.folder / "circus.ini", lines)]


class Pm2(Peer):
    """It has a daemon, which the command starts, and ends."""

    name, program, found_in, fast = "pm2", "pm2", NODE_PROGRAMS, True

    def __enter__(self) -> Self:
        self.folder.mkdir()
        apps = [
            {"name": name, "script": command[0], "args": list(command[1:]), "interpreter": "none"}
            for name, command in self.commands.items()
        ]
        file = self.folder / "apps.json"
        file.write_text(json.dumps({"apps": apps}))
        try:
            self._pm2("start", str(file))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._pm2("kill")

    def _pm2(self, *words: str) -> None:
        home = {"PM2_HOME": str(self.folder), "PM2_DISCRETE_MODE": "true"}
        done = subprocess.run(
            [self._program, *words],
            env={**os.environ, **home},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pm2 {words[0]}: {done.stderr.decode(errors='replace')[-500:]}")


def _written(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join((*lines, "")))
    return str(path)


PEERS: Final[tuple[type[Peer], ...]] = (Runit, S6, Supervisord, Circus, Pm2)
