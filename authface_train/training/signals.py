"""Signals that stop a training run: Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP.

During training a signal is remembered until the step is done and a checkpoint is saved. Before the
first step and after the last one it ends the run at once. docs/running.md describes both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from manifests.support.errors import Terminated

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
REACTION_S = 20.0
"""Time in which a process that is not training must end after a signal."""

_is_catching = threading.Event()


class SignalCatcher:
    """Context manager that remembers the first signal, so that the step is finished and saved.

    Slurm and torchrun may deliver the same signal twice, so further signals change nothing. The
    exception is Ctrl-C in a terminal.

    Args:
        may_abort: Whether a second Ctrl-C ends the process at once.

    Attributes:
        received: Number of the first signal, or None.
    """

    def __init__(self, *, may_abort: bool) -> None:
        self.may_abort = may_abort
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalCatcher:
        _is_catching.set()
        for number in STOP_SIGNALS:
            # `nohup` ignores SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        _is_catching.clear()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        elif self.may_abort and self.received == number == signal.SIGINT:
            raise KeyboardInterrupt(
                "ended by a second Ctrl-C before the checkpoint was saved; --resume continues "
                "from the one before it"
            )


def stop_run(number: int, message: str) -> NoReturn:
    """End the run after a signal.

    Args:
        number: The signal.
        message: What was saved and how to continue.

    Raises:
        KeyboardInterrupt: For Ctrl-C; the exit code is 130.
        Terminated: For the other signals; the exit code is 143.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    raise Terminated(message)


@contextlib.contextmanager
def end_promptly() -> Iterator[None]:
    """End the process `REACTION_S` after a signal if it cannot react to it by itself.

    Python reacts to a signal between two operations. A process that waits for the others in a
    collective operation, or reads a large file, does not get there. During training nothing is
    ended, see `SignalCatcher`.
    """
    has_ended = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, has_ended), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        has_ended.set()
        os.close(writer)


def _watch(reader: int, has_ended: threading.Event) -> None:
    """Receive the numbers of signals, one byte each, until the other end of the pipe is closed."""
    with os.fdopen(reader, "rb", buffering=0) as signals:
        while received := signals.read(1):
            number = received[0]
            if number not in STOP_SIGNALS or _is_catching.is_set():
                continue
            if not has_ended.wait(REACTION_S):
                os._exit(130 if number == signal.SIGINT else Terminated.exit_code)
