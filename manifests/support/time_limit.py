"""A time limit for the work on one input."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

REPEAT_S = 1.0


class TimeLimitError(BaseException):
    """The work on an input took too long.

    It derives from BaseException so that a library's `except Exception` does not swallow it.
    """


@contextmanager
def time_limit(seconds: float, ends_process: bool) -> Iterator[None]:
    """Raise an exception in the block when it takes too long.

    A signal interrupts Python code at once, and a call into a C library when the call returns. For
    a call that never returns, `ends_process` ends the process; its parent handles that. Without
    effect outside the main thread, where signals do not arrive.

    Args:
        seconds: The limit.
        ends_process: End this process if the block is still running after twice the limit.

    Raises:
        TimeLimitError: If the block took longer than the limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, interrupt)
    if ends_process:
        # faulthandler's timer runs in a C thread, which does not need the interpreter.
        faulthandler.dump_traceback_later(2 * seconds, exit=True, file=_null_file())
    # The signal repeats in case that a library discards the first exception, as destructors do.
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if ends_process:
            faulthandler.cancel_dump_traceback_later()


def has_time_limit() -> bool:
    """Whether a `time_limit` is running; they cannot be nested."""
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


_null: TextIO | None = None


def _null_file() -> TextIO:
    """An open file that discards its content; faulthandler must be able to write somewhere."""
    global _null
    if _null is None:
        _null = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process runs
    return _null
