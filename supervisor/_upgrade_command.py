"""`tars-supervisor upgrade`: asks the supervisor that runs to hand over to the version on disk, and waits for that."""

import json
import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from supervisor.folders import owner, plan
from supervisor.settings import SettingsRefused, load_settings
from supervisor.upgrade import REPORT

PAUSE = 0.05
"""Seconds between two looks at how it goes."""


class Refused(Exception):
    """There is nothing that could be upgraded. `lines` say why."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def upgrade(environ: Mapping[str, str], cwd: Path, timeout: float) -> tuple[bool, str]:
    """Ask for it, and wait up to `timeout` seconds: whether the new version serves, and a sentence.

    Raises Refused.
    """
    try:
        settings = load_settings(environ, cwd)
    except SettingsRefused as refused:
        raise Refused(*refused.lines) from None
    folders = plan(settings)
    with ExitStack() as stack:
        try:
            pid = owner(folders.data)
        except OSError as error:
            raise Refused(f"{folders.data} cannot be used: {error.strerror}") from error
        nobody = f"no supervisor runs with the data folder {folders.data}; start one with: tars-supervisor run"
        if pid is None:
            raise Refused(nobody)
        try:
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            # Of a number that was given anew meanwhile nobody would want to know.
            if owner(folders.data) != pid:
                raise Refused(nobody)
            if not _handles(pid, signal.SIGUSR2):
                raise Refused(
                    f"the supervisor (pid {pid}) cannot be upgraded at this moment, or is of an older version"
                )
            before = _report(folders.runtime).get("number")
            signal.pidfd_send_signal(pidfd, signal.SIGUSR2)
        except ProcessLookupError:
            raise Refused(nobody) from None
        except PermissionError:
            raise Refused(f"the supervisor (pid {pid}) belongs to another user; run this as that one") from None
        return _wait(folders.runtime, pidfd, pid, before, timeout)


def _wait(runtime: Path, pidfd: int, pid: int, before: object, timeout: float) -> tuple[bool, str]:
    deadline = time.monotonic() + timeout
    under_way = False
    ended_at: float | None = None
    while True:
        report = _report(runtime)
        state, new = report.get("state"), report.get("number") != before
        under_way = under_way or state == "under-way"
        if (new or under_way) and state == "done":
            return True, f"version {report.get('version')} serves now, pid {report.get('pid')}; it was pid {pid}"
        if (new or under_way) and state == "failed":
            return False, f"the upgrade failed: {report.get('reason')}; the version before serves on, pid {pid}"
        if ended_at is not None:
            return False, f"the supervisor (pid {pid}) ended in the middle of the upgrade"
        now = time.monotonic()
        if select.select([pidfd], [], [], PAUSE)[0]:
            # One more look: it tells before it ends.
            ended_at = now
        elif now > deadline:
            return False, f"the upgrade was not over within {timeout:g} s; it may still come true"


def _report(runtime: Path) -> dict[str, Any]:
    try:
        found = json.loads((runtime / REPORT).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether it has a handler for the signal (proc_pid_status(5), SigCgt), which would end it else."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)
