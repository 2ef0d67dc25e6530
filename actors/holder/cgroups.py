"""Whether the system has handed us a cgroup v2 folder to make others in (cgroups(7), systemd's CGROUP_DELEGATION)."""

import contextlib
import os
from pathlib import Path

CONTROLLERS = "+memory +pids"


def delegated(mounts: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Path | None:
    """Give the folder in which a holder may make a cgroup for each worker; None where there is none of ours.

    Where systemd started us in a folder below the delegated one (`DelegateSubgroup=`, since 254), the controllers are
    turned on, and memory can be limited. Elsewhere we are in the delegated folder itself, and turning them on would keep
    systemd from starting the next supervisor in it: then the folders serve to end trees alone.
    """
    path = _own_folder(mounts, own)
    if path is None:
        return None
    if _is_delegated(path):
        return path
    if _is_delegated(path.parent):
        with contextlib.suppress(OSError):
            (path.parent / "cgroup.subtree_control").write_text(CONTROLLERS)
        return path.parent
    return None


def _own_folder(mounts: Path, own: Path) -> Path | None:
    root = relative = None
    with contextlib.suppress(OSError):
        for line in mounts.read_text().splitlines():
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                root = Path(before.split()[4])
        for line in own.read_text().splitlines():
            if line.startswith("0::/"):
                relative = line[4:]
    return root / relative if root is not None and relative else None


def _is_delegated(folder: Path) -> bool:
    """Whether systemd says so, or has made the folder ours and the one above not."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return os.access(folder, os.W_OK)
    with contextlib.suppress(OSError):
        own = os.getuid()
        return own != 0 and folder.stat().st_uid == own != folder.parent.stat().st_uid
    return False
