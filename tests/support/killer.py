"""Runs an authface command and kills its process with SIGKILL before a chosen operation.

    python killer.py STOP ARGUMENTS...

Operations are the writes, renames and removals in a workspace, and the steps of a training run.
STOP is the number of the operation, or 0 for none. At the end the script prints the number of
operations. Commits are made small, so that a command has many of them.
"""

import os
import signal
import sys

from authface_data.captions.llava import LlavaStage
from authface_data.engine import local
from manifests.workspace import Workspace

stop = int(sys.argv[1])
arguments = sys.argv[2:]
num_operations = 0


def count_calls(function):
    """Wrap a function so that its calls count as operations."""

    def counted(*args, **options):
        global num_operations
        num_operations += 1
        if num_operations == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return counted


local.COMMIT_ROWS = 3
LlavaStage.batch_size = 1
for name in ("write_bytes", "rename", "remove"):
    setattr(Workspace, name, count_calls(getattr(Workspace, name)))

# Only the trainers need torch, which is slow to import.
if arguments[0].startswith("train"):
    from authface_train.data import cache
    from authface_train.runs.training_run import TrainingRun

    cache.PART_RECORDS = 2
    TrainingRun.log_metrics = count_calls(TrainingRun.log_metrics)
    os.replace = count_calls(os.replace)

# Worker processes import this script too; they must only apply the changes above.
if __name__ == "__main__":
    import atexit

    import cli

    atexit.register(lambda: print(f"operations {num_operations}"))
    sys.argv = ["authface", *arguments]
    cli.app()
