"""The memory of this machine that the process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
"""Files of limit and usage, and the line of memory.stat with the cached files."""
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes() -> float:
    """Free memory of the machine, or what is left of the limit of a container or a job.

    Slurm, Kubernetes and Docker set the limit by control groups, of version 2 or 1. The system ends
    a process that exceeds it.
    """
    available = float(psutil.virtual_memory().available)
    for group, (limit_file, usage_file, cached_name) in _own_groups():
        with suppress(OSError, ValueError, KeyError):
            limit = int((group / limit_file).read_text("utf-8"))  # "max" without a limit
            usage = int((group / usage_file).read_text("utf-8"))
            lines = (group / "memory.stat").read_text("utf-8").splitlines()
            # The system frees cached files before it ends a process.
            cached = int(dict(line.split() for line in lines)[cached_name])
            available = min(available, limit - usage + cached)
    return max(available, 0.0)


def _own_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The control groups of this process and those that contain them: folder and names."""
    try:
        lines = OWN_CGROUP.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, name = line.split(":", 2)
        path = PurePosixPath(name.lstrip("/"))
        if number == "0":
            yield from ((CGROUPS / part, VERSION_2) for part in (path, *path.parents))
        elif "memory" in controllers.split(","):
            # In a container, the folder of its group is mounted as the root.
            yield from ((CGROUPS / "memory" / part, VERSION_1) for part in (path, *path.parents))
