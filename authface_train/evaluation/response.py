"""Response curves: metrics against the strength of blur, downscaling, noise and JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from authface_data.images.open import open_image
from authface_train.evaluation.evaluate import Evaluation
from authface_train.evaluation.intervals import bootstrap_interval
from authface_train.evaluation.metrics import get_metric

MAX_BINS = 5
MIN_BIN_SIZE = 3
"""Fewest pictures per bin; fewer pictures give fewer bins."""
DEGRADATIONS = {
    "blur_px": "blur, sigma px",
    "down": "downscaling",
    "noise": "noise, of 255",
    "jpeg": "JPEG quality",
}
"""Columns of `read_degradations` and their axis labels."""
COLUMNS = ["method", "metric", "damage", "at", "mean", "low", "high", "pictures"]


def response_curves(evaluation: Evaluation, degradations: pd.DataFrame) -> pd.DataFrame:
    """Average metrics over bins of equal size along each kind of degradation.

    Args:
        evaluation: The measurements.
        degradations: Strength of the degradations, as `read_degradations` returns it.

    Returns:
        One row per point: `method`, `metric`, `damage` (kind of degradation), `at` (mean strength
        in the bin), `mean` of the metric with its confidence interval `low` to `high`, and number
        of `pictures`. Empty if no picture has a degradation.
    """
    stems = [Path(name).name for name in evaluation.scores["name"]]
    rows = evaluation.scores.assign(name=stems).merge(degradations, on="name")
    metrics = [name for name in evaluation.metrics if name != "fid"]
    points: list[list[object]] = []
    for method, method_rows in rows.groupby("method", sort=False):
        for degradation in DEGRADATIONS:
            for rows_in_bin in _bins(method_rows.sort_values(degradation)):
                points += _average_bin(str(method), degradation, rows_in_bin, metrics)
    return pd.DataFrame(points, columns=COLUMNS)


def _average_bin(
    method: str, degradation: str, rows_in_bin: pd.DataFrame, metrics: Sequence[str]
) -> list[list[object]]:
    """One point per metric that has values in a bin, with the cells of `COLUMNS`."""
    strength = rows_in_bin[degradation].mean()
    points: list[list[object]] = []
    for metric in metrics:
        values = rows_in_bin[metric].dropna().to_numpy(float)
        if len(values):
            low, high = bootstrap_interval(values)
            point = [method, metric, degradation, strength]
            points.append([*point, values.mean(), low, high, len(values)])
    return points


def _bins(ordered: pd.DataFrame) -> list[pd.DataFrame]:
    """Split rows into at most `MAX_BINS` consecutive parts of about equal size."""
    count = max(min(MAX_BINS, len(ordered) // MIN_BIN_SIZE), 1)
    return [ordered.iloc[indices] for indices in np.array_split(np.arange(len(ordered)), count)]


def draw_curves(curves: pd.DataFrame) -> Image.Image | None:
    """Draw a panel per metric and degradation, with a line and an interval per method.

    Only metrics and degradations with a line of at least two points have panels.

    Args:
        curves: The points, as `response_curves` returns them.

    Returns:
        An RGB picture, or None if there is no line.
    """
    strengths = curves.groupby(["method", "metric", "damage"])["at"].transform("nunique")
    curves = curves[strengths > 1]
    if curves.empty:
        return None

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics = list(dict.fromkeys(curves["metric"]))
    degradations = [name for name in DEGRADATIONS if (curves["damage"] == name).any()]
    figure, panels = plt.subplots(
        len(metrics),
        len(degradations),
        figsize=(3.1 * len(degradations), 2.3 * len(metrics) + 0.4),
        dpi=100,
        squeeze=False,
        layout="constrained",
    )
    for row, metric in enumerate(metrics):
        for column, degradation in enumerate(degradations):
            panel = panels[row, column]
            shown = curves[(curves["metric"] == metric) & (curves["damage"] == degradation)]
            for method, points in shown.groupby("method", sort=False):
                panel.plot(points["at"], points["mean"], marker="o", markersize=3, label=method)
                panel.fill_between(points["at"], points["low"], points["high"], alpha=0.15)
            if row == len(metrics) - 1:
                panel.set_xlabel(DEGRADATIONS[degradation])
            if column == 0:
                panel.set_ylabel(get_metric(metric).heading)
    panels[0, 0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return open_image(buffer.getvalue()).convert("RGB")
