"""The CPU cores that a training process may use."""

from __future__ import annotations

import os


def cores_per_process() -> int:
    """CPU cores of this machine per training process, at least 1.

    Cores that the scheduler withholds from this process are not counted.
    """
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    return max(num_cores // processes_per_machine(), 1)


def processes_per_machine() -> int:
    """Training processes on this machine, which launchers set as LOCAL_WORLD_SIZE."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
