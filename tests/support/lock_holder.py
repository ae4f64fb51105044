"""A process that holds the writer lock of a folder."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from manifests.lock import LocalFolder, WriterLock
WriterLock(LocalFolder(Path(sys.argv[1])), sys.argv[2]).acquire()
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def hold_lock(folder: str | Path, command: str) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of a workspace or run folder in another process, until the end of the block.

    Args:
        folder: The folder.
        command: The authface command that the lock names.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, command], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
