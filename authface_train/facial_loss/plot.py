"""The weight over time, drawn: the paper's Figure 14."""

from __future__ import annotations

import io

import torch
from PIL import Image

from authface_train.facial_loss.weight import time_aware_weight

PAPER_SETTINGS = ((-0.5, 1.0), (0.0, 1.0), (0.5, 1.0), (-0.5, 0.5))  # (m, s) of Table 4


def plot() -> Image.Image:
    """Weight against t for the paper's four settings, each with its peak; t = (step + 0.5) / 1000."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    figure, axes = plt.subplots(figsize=(7, 4), dpi=130, layout="constrained")
    for m, s in PAPER_SETTINGS:
        weight = time_aware_weight(t, m, s)
        peak = int(weight.argmax())
        axes.plot(
            t,
            weight,
            label=f"m = {m:g}, s = {s:g}: {float(weight[peak]):.2f} at t = {float(t[peak]):.2f}",
        )
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":", label="constant")
    axes.set_xlabel("t = (step + 0.5) / 1000: noise grows to the right")
    axes.set_ylabel("weight of the facial loss")
    axes.set_xlim(0, 1)
    axes.set_ylim(0)
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return Image.open(file)
