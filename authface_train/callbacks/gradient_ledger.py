"""Gradient ledger of Stage II: strength and direction of each loss term's gradient.

The ledger compares the gradients of the noise loss, the adversarial term and the Gram term with
respect to the noise prediction eps (not the weights). It uses the same faces and noise every time,
at one timestep per bin, so that entries can be compared over training. The losses are those of a
training step, including lambda_d, lambda_s and the weight w(t).

The bins differ because the facial terms see z0_pred = (z_t - sqrt(1 - abar) * eps) / sqrt(abar):
their gradient reaches eps multiplied by -sqrt((1 - abar) / abar).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image

from authface_data.images.open import open_image
from authface_train.data.sample_keys import SampleKey, hash_order
from authface_train.stages.restorer import RestorerTrainer
from authface_train.training.loop import (
    NUM_TRAIN_TIMESTEPS,
    TIMESTEP_BINS,
    Sample,
    stack_samples,
    to_device,
)
from authface_train.training.noise import noise_prediction_losses
from authface_train.training.sharding import broadcast_decision
from manifests.run_folder import GRADIENT_LEDGER_FILE
from manifests.support.csv_file import read_rows, write_rows

if TYPE_CHECKING:
    from authface_train.training.metrics_logger import MetricsLogger

LedgerEntry = dict[str, float]
"""A row of ledger.csv: the columns in `COLUMNS`."""

COLUMNS = [
    "step",
    "band",
    "noise",
    "adversarial",
    "style",
    "ratio",
    "cosine_adversarial",
    "cosine_style",
]
"""`band` is the timestep bin. `noise`, `adversarial` and `style` are mean gradient norms over the
faces, `ratio` is the norm of both facial terms together divided by that of the noise loss, and the
cosines compare each facial term with the noise loss."""

PLOT_FILE = "ledger.png"
NUM_FACES = 8
"""Maximum number of training faces that are measured."""
MIN_NORM = 1e-12
"""Lower bound of norms in denominators."""


class GradientLedger:
    """Measures the gradients every `ledger_every` steps of the run and at its end.

    Args:
        trainer: The restorer's trainer.
        folder: The run folder, where `ledger.csv` and `ledger.png` are saved.
    """

    def __init__(self, *, trainer: RestorerTrainer, folder: Path) -> None:
        self.trainer = trainer
        self.folder = folder
        self.face_indices = hash_order(trainer.noise_sampler.face_ids)[:NUM_FACES]

    def on_step_end(self, step: int, metrics_logger: MetricsLogger | None) -> None:
        """Measure and save the gradients if they are due and the step has no entries yet."""
        settings = self.trainer.settings
        every = settings.ledger_every
        if not every or self.trainer.facial is None:
            return
        if step % every and step != settings.steps:
            return
        has_entries = any(int(entry["step"]) == step for entry in read_ledger(self.folder))
        if broadcast_decision(has_entries):
            return

        measured = [{"step": float(step), **entry} for entry in self.measure()]
        if metrics_logger is None:
            return
        earlier = [entry for entry in read_ledger(self.folder) if entry["step"] < step]
        entries = [*earlier, *measured]
        write_ledger(self.folder, entries)
        plot = plot_ledger(entries)
        plot.save(self.folder / PLOT_FILE)
        metrics_logger.log_image("gradient ledger", step, plot)

    def measure(self) -> list[LedgerEntry]:
        """Measure the gradients of the current weights; the weights are not changed.

        Returns:
            One entry per timestep bin, without `step`.
        """
        device = self.trainer.accelerator.device
        samples = [self.trainer.dataset[SampleKey(0, index)] for index in self.face_indices]
        batch = to_device(stack_samples(samples), device)
        entries = []
        for timestep_bin in range(TIMESTEP_BINS):
            timesteps = torch.full_like(batch["timesteps"], _middle_timestep(timestep_bin))
            noise, adversarial, style = self._gradients({**batch, "timesteps": timesteps})
            noise_norm = _mean_norm(noise)
            facial_norm = _mean_norm(adversarial + style)
            entries.append(
                {
                    "band": float(timestep_bin),
                    "noise": noise_norm,
                    "adversarial": _mean_norm(adversarial),
                    "style": _mean_norm(style),
                    "ratio": facial_norm / max(noise_norm, MIN_NORM),
                    "cosine_adversarial": _mean_cosine(noise, adversarial),
                    "cosine_style": _mean_cosine(noise, style),
                }
            )
        return entries

    def _gradients(self, batch: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of noise loss, adversarial term and Gram term with respect to eps.

        Returns:
            Three float32 tensors of shape (faces, channels * height * width).
        """
        trainer = self.trainer
        settings = trainer.settings
        facial = trainer.facial
        assert facial is not None
        with torch.no_grad():
            noisy, prediction = trainer.predict(trainer.models["controlnet"].module, batch)
        eps = prediction.float().requires_grad_(True)

        noise_losses = noise_prediction_losses(
            eps, batch, trainer.scheduler, settings.min_snr_gamma
        )
        pairs = trainer.region_pairs(noisy, eps, batch)
        visible = facial.count_visible(batch["visible"])
        terms = facial.unweighted_terms(pairs, visible)
        losses = (
            noise_losses.sum() / len(eps),
            settings.facial.lambda_d * terms.adversarial,
            settings.facial.lambda_s * terms.style,
        )
        gradients = [torch.autograd.grad(loss, eps, retain_graph=True)[0] for loss in losses]
        return gradients[0].flatten(1), gradients[1].flatten(1), gradients[2].flatten(1)


