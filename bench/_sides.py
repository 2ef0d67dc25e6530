"""What is measured: our program, etcd, a bare Litestar app, each started in a folder of its own on a free port."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from bench._clients import TOKEN_HEADER, Request, get
from tests.support import SYSTEM_FOLDERS, Mosquitto, end_process, free_port
from tests.system.program import PROGRAM, ROOT, SIX, Program, config_only_manifest, demo_manifest

SERVICE = "tts-worker"
HEAD = "/api/config/services"
FSYNC_MS = 5

__all__ = ["SERVICE", "Bare", "Etcd", "Ours", "broker", "cpu_seconds", "manifest", "pss"]


class Skipped(Exception):
    """A figure cannot be had on this machine; the text says why."""


def manifest(*, workers: bool = False, more: int = 0) -> str:
    """The six services, with the demo worker or as configuration alone, and `more` like tts-worker, configuration alone."""
    six = demo_manifest() if workers else "\n".join(f'[services.{name}]\nkind = "config-only"' for name in SIX)
    return f"{six}\n{config_only_manifest(more, SERVICE)}"


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Mosquitto]:
    """A Mosquitto that lets everybody in."""
    it = Mosquitto(folder)
    it.start()
    try:
        yield it
    finally:
        it.stop()


class Ours(Program):
    """The supervisor. Knows the version of each service it has written, so that requests can be made beforehand."""

    def __init__(
        self,
        folder: Path,
        services: str,
        *,
        one_by_one: bool = False,
        preload: Mapping[str, str] | None = None,
        **environment: str,
    ) -> None:
        super().__init__(folder, services, **environment, **(preload or {}))
        self._command = [sys.executable, "-m", "bench._one_by_one"] if one_by_one else [str(PROGRAM), "run"]
        self._documents: dict[str, dict[str, Any]] = {}
        self.port = 0

    def __enter__(self) -> Self:
        self.start(timeout=120)
        self.port = int(self.url.rpartition(":")[2])
        self._documents.clear()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.process is not None:
                self.stop()
        finally:
            self.close()

    def launch(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self.process

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def gets(self, service: str = SERVICE, *, fields: bool = False) -> Request:
        query = "" if fields else "?include_fields=false"
        return Request("GET", f"{HEAD}/{service}{query}", headers={TOKEN_HEADER: self.token})

    def document(self, service: str = SERVICE) -> dict[str, Any]:
        """The service as it stands: `{service, config, version, ...}`."""
        if service not in self._documents:
            self._documents[service] = json.loads(get(self.port, self.gets(service)))
        return self._documents[service]

    def puts(self, count: int, service: str = SERVICE) -> list[Request]:
        """Changes of two settings that need no restart, each to another value than before. They must all be sent."""
        seen = self.document(service)
        made = []
        for _ in range(count):
            turn = seen["version"] % 2
            seen["config"] |= {"volume_percent": 50 + turn, "tts_aggregate_debounce_ms": 100 + turn}
            body = json.dumps({"service": service, "config": seen["config"], "version": seen["version"]}).encode()
            seen["version"] += 1
            made.append(Request("PUT", f"{HEAD}/{service}", body, {TOKEN_HEADER: self.token}, seen["version"]))
        return made


def slow_fsync(folder: Path) -> dict[str, str]:
    """Environment in which an fsync takes 5 ms. `Skipped` where it cannot be built."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("no C compiler (cc) for the slow fsync")
    library = folder / "fsync.so"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", library, ROOT / "bench" / "fsync.c", "-ldl"],
        capture_output=True,
        check=False,
    )
    if built.returncode:
        raise Skipped(f"fsync.c does not compile: {built.stderr.decode(errors='replace')[:200]}")
    return {"LD_PRELOAD": str(library), "FSYNC_MS": str(FSYNC_MS)}


class Etcd:
    """A single etcd, over its HTTP gateway v3."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("etcd", path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS)))
        if program is None:
            raise Skipped("etcd is not installed (Debian: apt install etcd-server)")
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._versions: dict[str, int] = {}
        self.port = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.port, peers = free_port(), free_port()
        mine, theirs = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peers}"
        options = {
            "name": "bench",
            "data-dir": self._folder / "data",
            "log-level": "error",
            "listen-client-urls": mine,
            "advertise-client-urls": mine,
            "listen-peer-urls": theirs,
            "initial-advertise-peer-urls": theirs,
            "initial-cluster": f"bench={theirs}",
        }
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        first_200(self.port, Request("GET", "/health"), self._process)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end_process(self._process)

    def puts(self, count: int, value: Mapping[str, Any], key: str = SERVICE) -> list[Request]:
        """The same settings, alternating as ours do. They must all be sent, and by one writer at a time."""
        made = []
        for _ in range(count):
            version = self._versions[key] = self._versions.get(key, 0) + 1
            turn = version % 2
            text = json.dumps({**value, "volume_percent": 50 + turn, "tts_aggregate_debounce_ms": 100 + turn})
            body = json.dumps({"key": _base64(key), "value": _base64(text)}).encode()
            made.append(Request("POST", "/v3/kv/put", body, expect=version))
        return made

    def gets(self, key: str = SERVICE) -> Request:
        return Request("POST", "/v3/kv/range", json.dumps({"key": _base64(key)}).encode())


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Bare:
    """The bare Litestar app."""

    def __init__(self, body: Path) -> None:
        self._body = body
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def launch(self) -> "subprocess.Popen[bytes]":
        self.port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench._bare", str(self.port), str(self._body)], cwd=ROOT, start_new_session=True
        )
        return self._process

    def __enter__(self) -> Self:
        process = self.launch()
        first_200(self.port, self.gets(), process)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end_process(self._process)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def gets(self) -> Request:
        return Request("GET", f"{HEAD}/{SERVICE}")


def first_200(port: int, request: Request, process: "subprocess.Popen[bytes]", timeout: float = 60.0) -> None:
    """Ask until the answer is 200. A socket that listens before it is served holds the question so long."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            get(port, request)
            return
        time.sleep(0.0005)
    raise RuntimeError(f"no 200 from port {port}; exit status {process.returncode}")


# -- what a process takes


def pss(pid: int) -> float:
    """Proportional set size, MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no Pss")


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads that live, to the nanosecond."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9
