"""Plots the time-aware weight, as in Figure 14 of the paper."""

from __future__ import annotations

import io

import torch
from PIL import Image

from authface_data.images.open import open_image
from authface_train.facial_loss.weight import time_aware_weight

PAPER_SETTINGS = ((-0.5, 1.0), (0.0, 1.0), (0.5, 1.0), (-0.5, 0.5))
"""(m, s) of the rows of Table 4."""
NUM_TIMESTEPS = 1000


def plot_weights() -> Image.Image:
    """Plot the weight against t = (timestep + 0.5) / 1000 for the paper's four settings.

    Returns:
        The figure as an RGBA picture; the legend gives the peak of each curve.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t = (torch.arange(NUM_TIMESTEPS, dtype=torch.float64) + 0.5) / NUM_TIMESTEPS
    figure, axes = plt.subplots(figsize=(7, 4), dpi=130, layout="constrained")
    for m, s in PAPER_SETTINGS:
        weight = time_aware_weight(t, m, s)
        peak = int(weight.argmax())
        peak_label = f"{float(weight[peak]):.2f} at t = {float(t[peak]):.2f}"
        axes.plot(t, weight, label=f"m = {m:g}, s = {s:g}: {peak_label}")
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":", label="constant")
    axes.set_xlabel("t = (timestep + 0.5) / 1000, noisier to the right")
    axes.set_ylabel("weight of the facial loss")
    axes.set_xlim(0, 1)
    axes.set_ylim(0)
    axes.legend()

    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return open_image(file.getvalue())