def _middle_timestep(timestep_bin: int) -> int:
    return (2 * timestep_bin + 1) * NUM_TRAIN_TIMESTEPS // (2 * TIMESTEP_BINS)


def _mean_norm(gradients: torch.Tensor) -> float:
    """Mean L2 norm of the rows of (faces, values)."""
    return float(gradients.norm(dim=1).mean())


def _mean_cosine(gradients: torch.Tensor, other_gradients: torch.Tensor) -> float:
    """Mean cosine similarity of corresponding rows of (faces, values)."""
    return float(F.cosine_similarity(gradients, other_gradients, dim=1).mean())


def overall_ratio(entries: Sequence[LedgerEntry]) -> float:
    """Ratio of the facial terms' gradient norm to the noise loss's, over all timestep bins.

    Args:
        entries: One entry per bin, as `GradientLedger.measure` returns them.
    """
    facial = sum(entry["ratio"] * entry["noise"] for entry in entries)
    noise = sum(entry["noise"] for entry in entries)
    return facial / max(noise, MIN_NORM)


def read_ledger(folder: Path) -> list[LedgerEntry]:
    """The entries of ledger.csv in a run folder; empty if there is no ledger yet."""
    entries = []
    for row in read_rows(folder / GRADIENT_LEDGER_FILE):
        entries.append({name: float(value) for name, value in row.items()})
    return entries


def write_ledger(folder: Path, entries: Sequence[LedgerEntry]) -> None:
    """Write ledger.csv.

    Args:
        folder: The run folder.
        entries: All entries, by step and bin.
    """
    write_rows(folder / GRADIENT_LEDGER_FILE, entries, columns=COLUMNS)


def plot_ledger(entries: Sequence[LedgerEntry]) -> Image.Image:
    """Plot ratio and cosines as heat maps over training steps and timesteps.

    Args:
        entries: All entries of a ledger.

    Returns:
        An image with three panels.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import LogNorm

    steps = sorted({int(entry["step"]) for entry in entries})
    panels = (
        ("ratio", "|facial| / |noise|", "viridis", LogNorm(1e-3, 10)),
        ("cosine_adversarial", "cosine of adversarial and noise", "RdBu", plt.Normalize(-1, 1)),
        ("cosine_style", "cosine of Gram and noise", "RdBu", plt.Normalize(-1, 1)),
    )
    step_ticks = range(0, len(steps), max(len(steps) // 5, 1))
    step_labels = [str(steps[position]) for position in step_ticks]
    bin_labels = [str(_middle_timestep(timestep_bin)) for timestep_bin in range(TIMESTEP_BINS)]

    figure, all_axes = plt.subplots(
        1, 3, figsize=(13, 3.6), dpi=110, layout="constrained", sharey=True
    )
    for axes, (column, title, colormap, norm) in zip(all_axes, panels, strict=True):
        grid = np.full((TIMESTEP_BINS, len(steps)), np.nan)
        for entry in entries:
            grid[int(entry["band"]), steps.index(int(entry["step"]))] = entry[column]
        heat_map = axes.imshow(grid, origin="lower", aspect="auto", cmap=colormap, norm=norm)
        axes.set_xticks(list(step_ticks), step_labels)
        axes.set_yticks(range(TIMESTEP_BINS), bin_labels)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("training step")
        figure.colorbar(heat_map, ax=axes)
    all_axes[0].set_ylabel("timestep")

    png = io.BytesIO()
    figure.savefig(png, format="png")
    plt.close(figure)
    return open_image(png.getvalue())
