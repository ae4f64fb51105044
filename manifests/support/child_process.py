"""Ends a child process with its parent, also when the parent is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from multiprocessing import connection, parent_process

PR_SET_PDEATHSIG = 1
"""Option of Linux's `prctl`: the signal that a process receives when its parent ends."""


def exit_with_parent() -> None:
    """End this process of `multiprocessing` when its parent ends, whatever the start method is."""
    parent = parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def wait() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def signal_at_parent_end(number: signal.Signals) -> None:
    """Receive a signal when the program that started this process ends, or now if it just has.

    Linux only. The earlier it is called, the smaller is the chance that the program has ended
    before.

    Args:
        number: The signal.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
