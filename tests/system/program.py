"""The real program in a folder of its own: started, asked, stopped, killed, looked into."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.support import end_holders, environment_of, free_port, left_holders, wait_until

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("tars-supervisor")
WORKER = ROOT / "demo" / "worker.py"

SIX = {
    "stt-worker": "stt",
    "tts-worker": "tts",
    "router": "router",
    "llm-worker": "llm",
    "memory-worker": "memory",
    "wake-activation": "wake-activation",
}


def demo_manifest(services: Mapping[str, str] = SIX, *, load: float = 0.0) -> str:
    """A manifest that runs the demo worker as these services (name to last level of its health topic)."""
    return "\n".join(
        f"""
[services.{name}]
command = {json.dumps([sys.executable, str(WORKER), "--load-seconds", str(load), "--health-topic", f"system/health/{topic}"])}
health_topic = "system/health/{topic}"
"""
        for name, topic in services.items()
    )


def config_only_manifest(count: int, model: str = "router") -> str:
    """A manifest of services without workers: what is measured is the way of a setting, not of a process."""
    return "\n".join(
        f'[services.service-{number:03}]\nkind = "config-only"\nmodel = "{model}"' for number in range(count)
    )


@dataclass(frozen=True)
class Address:
    """The broker as `run` tells it, with the read-only login where it is the embedded one."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None


