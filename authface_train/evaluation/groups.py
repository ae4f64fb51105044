"""Compares groups of faces: gain in quality and loss of identity of each method in each group.

Groups are formed by skin tone and by pose of the clean face. Skin tone is the individual typology
angle (ITA) with the classes of Chardon et al. 1991. It describes the tone in the picture, which
depends on the lighting, not that of the person. Pose is the yaw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from authface_train.evaluation.evaluate import DEGRADED, Evaluation
from authface_train.evaluation.intervals import bootstrap_interval
from authface_train.evaluation.metrics import get_metric

SKIN_TONES = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -np.inf),
)
"""Name and lower bound of ITA in degrees, in descending order."""
POSES = (("turned by 45° and more", 45.0), ("turned by 15° to 45°", 15.0), ("frontal", 0.0))
"""Name and lower bound of the absolute yaw in degrees, in descending order."""
GAIN_METRICS = ("lpips", "psnr", "musiq")
"""The first of these that was measured is the gain."""
MIN_FACES = 5
"""Smallest group whose interval is meaningful."""


@dataclass(frozen=True)
class Group:
    """Mean of one quantity over one group of faces.

    Attributes:
        method: Name of the method.
        attribute: "skin" or "pose".
        group: Name of the group.
        quantity: Name of the quantity: the gain of a metric over the degraded picture (positive is
            better), or the metric itself if there are no degraded pictures; or the loss of
            identity.
        faces: Number of faces.
        mean: Mean over the faces.
        low: Lower end of the confidence interval of the mean.
        high: Upper end.
    """

    method: str
    attribute: str
    group: str
    quantity: str
    faces: int
    mean: float
    low: float
    high: float


def compare_groups(evaluation: Evaluation) -> list[Group]:
    """Compare the groups of every method, except for the degraded pictures themselves.

    Args:
        evaluation: The measurements.

    Returns:
        One entry per method, quantity and group that has faces; empty if faces were not measured.
    """
    if evaluation.faces is None:
        return []
    absolute_yaw_deg = evaluation.faces["yaw_deg"].astype(float).abs()
    faces = evaluation.faces.assign(
        skin=[_group_name(SKIN_TONES, ita_deg) for ita_deg in evaluation.faces["ita_deg"]],
        pose=[_group_name(POSES, yaw_deg) for yaw_deg in absolute_yaw_deg],
    )
    rows = evaluation.scores.merge(faces, on="name")
    degraded = rows[rows["method"] == DEGRADED]
    gain_metric = next((name for name in GAIN_METRICS if name in evaluation.metrics), None)

    groups = []
    for method in evaluation.methods:
        if method == DEGRADED:
            continue
        method_rows = rows[rows["method"] == method]
        for quantity, values in _quantities(method_rows, degraded, gain_metric).items():
            groups += _summarise_groups(method, method_rows, quantity, values)
    return groups


def format_markdown(groups: Sequence[Group]) -> str:
    """Format the groups as a Markdown table; groups below `MIN_FACES` are marked."""
    lines = [
        "| method | by | group | faces | what | mean | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in groups:
        faces = f"{group.faces} (few)" if group.faces < MIN_FACES else str(group.faces)
        lines.append(
            f"| {group.method} | {group.attribute} | {group.group} | {faces} | {group.quantity} | "
            f"{group.mean:.3f} | {group.low:.3f} to {group.high:.3f} |"
        )
    return "\n".join(lines)


def _summarise_groups(
    method: str, method_rows: pd.DataFrame, quantity: str, values: pd.Series
) -> list[Group]:
    """Average one quantity of a method over each group that has faces.

    Args:
        method: Name of the method.
        method_rows: Its scores with the columns `skin` and `pose`.
        quantity: Name of the quantity.
        values: Values of the quantity, one per row.
    """
    groups = []
    for attribute, bounds in (("skin", SKIN_TONES), ("pose", POSES)):
        for name, _ in bounds:
            in_group = values[method_rows[attribute] == name].dropna().to_numpy(float)
            if not len(in_group):
                continue
            low, high = bootstrap_interval(in_group)
            groups.append(
                Group(
                    method=method,
                    attribute=attribute,
                    group=name,
                    quantity=quantity,
                    faces=len(in_group),
                    mean=float(in_group.mean()),
                    low=low,
                    high=high,
                )
            )
    return groups


def _quantities(
    method_rows: pd.DataFrame, degraded: pd.DataFrame, gain_metric: str | None
) -> dict[str, pd.Series]:
    """Per-face values of the compared quantities, by their name."""
    quantities: dict[str, pd.Series] = {}
    if gain_metric is not None:
        metric = get_metric(gain_metric)
        if len(degraded):
            before = method_rows["name"].map(degraded.set_index("name")[gain_metric])
            sign = 1 if metric.higher_is_better else -1
            quantities[f"gain, {metric.heading}"] = sign * (method_rows[gain_metric] - before)
        else:
            quantities[metric.heading] = method_rows[gain_metric]
    if "identity" in method_rows:
        quantities["identity loss (distance)"] = method_rows["identity"]
    return quantities


def _group_name(bounds: Sequence[tuple[str, float]], value: float) -> str | None:
    """Name of the first group whose lower bound the value reaches; None for a missing value."""
    if pd.isna(value):
        return None
    return next(name for name, lower_bound in bounds if value >= lower_bound)
