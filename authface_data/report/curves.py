"""Training curves as inline SVG, from a run's metrics.csv."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 200, 56, 24, 10
SMOOTHING = 0.9


@dataclass(frozen=True)
class Curve:
    """points, smooth: SVG polyline coordinates; ticks: (y, label) of the vertical axis."""

    name: str
    points: str
    smooth: str
    ticks: list[tuple[float, str]]
    first_step: int
    last_step: int
    last: float


def curves(metrics_csv: bytes) -> list[Curve]:
    """One curve per column that has at least two values, the loss first. Losses by timestep are left to TensorBoard."""
    rows = list(csv.DictReader(io.StringIO(metrics_csv.decode())))
    names = [
        name
        for name in (rows[0] if rows else [])
        if name != "step" and not name.startswith("loss_t")
    ]
    return _drawn(rows, sorted(names, key=lambda name: (name != "loss", name)), SMOOTHING)


def audit_curves(audit_csv: bytes) -> list[Curve]:
    """The loss on held-out people and in training, as a run's audits measured them."""
    return _drawn(
        list(csv.DictReader(io.StringIO(audit_csv.decode()))),
        ["held_out_loss", "training_loss"],
        0.0,
    )


def _drawn(rows: list[dict[str, str]], names: list[str], smoothing: float) -> list[Curve]:
    made = []
    for name in names:
        series = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        if len(series) > 1:
            made.append(_curve(name, series, smoothing))
    return made


def _curve(name: str, series: list[tuple[int, float]], smoothing: float) -> Curve:
    steps, values = [step for step, _ in series], [value for _, value in series]
    low, high = min(values), max(values)
    span = (high - low) or max(abs(high), 1e-9)
    low, high = low - 0.05 * span, high + 0.05 * span

    def x(step: int) -> float:
        return LEFT + (step - steps[0]) / (steps[-1] - steps[0]) * (WIDTH - LEFT - 8)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    smooth, level = [], values[0]
    for value in values:
        level = smoothing * level + (1 - smoothing) * value
        smooth.append(level)

    def line(heights: list[float]) -> str:
        return " ".join(
            f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, heights, strict=True)
        )

    ticks = [
        (y(value), f"{value:.3g}")
        for value in (low + share * (high - low) for share in (0.05, 0.5, 0.95))
    ]
    return Curve(name, line(values), line(smooth), ticks, steps[0], steps[-1], values[-1])
