"""What the two storms print: lines with the time, and a table of their counts."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from manifests.support.text import strip_control

if TYPE_CHECKING:
    from storm import Figures
    from train_storm import TrainFigures

MAX_LISTED = 20
"""Largest number of messages of one kind that are printed."""
console = Console(highlight=False, markup=False, soft_wrap=True)


class Log:
    """Prints lines with the seconds since it was created."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the creation."""
        return time.monotonic() - self._start

    def __call__(self, line: str) -> None:
        """Print a line."""
        console.print(strip_control(f"{self.seconds:6.0f} s  {line}"))


def print_figures(title: str, figures: Figures | TrainFigures) -> None:
    """Print counts as a table, and what must not have happened.

    Args:
        title: Title of the table.
        figures: The counts of a storm. Of a list, the length is printed.
    """
    table = Table("count", "value", title=title)
    for field in dataclasses.fields(figures):
        value = getattr(figures, field.name)
        if isinstance(value, list):
            text = str(len(value))
        else:
            text = f"{value:.1f}" if isinstance(value, float) else str(value)
        table.add_row(field.name, text)
    console.print(table)
    for name, messages in figures.faults().items():
        for message in messages[:MAX_LISTED]:
            console.print(strip_control(f"{name}: {message}"))
        if len(messages) > MAX_LISTED:
            console.print(f"{name}: {len(messages) - MAX_LISTED} more")
