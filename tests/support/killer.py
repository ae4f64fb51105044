"""Runs the real command and kills its process with SIGKILL before a chosen write, rename or removal in the workspace.

    python killer.py STOP WORDS…     STOP: the number of the operation, 0 for never. Prints how many there were.

Commits are made small, so that there are several to be killed between.
"""

import os
import signal
import sys

from authface_data.captions.llava import LlavaStage
from authface_data.engine import local
from manifests.workspace import Workspace

stop, words = int(sys.argv[1]), sys.argv[2:]
local.COMMIT_ROWS = 3
LlavaStage.batch_size = 1
count = 0


def counted(original):
    def call(*args, **options):
        global count
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    return call


for name in ("write_bytes", "rename", "remove"):
    setattr(Workspace, name, counted(getattr(Workspace, name)))
if words[0].startswith("train"):  # torch is slow to import, and the others do not need it
    from authface_train.data import cache
    from authface_train.runs.training_run import TrainingRun

    cache.PART_RECORDS = 2
    TrainingRun.log_metrics = counted(TrainingRun.log_metrics)
    os.replace = counted(os.replace)

if __name__ == "__main__":
    import atexit

    import cli

    atexit.register(lambda: print(f"operations {count}"))
    sys.argv = ["authface", *words]
    cli.app()
