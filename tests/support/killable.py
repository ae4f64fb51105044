"""Runs a command in a new process and can kill it with SIGKILL."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from killer import run_and_kill
from processes import Rank, finish


def run_killable(
    arguments: Sequence[object], kill_at: int = 0, kill_after_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends or is killed.

    Args:
        arguments: The arguments of `authface`.
        kill_at: Number of the write operation before which the process is killed, from 1. With 0
            it runs to the end.
        kill_after_s: Seconds after which the process is killed.

    Returns:
        The ended process. Its `stdout` has the output of both streams.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "output"
        process = Rank(run_and_kill, ([*map(str, arguments)], kill_at), log)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        ((return_code, output),) = finish([process])
    return subprocess.CompletedProcess(arguments, return_code, output)


def count_operations(completed: subprocess.CompletedProcess[str]) -> int:
    """Number of write operations of a process that ended without an error."""
    assert completed.returncode == 0, completed.stdout
    match = re.search(r"operations (\d+)", completed.stdout)
    assert match is not None, completed.stdout
    return int(match[1])
