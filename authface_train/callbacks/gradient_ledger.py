"""The gradient ledger: how hard noise loss, adversarial term and Gram term pull at the noise prediction, and whether together.

Measured on fixed faces with fixed noise at a timestep of every band, so that entries can be compared over training. Gradients
are those of the losses as a step would have them, lambdas and w(t) in them, at eps (not at the weights): with z0_pred from eps
the facial terms reach it times -sqrt((1 - abar) / abar), which is why the bands differ.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from authface_train.callbacks.previews import broadcast_decision
from authface_train.data.sample_keys import SampleKey
from authface_train.stages.restorer import RestorerTrainer, stacked
from authface_train.training.loop import TIMESTEP_BINS
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.noise import min_snr_weight
from manifests.support.fingerprint import short_hash

FACES = 8
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
Entry = dict[str, float]


class GradientLedger:
    """An onlooker of the restorer's trainer. folder: of the run, for ledger.csv and ledger.png."""

    def __init__(self, trainer: RestorerTrainer, folder: Path):
        self.trainer, self.folder = trainer, folder
        ids = trainer.draws.face_ids
        self.faces = sorted(range(len(ids)), key=lambda place: short_hash(ids[place], 16))[:FACES]

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        every = self.trainer.settings.ledger_every
        due = (
            every
            and self.trainer.facial is not None
            and (step % every == 0 or step == self.trainer.settings.steps)
        )
        if not due or broadcast_decision(
            any(int(entry["step"]) == step for entry in read(self.folder))
        ):
            return
        entries = [{"step": float(step), **entry} for entry in self.measure()]
        if watch is None:
            return
        everything = [*(entry for entry in read(self.folder) if entry["step"] < step), *entries]
        write(self.folder, everything)
        picture = draw(everything)
        picture.save(self.folder / "ledger.png")
        watch.picture("gradient ledger", step, picture)

    def measure(self) -> list[Entry]:
        """An entry for every band of timesteps: means over faces of norms and of cosines to the noise loss's pull."""
        trainer = self.trainer
        assert trainer.facial is not None
        batch = stacked([trainer.sample(SampleKey(0, face)) for face in self.faces])
        batch = {name: value.to(trainer.accelerator.device) for name, value in batch.items()}
        entries = []
        for band in range(TIMESTEP_BINS):
            t_step = torch.full_like(batch["t_step"], (2 * band + 1) * 1000 // (2 * TIMESTEP_BINS))
            with torch.no_grad():
                noisy, prediction = trainer.predict(
                    trainer.parts["controlnet"].module, {**batch, "t_step": t_step}
                )
            eps = prediction.float().requires_grad_(True)
            count = len(eps)
            weight = min_snr_weight(trainer.draws.scheduler, t_step, trainer.settings.min_snr_gamma)
            noise = (
                weight * F.mse_loss(eps, batch["noise"].float(), reduction="none").mean((1, 2, 3))
            ).sum() / count
            pairs = trainer.facial.pairs(
                noisy, eps, batch["latent"], t_step, batch["boxes_px"], batch["visible"]
            )
            adversarial, style = trainer.facial.terms(pairs, trainer.facial.count(batch["visible"]))
            lambda_d, lambda_s = trainer.settings.facial.lambda_d, trainer.settings.facial.lambda_s
            pulls = [
                torch.autograd.grad(loss, eps, retain_graph=True)[0].flatten(1)
                for loss in (noise, lambda_d * adversarial, lambda_s * style)
            ]
            norms = [float(pull.norm(dim=1).mean()) for pull in pulls]
            both = float((pulls[1] + pulls[2]).norm(dim=1).mean())
            cosines = [
                float(F.cosine_similarity(pulls[0], pull, dim=1).mean()) for pull in pulls[1:]
            ]
            values = (band, *norms, both / max(norms[0], 1e-12), *cosines)
            entries.append(dict(zip(COLUMNS[1:], map(float, values), strict=True)))
        return entries


def overall(entries: Sequence[Entry]) -> float:
    """The facial pull over the noise loss's, both summed over the bands."""
    return sum(entry["ratio"] * entry["noise"] for entry in entries) / max(
        sum(entry["noise"] for entry in entries), 1e-12
    )


def read(folder: Path) -> list[Entry]:
    """The entries of a run; none where there are none."""
    path = folder / "ledger.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write(folder: Path, entries: Sequence[Entry]) -> None:
    temp = folder / ".ledger.csv"
    with temp.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(entries)
    temp.replace(folder / "ledger.csv")


def draw(entries: Sequence[Entry]) -> Image.Image:
    """Over training and timesteps: facial over noise pull, and both terms' cosines to the noise loss's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import LogNorm

    steps = sorted({int(entry["step"]) for entry in entries})
    panels = (
        ("ratio", "facial pull / noise pull", "viridis", LogNorm(1e-3, 10)),
        ("cosine_adversarial", "cosine of adversarial and noise", "RdBu", plt.Normalize(-1, 1)),
        ("cosine_style", "cosine of Gram and noise", "RdBu", plt.Normalize(-1, 1)),
    )
    figure, all_axes = plt.subplots(
        1, 3, figsize=(13, 3.6), dpi=110, layout="constrained", sharey=True
    )
    for axes, (column, title, colours, norm) in zip(all_axes, panels, strict=True):
        grid = np.full((TIMESTEP_BINS, len(steps)), np.nan)
        for entry in entries:
            grid[int(entry["band"]), steps.index(int(entry["step"]))] = entry[column]
        shown = axes.imshow(grid, origin="lower", aspect="auto", cmap=colours, norm=norm)
        places = range(0, len(steps), max(len(steps) // 5, 1))
        axes.set_xticks(list(places), [str(steps[place]) for place in places])
        axes.set_yticks(
            range(TIMESTEP_BINS),
            [str((2 * band + 1) * 1000 // (2 * TIMESTEP_BINS)) for band in range(TIMESTEP_BINS)],
        )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step of training")
        figure.colorbar(shown, ax=axes)
    all_axes[0].set_ylabel("timestep")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return Image.open(file)
