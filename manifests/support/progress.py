"""Progress of long work: a bar on a terminal, plain lines elsewhere; rate and time left in both."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from manifests.support.console import error_console

T = TypeVar("T")
logger = logging.getLogger(__name__)

LINE_INTERVAL_S = 30.0


class ProgressBar:
    """Context manager that reports the progress of one task.

    On a terminal it draws a bar on stderr. Elsewhere it logs a line every `LINE_INTERVAL_S` seconds
    and one at the end. At level WARNING (`-q`) it shows nothing.

    Args:
        description: What is being done: one or two words.
        total: Number of units in all, or None if it is not known yet (see `update`).
        unit: What is counted, in the plural; the rate is given in it per second.
        completed: Units that were done before, for example by the run that is resumed.
        enabled: False shows nothing, for processes other than the main one.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: str = "rows",
        completed: int = 0,
        enabled: bool = True,
    ) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.completed = completed
        self._first = completed
        self._note: str | None = None
        self._enabled = enabled and logger.isEnabledFor(logging.INFO)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=error_console,
            speed_estimate_period=600,
            refresh_per_second=4,
            disable=not (self._enabled and error_console.is_terminal),
        )

    def __enter__(self) -> ProgressBar:
        self._started = self._last_line = time.monotonic()
        self._task = self._progress.add_task(
            self.description, total=self.total, completed=self.completed, note=""
        )
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._plain and self.completed > self._first:
            self._log_line()

    @property
    def rate(self) -> float:
        """Units per second since the start of this process."""
        return (self.completed - self._first) / max(time.monotonic() - self._started, 1e-9)

    def advance(self, count: int = 1) -> None:
        """Add `count` completed units."""
        self.update(self.completed + count)

    def update(self, completed: int, total: int | None = None, note: str | None = None) -> None:
        """Set the progress.

        Args:
            completed: Units done in all.
            total: The new total, if it has become known or has changed.
            note: Text shown instead of the rate, for example the loss of a training step.
        """
        self.completed = completed
        self.total = self.total if total is None else total
        self._note = self._note if note is None else note
        shown_note = self._note if self._note is not None else f"{self.rate:.2f} {self.unit}/s"
        self._progress.update(self._task, completed=completed, total=self.total, note=shown_note)
        if self._plain and time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._log_line()

    @property
    def _plain(self) -> bool:
        return self._enabled and not error_console.is_terminal

    def _log_line(self) -> None:
        self._last_line = time.monotonic()
        of_total = f" of {self.total}" if self.total is not None else ""
        note = self._note if self._note is not None else f"{self.rate:.2f} {self.unit}/s"
        left = ""
        if self.total is not None and self.total > self.completed and self.rate > 0:
            left = f", {format_duration((self.total - self.completed) / self.rate)} left"
        logger.info("%s: %d%s, %s%s", self.description, self.completed, of_total, note, left)


def track(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "rows"
) -> Iterator[T]:
    """Yield the items while a `ProgressBar` counts them.

    Args:
        items: What to iterate over.
        description: What is being done.
        total: Number of items; by default their length, if they have one.
        unit: What is counted, in the plural.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with ProgressBar(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


def format_duration(seconds: float) -> str:
    """A duration in words: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
