"""Runs an authface command for the storm: measures its files and can kill it with SIGKILL.

    STORM_LOG=FILE STORM_STOP=NUMBER python storm_process.py ARGUMENTS...

STORM_STOP is the number of the write operation before which the process is killed, or 0. STORM_LOG
receives one line of JSON for each batch of inputs that a stage has processed and one for the end of
the process. Commits are made small, so that a command has many of them.
"""

import json
import os
import signal
import sys
import time
from multiprocessing import parent_process

from authface_data.engine import run, worker
from manifests.workspace import Workspace

COMMIT_ROWS = 16

log = os.environ["STORM_LOG"]
stop = int(os.environ["STORM_STOP"])
num_operations = 0


def peak_kb() -> int:
    """Largest resident memory of this process so far."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def write_log(**entry):
    """Append a line to the log; lines of several processes do not mix."""
    line = json.dumps({**entry, "pid": os.getpid(), "peak_kb": peak_kb()}) + "\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def count_calls(function):
    """Wrap a function so that its calls count as operations of the main process."""

    def counted(*args, **options):
        global num_operations
        if parent_process() is None:
            num_operations += 1
            if num_operations == stop:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return counted


def measure_batch(process_batch):
    """Wrap the function that processes a batch, so that the log has its duration."""

    def measured(stage, batch, *args, **options):
        started = time.monotonic()
        try:
            return process_batch(stage, batch, *args, **options)
        finally:
            seconds = time.monotonic() - started
            keys = [item.key for item in batch]
            write_log(stage=stage.name, keys=keys, seconds=seconds / len(keys))

    return measured


run.COMMIT_ROWS = COMMIT_ROWS
worker._process_batch = measure_batch(worker._process_batch)
for name in ("write_bytes", "rename", "remove"):
    setattr(Workspace, name, count_calls(getattr(Workspace, name)))

# Worker processes import this script too; they must only apply the changes above.
if __name__ == "__main__":
    import atexit

    import cli

    atexit.register(lambda: write_log(command=sys.argv[1:], operations=num_operations))
    sys.argv[0] = "authface"
    cli.app()
