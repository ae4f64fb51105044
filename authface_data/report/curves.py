"""Training curves as coordinates of inline SVG, from the CSV files of a run."""

# The curves are drawn without matplotlib: the report must work in the light installation, and
# inline SVG takes its colours and fonts from the style sheet of the page.

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 560
HEIGHT = 200
LEFT = 56
RIGHT = 8
BOTTOM = 24
TOP = 10

SMOOTHING = 0.9
"""Decay of the exponential moving average of the smoothed line."""
MARGIN = 0.05
"""Free space above and below a curve, as a share of its range."""
TICK_POSITIONS = (0.05, 0.5, 0.95)
"""Positions of the ticks on the vertical axis, as shares of its length."""


@dataclass(frozen=True)
class Curve:
    """One metric over the steps of a run.

    Attributes:
        name: Name of the metric.
        points: Coordinates of an SVG polyline through all values.
        smooth: Coordinates of an SVG polyline through the smoothed values.
        ticks: (y, label) of the ticks on the vertical axis.
        first_step: Step of the first value.
        last_step: Step of the last value.
        last: The last value.
    """

    name: str
    points: str
    smooth: str
    ticks: list[tuple[float, str]]
    first_step: int
    last_step: int
    last: float


def metric_curves(metrics_csv: bytes) -> list[Curve]:
    """Draw the metrics of a run.

    Args:
        metrics_csv: Content of a run's metrics file.

    Returns:
        One curve per column with at least two values, the loss first. The columns of losses by
        timestep are left out; TensorBoard shows them.
    """
    rows = _parse_csv(metrics_csv)
    columns = list(rows[0]) if rows else []
    names = [name for name in columns if name != "step" and not name.startswith("loss_t")]
    names.sort(key=lambda name: (name != "loss", name))
    return _draw_columns(rows, names, SMOOTHING)


def audit_curves(audit_csv: bytes) -> list[Curve]:
    """Draw the losses of the memorisation audits: on held-out people and on training faces.

    Args:
        audit_csv: Content of a run's audit file.
    """
    return _draw_columns(_parse_csv(audit_csv), ["held_out_loss", "training_loss"], smoothing=0.0)


def _parse_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def _draw_columns(
    rows: Sequence[dict[str, str]], names: Sequence[str], smoothing: float
) -> list[Curve]:
    curves = []
    for name in names:
        rows_with_value = [row for row in rows if row.get(name)]
        if len(rows_with_value) > 1:
            steps = [int(row["step"]) for row in rows_with_value]
            values = [float(row[name]) for row in rows_with_value]
            curves.append(_draw_curve(name, steps, values, smoothing))
    return curves


def _draw_curve(
    name: str, steps: Sequence[int], values: Sequence[float], smoothing: float
) -> Curve:
    value_range = (max(values) - min(values)) or max(abs(max(values)), 1e-9)
    low = min(values) - MARGIN * value_range
    high = max(values) + MARGIN * value_range

    def x(step: int) -> float:
        share = (step - steps[0]) / (steps[-1] - steps[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def polyline(heights: Sequence[float]) -> str:
        points = zip(steps, heights, strict=True)
        return " ".join(f"{x(step):.1f},{y(height):.1f}" for step, height in points)

    tick_values = [low + position * (high - low) for position in TICK_POSITIONS]
    return Curve(
        name=name,
        points=polyline(values),
        smooth=polyline(_smooth(values, smoothing)),
        ticks=[(y(value), f"{value:.3g}") for value in tick_values],
        first_step=steps[0],
        last_step=steps[-1],
        last=values[-1],
    )


def _smooth(values: Sequence[float], decay: float) -> list[float]:
    """Exponential moving average that starts at the first value."""
    smoothed = []
    average = values[0]
    for value in values:
        average = decay * average + (1 - decay) * value
        smoothed.append(average)
    return smoothed
