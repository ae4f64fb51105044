"""Runs the real command, to the end or to a SIGKILL: before a chosen operation of the workspace, or by the clock."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

KILLER = Path(__file__).with_name("killer.py")


def run(words, stop: int = 0, kill_after: float | None = None) -> subprocess.CompletedProcess:
    """stop: the number of the operation that it is killed before, 0 for none; kill_after: seconds."""
    process = subprocess.Popen(
        [sys.executable, KILLER, str(stop), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out)