class Program:
    """One installation: a folder with manifest, keys and data, and at most one running supervisor in it."""

    def __init__(self, folder: Path, manifest: str, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        (folder / "services.toml").write_text(manifest)
        self._run = secrets.token_hex(4)
        # The kernel chooses ports; nothing of the developer's own environment gets in.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "CONFIG_API_PORT": "0",
            "MQTT_URL": "embedded://127.0.0.1:0",
            "RUNTIME_DIRECTORY": str(folder / "runtime"),
            **environment,
        }
        self.program = PROGRAM
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._cut = False
        """Whether the last one that ended was killed."""

    # -- life

    def start(self, timeout: float = 60.0) -> "Program":
        """Start it and wait for its summary."""
        self.launch()
        deadline = time.monotonic() + timeout
        while "ctrl-C ends it" not in self.stdout:
            if self.process is None or self.process.poll() is not None:
                pytest.fail(f"the program ended with {self.process and self.process.returncode}:\n{self.stderr}")
            if time.monotonic() > deadline:
                pytest.fail(f"no summary within {timeout:g} s:\n{self.stderr[-4000:]}")
            time.sleep(0.01)
        return self

    def serve(self) -> "Program":
        """Start it and wait until REST answers, which the summary does only once its workers are well, or after 10 s."""
        if self.environment["CONFIG_API_PORT"] == "0":
            self.environment["CONFIG_API_PORT"] = str(free_port())
        self.launch()
        wait_until(self._answers, timeout=60, what="an answer")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the program ended with {self.process.returncode}:\n{self.stderr}")
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{self.url}/health", timeout=30.0)
            return True
        return False

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it and do not wait."""
        assert self.process is None
        self._starts += 1
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [self.program, "run"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self.process

    def launch_command(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Run another command of the program in this folder, to its end."""
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def stop(self, sig: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Ask it to end; its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.wait(timeout)

    def wait(self, timeout: float = 60.0) -> int:
        assert self.process is not None
        code = self.process.wait(timeout)
        self.process, self._cut = None, False
        return code

    def kill(self) -> None:
        """Pull the cable."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)
        self.process, self._cut = None, True

    def close(self) -> None:
        """End whatever of it is still there, by their marks. Fails where a supervisor that ended in order has left a holder."""
        runtime = Path(self.environment["RUNTIME_DIRECTORY"])
        if self.process is not None:
            self.kill()
        if self._cut:
            # First who would keep the others' last words for a supervisor that does not come.
            end_holders(runtime)
        left = left_holders(runtime)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(30)
        if left:
            pytest.fail("left behind: " + "; ".join(left), pytrace=False)

    # -- what it says

    @property
    def _out(self) -> Path:
        return self.folder / f"stdout.{self._run}.{self._starts}"

    @property
    def _err(self) -> Path:
        return self.folder / f"stderr.{self._run}.{self._starts}"

    @property
    def stdout(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def stderr(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    def log(self) -> list[dict[str, Any]]:
        """The events logged since the last start; the last line may be half written."""
        events = []
        for line in self.stderr.splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    def lines_of(self, service: str) -> list[str]:
        """What this worker has printed since the last start."""
        return [
            event["event"] for event in self.log() if event.get("service") == service and event["logger"] == "worker"
        ]

    def until(self, what: str, timeout: float = 30.0, *, service: str | None = None) -> str:
        """Wait for a log line (of this worker) that holds `what`."""
        deadline = time.monotonic() + timeout
        while True:
            lines = self.lines_of(service) if service else [str(event.get("event")) for event in self.log()]
            for line in lines:
                if what in line:
                    return line
            if time.monotonic() > deadline:
                pytest.fail(f"{what!r} was not logged within {timeout:g} s; the end of the log:\n{self.stderr[-4000:]}")
            time.sleep(0.01)

    # -- how to reach it

    @property
    def url(self) -> str:
        if (port := self.environment["CONFIG_API_PORT"]) != "0":
            return f"http://127.0.0.1:{port}"
        found = re.search(r"REST +(\S+)", self.stdout)
        assert found is not None, self.stdout
        return found[1]

    @property
    def broker(self) -> Address:
        found = re.search(r"broker +(\S+)", self.stdout)
        assert found is not None, self.stdout
        url = urlsplit(found[1])
        login = re.search(r"-u (\S+) -P (\S+)", self.stdout)
        return Address(url.hostname or "", url.port or 1883, *(login.groups() if login else ()))

    @property
    def token(self) -> str:
        return self.environment.get("CONFIG_API_TOKEN") or self.variable("CONFIG_API_TOKEN")

    def variable(self, name: str) -> str:
        """A one-line variable of the `.env` that the first run has made."""
        for line in (self.folder / ".env").read_text().splitlines():
            key, _, value = line.partition("=")
            if key == name:
                return value.strip("\"'")
        raise AssertionError(f"no {name} in .env")

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """An HTTP client with the admin token."""
        with httpx.Client(base_url=self.url, headers={"X-API-Token": self.token}, timeout=30.0) as client:
            yield client

    def is_well(self) -> bool:
        return bool(httpx.get(f"{self.url}/health", timeout=30.0).json()["ok"])

    def get(self, service: str) -> dict[str, Any]:
        with self.client() as client:
            answer = client.get(f"/api/config/services/{service}")
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    def put(self, service: str, **settings: Any) -> httpx.Response:
        """Read, change these settings, and PUT the whole object back, as a client does."""
        with self.client() as client:
            seen = client.get(f"/api/config/services/{service}").json()
            body = {"service": service, "config": {**seen["config"], **settings}, "version": seen["version"]}
            return client.put(f"/api/config/services/{service}", json=body)

    # -- what is left of it

    def processes(self) -> list[psutil.Process]:
        """Every process, besides the supervisor itself, that was started by this installation."""
        return [process for process, _ in self.marked()]

    def workers(self) -> dict[str, int]:
        """Service (or `embedded-broker`) to pid of its process; fails where one is doubled."""
        found: dict[str, int] = {}
        for process, name in self.marked():
            assert name not in found, f"{name} runs twice: {found[name]} and {process.pid}"
            found[name] = process.pid
        return found

    def marked(self) -> list[tuple[psutil.Process, str]]:
        """The same, each with its service."""
        mark = str(self.folder)
        found = []
        for process in psutil.process_iter():
            # Any of them may end while it is looked at.
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() == psutil.STATUS_ZOMBIE or (self.process and process.pid == self.process.pid):
                    continue
                environment = environment_of(process.pid)
                if "TARS_INSTANCE" in environment and (
                    mark in environment.get("TARS_CONFIG_SNAPSHOT", "") or mark in " ".join(process.cmdline())
                ):
                    found.append((process, environment.get("TARS_SERVICE", "embedded-broker")))
        return found
