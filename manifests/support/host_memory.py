"""The memory of this machine that the process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_bytes() -> float:
    """Free memory of the machine, or what is left of the limit of a container or a job.

    Slurm, Kubernetes and Docker set the limit by control groups, of which version 2 is read. The
    system ends a process that exceeds it.
    """
    available = float(psutil.virtual_memory().available)
    for group in _own_groups():
        with suppress(OSError, ValueError, KeyError):
            limit = int((group / "memory.max").read_text("utf-8"))  # "max" without a limit
            usage = int((group / "memory.current").read_text("utf-8"))
            lines = (group / "memory.stat").read_text("utf-8").splitlines()
            # The system frees cached files before it ends a process.
            cached = int(dict(line.split() for line in lines)["inactive_file"])
            available = min(available, limit - usage + cached)
    return max(available, 0.0)


def _own_groups() -> Iterator[Path]:
    """The folders of this process's control group and of those that contain it."""
    with suppress(OSError, StopIteration):
        lines = OWN_CGROUP.read_text("utf-8").splitlines()
        name = next(line[3:] for line in lines if line.startswith("0::"))
        path = PurePosixPath(name.lstrip("/"))
        for part in (path, *path.parents):
            yield CGROUPS / part
