"""Outputs on a temporary folder, and workers that are real processes."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.output import Output, Outputs

INSTANCE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def outputs(tmp_path: Path) -> AsyncIterator[Outputs]:
    shared = Outputs(tmp_path / "logs")
    yield shared
    await shared.close()


@dataclass
class Pipes:
    """The writing ends of a worker that is this test, where it has to be known when what was read."""

    stdout: int
    stderr: int

    def write(self, data: bytes, *, to_stderr: bool = False) -> None:
        os.write(self.stderr if to_stderr else self.stdout, data)


@pytest.fixture
def pipes() -> Iterator[Callable[..., Pipes]]:
    """Attach pipes to an output: `pipes(output, instance, **options)`."""
    with contextlib.ExitStack() as stack:

        def attach(output: Output, instance: str = INSTANCE, **options: Any) -> Pipes:
            stdout, stdout_end = os.pipe()
            stderr, stderr_end = os.pipe()
            stack.callback(os.close, stdout_end)
            stack.callback(os.close, stderr_end)
            output.attach(instance, 7, stdout, stderr, **options)
            return Pipes(stdout_end, stderr_end)

        yield attach


@pytest.fixture
def worker() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Run Python source as an instance of a service: `worker(output, source, instance)`."""
    started: list[subprocess.Popen[bytes]] = []

    def run(output: Output, source: str, instance: str = INSTANCE) -> "subprocess.Popen[bytes]":
        stdout, stdout_end = os.pipe()
        stderr, stderr_end = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source],
            stdin=subprocess.DEVNULL,
            stdout=stdout_end,
            stderr=stderr_end,
            start_new_session=True,
        )
        started.append(process)
        os.close(stdout_end)
        os.close(stderr_end)
        output.attach(instance, process.pid, stdout, stderr)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait(30)


def entries(output: Output, lines: int = 10_000) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in output.tail(lines)]


def messages(output: Output) -> list[str]:
    return [entry["message"] for entry in entries(output)]
