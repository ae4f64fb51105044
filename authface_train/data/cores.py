"""The CPU cores that a training process may use."""

from __future__ import annotations

import os


def cores_per_process() -> int:
    """CPU cores of this machine per training process, at least 1.

    Cores that the scheduler withholds from this process are not counted. Launchers set the number
    of processes on this machine as LOCAL_WORLD_SIZE.
    """
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    return max(num_cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
