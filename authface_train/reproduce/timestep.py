"""At which timestep a face can be seen: a detector's confidence on the predicted picture, the paper's appendix, which chose m.

z0_pred = (z_t - sqrt(1 - abar) eps) / sqrt(abar) of clean faces under noise, predicted with their degraded selves as the hint,
decoded and looked at. Normalised time is (t + 0.5) / 1000.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.progress import track

from authface_data.faces.detectors import make_detector
from authface_train.evaluation.image_pairs import matched, pictures_by_name, read
from authface_train.restore.pipeline import Restorer
from manifests.support.errors import UserError

PRINTED = 0.32  # where the paper's curve reaches 0.5
T_STEPS = tuple(range(19, 1000, 60))
LOOKED_AT_PX, LEAST_SCORE = 256, 0.02  # a face that is not seen at all counts as 0


@torch.no_grad()
def measure(
    restorer: Restorer, degraded: Path, clean: Path, detector: str, weights_dir: str | None
) -> pd.DataFrame:
    """t_step, t, confidence (mean over faces), seen (share at 0.5 and more), faces. Raises UserError where no names match."""
    pairs = matched(pictures_by_name(degraded), pictures_by_name(clean)).pairs
    if not pairs:
        raise UserError(f"no picture of {degraded} has the name of one in {clean}")
    looking = make_detector(detector)
    looking.setup("cpu", weights_dir)
    generator = torch.Generator().manual_seed(0)
    scores: dict[int, list[float]] = {t_step: [] for t_step in T_STEPS}
    for given, wanted in track(list(pairs.values()), description="faces"):
        for t_step, picture in zip(
            T_STEPS, _predicted(restorer, read(given)[0], read(wanted)[0], generator), strict=True
        ):
            found = looking.detect([_large(picture)], LEAST_SCORE)[0]
            scores[t_step].append(found[0].score if found else 0.0)
    rows = [
        (
            t_step,
            (t_step + 0.5) / 1000,
            float(np.mean(of)),
            float(np.mean(np.array(of) >= 0.5)),
            len(of),
        )
        for t_step, of in scores.items()
    ]
    return pd.DataFrame(rows, columns=["t_step", "t", "confidence", "seen", "faces"])


def _predicted(
    restorer: Restorer, degraded: np.ndarray, clean: np.ndarray, generator: torch.Generator
) -> list[np.ndarray]:
    """The predicted picture at each of T_STEPS, (size, size, 3) uint8."""
    latents, abar = restorer.encode(clean), restorer.pipeline.scheduler.alphas_cumprod
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    made = []
    for t_step in T_STEPS:
        signal, rest = abar[t_step].sqrt(), (1 - abar[t_step]).sqrt()
        noisy = signal * latents + rest * noise
        predicted = restorer.predict(noisy, t_step, degraded)
        made.append(restorer.decode((noisy - rest * predicted) / signal)[0])
    return made


def _large(picture: np.ndarray) -> np.ndarray:
    if len(picture) >= LOOKED_AT_PX:
        return picture
    return np.asarray(
        Image.fromarray(picture).resize((LOOKED_AT_PX, LOOKED_AT_PX), Image.Resampling.BICUBIC)
    )


def crossing(t: Sequence[float], confidence: Sequence[float]) -> float | None:
    """The latest normalised time up to which the mean confidence is 0.5 or more, between two steps by a line; None if never."""
    for place in range(len(t) - 1, -1, -1):
        if confidence[place] >= 0.5:
            if place == len(t) - 1:
                return float(t[place])
            share = (confidence[place] - 0.5) / (confidence[place] - confidence[place + 1])
            return float(t[place] + share * (t[place + 1] - t[place]))
    return None


def report(table: pd.DataFrame) -> str:
    at = crossing(table["t"].tolist(), table["confidence"].tolist())
    ours = "never reaches 0.5" if at is None else f"reaches 0.5 at t = {at:.2f}"
    lines = ["| t | confidence | seen |", "|---|---|---|"]
    lines += [
        f"| {row.t:.2f} | {row.confidence:.3f} | {row.seen:.0%} |" for row in table.itertuples()
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"The mean over {table['faces'].iloc[0]} faces {ours}; the paper's at t = {PRINTED}.",
        ]
    )


def draw(table: pd.DataFrame) -> Image.Image:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=110, layout="constrained")
    axes.plot(table["t"], table["confidence"], marker="o", markersize=3)
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.axvline(PRINTED, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("normalised time (dotted: where the paper's curve reaches 0.5)")
    axes.set_ylabel("detector's confidence")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")
