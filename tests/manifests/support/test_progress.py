"""Progress bars off a terminal, and durations in words."""

import logging

import pytest

from manifests.support import progress
from manifests.support.progress import ProgressBar, format_duration, track


class Clock:
    """Replaces `time.monotonic` by a time that tests advance."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def messages(caplog):
    """Function that returns the messages logged so far, at the default level."""
    module_logger = logging.getLogger(progress.__name__)
    package_logger = logging.getLogger("manifests")
    propagate, level = package_logger.propagate, package_logger.level
    package_logger.propagate = True
    package_logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO, module_logger.name):
        yield lambda: caplog.messages
    package_logger.propagate = propagate
    package_logger.setLevel(level)


def test_lines_tell_rate_and_time_left_every_interval(clock, messages):
    with ProgressBar("filter", total=400, unit="photos") as bar:
        for _ in range(100):
            clock.seconds += 0.5
            bar.advance()
    assert messages() == [
        "filter: 60 of 400, 2.00 photos/s, 3 min left",
        "filter: 100 of 400, 2.00 photos/s, 2 min left",
    ]


def test_rate_counts_units_of_this_process_only(clock, messages):
    with ProgressBar("train", total=110, unit="steps", completed=100) as bar:
        clock.seconds += 5
        bar.update(110)
    assert messages() == ["train: 110 of 110, 2.00 steps/s"]


def test_note_replaces_rate(clock, messages):
    with ProgressBar("train", total=2) as bar:
        clock.seconds += 1
        bar.update(1, note="loss 0.5")
    assert messages() == ["train: 1 of 2, loss 0.5, 1 s left"]


def test_unknown_total_gives_no_time_left(clock, messages):
    with ProgressBar("collect") as bar:
        clock.seconds += 2
        bar.advance(4)
    assert messages() == ["collect: 4, 2.00 rows/s"]


def test_quiet_and_disabled_bars_log_nothing(clock, messages):
    with ProgressBar("filter", total=1, enabled=False) as bar:
        bar.advance()
    logging.getLogger("manifests").setLevel(logging.WARNING)
    logging.getLogger(progress.__name__).setLevel(logging.NOTSET)
    with ProgressBar("filter", total=1) as bar:
        bar.advance()
    assert messages() == []


def test_track_yields_items_and_counts_them(clock, messages):
    assert list(track([1, 2, 3], "score", unit="faces")) == [1, 2, 3]
    assert messages()[0].startswith("score: 3 of 3, ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3540, "59 min"), (11_100, "3 h 05 min")],
)
def test_durations_in_words(seconds, text):
    assert format_duration(seconds) == text
