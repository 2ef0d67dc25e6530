"""Process trees: who belongs to an instance, and ending all of them. Imports the standard library alone.

A worker's descendants may leave its group, its session and its parent. What they cannot shed is their cgroup; where there
is none for us, a resource limit that nothing else uses marks them (`RLIMIT_LOCKS`): it is inherited by every child, and
without CAP_SYS_RESOURCE it can only be lowered. Session and group are looked at as well, and where it does
not matter how long that takes, environment and parent.
"""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

INSTANCE_VARIABLE = "TARS_INSTANCE"
RLIMIT_LOCKS = 10
"""A limit that the kernel has not looked at since Linux 2.4 (getrlimit(2)), and that every child inherits whatever else it
changes: session, parent, environment, user. Its value is the mark of the instance.
"""
PATIENCE = 5.0
"""Seconds that killed processes have to be gone: one in uninterruptible sleep may need longer."""
_TICKS = os.sysconf("SC_CLK_TCK")


def mark_of(instance: str) -> int:
    """Give the value of RLIMIT_LOCKS that marks the processes of an instance (its first 60 bits; always above 2**62)."""
    return 1 << 62 | int(instance[:15], 16)


@dataclass(frozen=True, slots=True)
class Tree:
    """The processes of an instance.

    `leader` is the process that was started, 0 where it is not known. `ended` is when it was reaped, in clock ticks since
    boot, 0 while it runs: its number may have been given to a stranger since, whose session and group are not ours.
    """

    instance: str
    leader: int = 0
    ended: int = 0
    cgroup: Path | None = None


async def end(
    trees: Iterable[Tree], *, thorough: bool = True, patience: float = PATIENCE, killed: set[int] | None = None
) -> list[int]:
    """Kill what belongs to the trees, again until nothing is found, and wait until it is gone; add it to `killed`.

    Gives the pids of those that could not be ended within `patience` seconds, or that we may not kill.
    """
    trees = list(trees)
    deadline = time.monotonic() + patience
    while found := kill(trees, thorough=thorough):
        if killed is not None:
            killed.update(found)
        left = deadline - time.monotonic()
        if left <= 0 or not await _gone(found.values(), left):
            _close(found.values())
            return sorted(found)
        _close(found.values())
    return []


def clear(tree: Tree) -> bool:
    """Tell whether nothing is left of a marked tree, by a quick look: 2 microseconds for each process of the machine."""
    found = dict(_members([replace(tree, leader=0)], thorough=False))
    _close(found.values())
    return not found


def kill(trees: Iterable[Tree], *, thorough: bool) -> dict[int, int]:
    """Kill what is found in one look; give pids, and a pidfd of each, which are the caller's to close."""
    trees = list(trees)
    for tree in trees:
        if tree.cgroup is not None:
            # Since Linux 5.14; before, and where it may not be, one by one.
            with contextlib.suppress(OSError):
                (tree.cgroup / "cgroup.kill").write_text("1")
    found = dict(_members(trees, thorough=thorough))
    for pidfd in found.values():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return found


