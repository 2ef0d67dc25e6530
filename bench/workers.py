"""What workers cost the supervisor and its helpers: a hundred that sleep, and one that floods."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench._harness import Bar, Row, Run, Series, interleaved
from bench._natives import Natives
from bench._sides import cpu_seconds, pss
from bench._supervisors import Native

WORKERS: Final = 100
SETTLED: Final = 8.0
"""Seconds after which what follows from a start is over."""
WATCHED: Final = 10.0
FLOODS_APART: Final = 1.5
"""Seconds from one flood to the next. Closer than a second they are one that lasts, and of that ours reads less on purpose."""


def idle(run: Run) -> Iterator[Row]:
    """Memory and wake-ups of the supervisor and its helpers with 100 sleepers, above the same program with none."""
    with contextlib.ExitStack() as stack:
        natives = stack.enter_context(Natives(run.folder))
        names = [f"idle-{number:03}" for number in range(WORKERS)]
        many = stack.enter_context(Native(run.folder / "many", {name: natives.sleeper(name) for name in names}))
        none = stack.enter_context(
            Native(run.folder / "none", {}, more='[services.none]\nkind = "config-only"\nmodel = "router"')
        )
        listed = "\n".join(f'[services.{name}]\nkind = "config-only"\nmodel = "router"' for name in names)
        unrun = stack.enter_context(Native(run.folder / "unrun", {}, more=listed))
        time.sleep(run.count(1) * SETTLED)
        programs = {it: [it.pid, *it.helpers()] for it in (many, none, unrun)}
        wakes, memory, bare = Series("/s"), Series("kB"), Series("kB")
        for _ in range(run.blocks):
            before, began = {it: _switches(pids) for it, pids in programs.items()}, time.monotonic()
            time.sleep(WATCHED / run.blocks)
            seconds = time.monotonic() - began
            rate = {it: (_switches(pids) - before[it]) / seconds for it, pids in programs.items()}
            size = {it: sum(map(pss, pids)) * 2**20 / 1000 for it, pids in programs.items()}
            wakes.blocks.append(rate[many] - rate[none])
            memory.blocks.append((size[many] - size[none]) / WORKERS)
            bare.blocks.append((size[many] - size[unrun]) / WORKERS)
    yield Row("hundred", f"{WORKERS} idle workers: wake-ups above none", wakes, bar=Bar(1))
    yield Row("hundred", "  memory (PSS) each, above none", memory, bar=Bar(60))
    yield Row("hundred", "  memory (PSS) each, above services that are configuration alone", bare)


def _switches(pids: list[int]) -> int:
    """Context switches of all threads: each is the end of a wake-up (proc_pid_status(5))."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                lines = (thread / "status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


def flood(run: Run) -> Iterator[Row]:
    """A worker that prints 100 MB in lines through stdio, and the same into a file with nobody in between."""
    with contextlib.ExitStack() as stack:
        natives = stack.enter_context(Natives(run.folder))
        ours = stack.enter_context(Native(run.folder / "ours", {"flood": natives.sleeper("flood", "flood")}))
        straight = run.folder / "straight"
        with straight.open("ab") as file:
            writer = subprocess.Popen(
                natives.sleeper("straight", "flood"), stdin=subprocess.DEVNULL, stdout=file, start_new_session=True
            )
        stack.callback(writer.wait)
        stack.callback(writer.kill)
        pids = [ours.pid, *ours.helpers()]

        def printed(name: str) -> float:
            pid, began = natives.until(name).pid, time.monotonic_ns()
            os.kill(pid, signal.SIGUSR1)
            return natives.until(name, began).figure / 1e6

        def to_file() -> float:
            taken = printed("straight")
            # What has not come to the disk yet need not, and does not disturb the next one.
            os.truncate(straight, 0)
            return taken

        def to_ours() -> float:
            taken = printed("flood")
            _quiet(pids)
            time.sleep(FLOODS_APART)
            return taken

        before = sum(_status(pid, "VmRSS") for pid in pids)
        for pid in pids:
            # proc_pid_clear_refs(5): the peak begins anew.
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        found = interleaved(run, {"file": ("ms", to_file), "ours": ("ms", to_ours)})
        grown = Series("kB", [(sum(_status(pid, "VmHWM") for pid in pids) - before) * 1.024])
    yield Row("flood", "100 MB from one worker: its time", found["ours"], found["file"], "to a file", bar=Bar(1.5))
    yield Row("flood", f"  supervisor's peak memory above that before, {run.blocks} floods", grown, bar=Bar(2000))


def _status(pid: int, key: str) -> int:
    """A value of `/proc/PID/status`, KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise ValueError(f"no {key}")


def _quiet(pids: list[int], within: float = 10.0) -> None:
    """Wait until these have done what there was to do."""
    deadline, used = time.monotonic() + within, -1.0
    while time.monotonic() < deadline:
        now = sum(map(cpu_seconds, pids))
        if now - used < 0.002:
            return
        used = now
        time.sleep(0.1)
