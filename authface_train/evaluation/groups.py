"""Whether a method serves everybody alike: what it gains and what identity it loses, by skin tone and by pose.

Skin tone is ITA (Chardon et al. 1991) of the clean picture, with the groups that are usual for it; it is the tone in this
picture, not of the person. Pose is the clean face's yaw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from authface_train.evaluation.evaluate import DEGRADED, Evaluation
from authface_train.evaluation.intervals import bootstrap
from authface_train.evaluation.metrics import known

SKIN = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -np.inf),
)
POSE = (("turned by 45° and more", 45.0), ("turned by 15° to 45°", 15.0), ("frontal", 0.0))
GAINS = ("lpips", "psnr", "musiq")  # the first that was measured
FEW = 5  # faces: too few for an interval that means anything


@dataclass(frozen=True)
class Group:
    """kind: skin tone or pose; what: gain of a metric over the degraded picture (its level without those), or identity."""

    method: str
    kind: str
    group: str
    what: str
    faces: int
    mean: float
    low: float
    high: float


def groups(found: Evaluation) -> list[Group]:
    """Of every method but the degraded pictures themselves; empty where faces were not looked at."""
    if found.faces is None:
        return []
    faces = found.faces.assign(
        skin=[_group(SKIN, value) for value in found.faces["ita_deg"]],
        pose=[
            _group(POSE, None if pd.isna(value) else abs(value)) for value in found.faces["yaw_deg"]
        ],
    )
    rows = found.scores.merge(faces, on="name")
    gain = next((name for name in GAINS if name in found.metrics), None)
    made = []
    for method in (one for one in found.methods if one != DEGRADED):
        own = rows[rows["method"] == method]
        for what, of in _measured(own, rows[rows["method"] == DEGRADED], gain).items():
            for kind, names in (("skin", SKIN), ("pose", POSE)):
                for name, _ in names:
                    values = of[own[kind] == name].dropna().to_numpy(float)
                    if len(values):
                        made.append(
                            Group(
                                method,
                                kind,
                                name,
                                what,
                                len(values),
                                float(values.mean()),
                                *bootstrap(values),
                            )
                        )
    return made


def _measured(own: pd.DataFrame, degraded: pd.DataFrame, gain: str | None) -> dict[str, pd.Series]:
    """By what is said of it: how much better than the degraded picture (positive is better), and distance of identity."""
    found = {}
    if gain is not None and len(degraded):
        before = own["name"].map(degraded.set_index("name")[gain])
        sign = 1 if known(gain).more else -1
        found[f"gain, {known(gain).heading}"] = sign * (own[gain] - before)
    elif gain is not None:
        found[known(gain).heading] = own[gain]
    if "identity" in own:
        found["identity loss (distance)"] = own["identity"]
    return found


def _group(kinds: tuple[tuple[str, float], ...], value: float | None) -> str | None:
    if value is None or pd.isna(value):
        return None
    return next(name for name, least in kinds if value >= least)


def markdown(made: list[Group]) -> str:
    lines = [
        "| method | by | group | faces | what | mean | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in made:
        few = " (few)" if one.faces < FEW else ""
        lines.append(
            f"| {one.method} | {one.kind} | {one.group} | {one.faces}{few} | {one.what} | {one.mean:.3f} | "
            f"{one.low:.3f} to {one.high:.3f} |"
        )
    return "\n".join(lines)