def remove(cgroup: Path) -> None:
    """Remove an empty cgroup, with those that the worker made below it."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def marked(pid: int, instance: str) -> bool:
    """Tell whether a process carries the mark of an instance. Where a limit was set before us, it cannot."""
    with contextlib.suppress(OSError):
        return resource.prlimit(pid, RLIMIT_LOCKS)[1] == mark_of(instance)
    return False


def _members(trees: list[Tree], *, thorough: bool) -> Iterator[tuple[int, int]]:
    """Pids and pidfds of all living processes of the trees."""
    scanned = [tree for tree in trees if tree.cgroup is None or not tree.cgroup.is_dir()]
    for tree in trees:
        if tree.cgroup is not None:
            for pid in _in_cgroup(tree.cgroup):
                with contextlib.suppress(ProcessLookupError):
                    yield pid, os.pidfd_open(pid)
    if not scanned:
        return
    seen: set[int] = set()
    look = _Look(scanned)
    for pid in _pids():
        if look.quick(pid) and (pidfd := _pin(pid, look.quick)) is not None:
            seen.add(pid)
            yield pid, pidfd
    if thorough:
        for pid in _pids():
            if pid not in seen and look.environment(pid) and (pidfd := _pin(pid, look.environment)) is not None:
                seen.add(pid)
                yield pid, pidfd
        # Children of those that have shed every mark.
        parents = {pid: _stat(pid)[1] for pid in _pids()}
        while more := {pid for pid, parent in parents.items() if parent in seen} - seen:
            seen |= more
            for pid in more:
                if (pidfd := _pin(pid, lambda it: _stat(it)[1] == parents[it])) is not None:
                    yield pid, pidfd


class _Look:
    """What members of some trees are recognised by."""

    def __init__(self, trees: list[Tree]) -> None:
        self._marks = {mark_of(tree.instance) for tree in trees}
        self._variables = {f"{INSTANCE_VARIABLE}={tree.instance}".encode() for tree in trees}
        self._leaders = {tree.leader: tree.ended for tree in trees if tree.leader > 1}

    def quick(self, pid: int) -> bool:
        try:
            if resource.prlimit(pid, RLIMIT_LOCKS)[1] in self._marks:
                return _alive(pid)
        except OSError:
            pass  # somebody else's, or gone
        if not self._leaders:
            return False
        try:
            leader = os.getsid(pid)
            if leader not in self._leaders and (leader := os.getpgid(pid)) not in self._leaders:
                return False
        except OSError:
            return False
        state, _, started = _stat(pid)
        ended = self._leaders[leader]
        return state not in "ZX" and (not ended or started <= ended)

    def environment(self, pid: int) -> bool:
        try:
            return not self._variables.isdisjoint(_read(f"/proc/{pid}/environ").split(b"\0"))
        except OSError:
            return False  # it has ended, or is somebody else's


def _pin(pid: int, still: Callable[[int], bool]) -> int | None:
    """Open a pidfd, and look again whose the number is now that it is pinned."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if still(pid):
        return pidfd
    os.close(pidfd)
    return None


def _pids() -> list[int]:
    own = os.getpid()
    # os.listdir takes a tenth of what pathlib would. Never 0 or 1, which would mean the own group or everything's parent.
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return [pid for pid in numbers if pid > 1 and pid != own]


def _stat(pid: int) -> tuple[str, int, int]:
    """State, parent and start (ticks since boot) of a process (proc_pid_stat(5)); of none: X, 0 and 0."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return "X", 0, 0
    # The name in brackets may hold anything.
    fields = text[text.rindex(b")") + 2 :].split(b" ", 20)
    return fields[0].decode(), int(fields[1]), int(fields[19])


def _read(path: str) -> bytes:
    """Read a file of /proc, which pathlib would take three times as long for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while more := os.read(descriptor, 128 * 1024):
            text += more
        return text
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    return _stat(pid)[0] not in "ZX"


def _in_cgroup(cgroup: Path) -> Iterator[int]:
    """Living processes in a cgroup and those below it."""
    for folder, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):
            for line in (Path(folder) / "cgroup.procs").read_text().split():
                if int(line) > 1 and _alive(int(line)):
                    yield int(line)


async def _gone(pidfds: Iterable[int], seconds: float) -> bool:
    """Wait until all of these have ended."""
    loop = asyncio.get_running_loop()
    waiting = set(pidfds)
    done = loop.create_future()

    def ended(pidfd: int) -> None:
        loop.remove_reader(pidfd)
        waiting.discard(pidfd)
        if not waiting and not done.done():
            done.set_result(None)

    for pidfd in list(waiting):
        loop.add_reader(pidfd, ended, pidfd)
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        return False
    finally:
        for pidfd in waiting:
            loop.remove_reader(pidfd)
    return True


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
