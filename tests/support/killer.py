"""Runs an authface command and kills its process with SIGKILL before a chosen operation.

Operations are the writes, renames and removals in a workspace, and the steps of a training run.
Commits are made small, so that a command has many of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def run_and_kill(arguments: list[str], kill_at: int) -> None:
    """Run a command in this process and print the number of its operations at its end.

    Args:
        arguments: The arguments of `authface`.
        kill_at: Number of the operation before which this process is killed, from 1, or 0 for none.
    """
    import cli
    from authface_data.captions.llava import LlavaStage
    from authface_data.engine import run
    from manifests.workspace import Workspace

    num_operations = 0

    def count_calls(function: Callable) -> Callable:
        """Wrap a function so that its calls count as operations."""

        def counted(*args, **options):
            nonlocal num_operations
            num_operations += 1
            if num_operations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return counted

    run.COMMIT_ROWS = 3
    LlavaStage.batch_size = 1
    for name in ("write_bytes", "rename", "remove"):
        setattr(Workspace, name, count_calls(getattr(Workspace, name)))
    if arguments[0].startswith("train"):
        from authface_train.data import cache
        from authface_train.runs.training_run import TrainingRun

        cache.PART_RECORDS = 2
        TrainingRun.log_metrics = count_calls(TrainingRun.log_metrics)
        os.replace = count_calls(os.replace)

    try:
        cli.app(arguments)
    finally:
        print(f"operations {num_operations}")
