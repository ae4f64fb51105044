"""Which signals stop a run, and when."""

import os
import signal
import subprocess
import sys
import time

import pytest

from authface_train.training.signals import SignalCatcher, stop_run
from manifests.support.errors import Terminated

BUSY_PROCESS = """
import hashlib, signal
from authface_train.training import signals

for number in signals.STOP_SIGNALS:
    signal.signal(number, lambda *_: None)
signals.REACTION_S = 0.3
with signals.end_promptly():
    print("ready", flush=True)
    # One operation of hours, in which Python cannot react to a signal.
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2**31 - 1)
"""


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1),
        (signal.SIGTERM, signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
        (signal.SIGHUP,),
    ],
)
def test_repeated_signals_leave_the_first_one(numbers):
    handlers = [signal.getsignal(number) for number in numbers]
    with SignalCatcher(may_abort=True) as signals:
        send(*numbers)
    assert signals.received == numbers[0]
    assert [signal.getsignal(number) for number in numbers] == handlers


def test_second_interrupt_ends_at_once_with_one_process_only():
    with SignalCatcher(may_abort=False) as signals:
        send(signal.SIGINT, signal.SIGINT)
    assert signals.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt, match="second Ctrl-C"), SignalCatcher(may_abort=True):
        send(signal.SIGINT, signal.SIGINT)


def test_hangup_that_nohup_ignores_does_not_stop_a_run():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalCatcher(may_abort=True) as signals:
            send(signal.SIGHUP)
        assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_interrupt_has_its_own_error():
    with pytest.raises(KeyboardInterrupt, match="saved"):
        stop_run(signal.SIGINT, "saved")
    with pytest.raises(Terminated, match="saved"):
        stop_run(signal.SIGTERM, "saved")


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)],
)
def test_process_that_cannot_react_is_ended(number, exit_code):
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", BUSY_PROCESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    started = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == exit_code
