"""Whether the prior learns faces or learns these faces by heart: measured at every checkpoint, with pictures and advice.

Losses: fixed faces, timesteps and noise, of the training set and of held-out people, so that audits can be compared.
Neighbours: for every drawn picture the nearest training face, by latents and by the 128-d descriptor. What held-out people have
as their nearest is the yardstick: a drawn face that is nearer than any of theirs is a copy until someone has looked.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from authface_train.callbacks.nearest_faces import FaceSet, NearestFaces, pairs_picture
from authface_train.callbacks.previews import PreviewSampler, broadcast_decision
from authface_train.data.latents import sample_latent
from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import torch_generator
from authface_train.runs.checkpoint import TrainableModel
from authface_train.settings import PriorSettings
from authface_train.stages.prior import noise_losses
from authface_train.training.metrics_logger import MetricsLogger
from authface_train.training.noise import NoiseSampler
from authface_train.training.sharding import reshard
from manifests.support.console import console

TIMES = 4
COLUMNS = ["step", "training_loss", "held_out_loss", "drawn", "faces_seen", "latent_nearest", "latent_held_out",
           "descriptor_nearest", "descriptor_held_out", "copies", "advice"]  # fmt: skip


@dataclass
class Probe:
    """Faces whose loss is measured: latents (2 flips, mean and std, channels, h, w) and prompt of each, and their ids."""

    latents: list[torch.Tensor]
    prompts: list[Embedding]
    face_ids: list[str]


@dataclass
class MemorisationAudit:
    """An onlooker of the prior's trainer. folder: audit.csv and pictures. held_out: None where nobody is held out."""

    settings: PriorSettings
    part: TrainableModel
    draws: NoiseSampler
    time_ids: torch.Tensor
    training: Probe
    held_out: Probe | None
    drawing: PreviewSampler
    neighbours: NearestFaces
    accelerator: Accelerator
    folder: Path

    def look(self, step: int, watch: MetricsLogger | None) -> None:
        due = step == 0 or step == self.settings.steps or step % self.settings.checkpoint_every == 0
        if not due or broadcast_decision(self.has(step)):
            return
        row: dict[str, Any] = {"step": step, "training_loss": self.loss(self.training)}
        if self.held_out is not None:
            row["held_out_loss"] = self.loss(self.held_out)
        drawn = self.drawing.draw(step)
        if watch is None:
            return
        row |= self._compare(step, drawn.latents, drawn.pictures)
        rows = [*(one for one in read(self.folder) if int(one["step"]) < step), row]
        row["advice"] = advice(rows)
        self._write(rows)
        for name, value in row.items():
            if isinstance(value, float):
                watch.board.add_scalar(f"audit/{name}", value, step)
        console.print(f"[bold]audit, step {step}:[/] {row['advice']}")

    def has(self, step: int) -> bool:
        """Whether the audit of a step is there already."""
        return any(int(row["step"]) == step for row in read(self.folder))

    @torch.no_grad()
    def loss(self, probe: Probe) -> float:
        """The noise loss over a probe's faces, each at TIMES timesteps spread over the schedule."""
        unet, device = self.part.module, self.accelerator.device
        unet.eval()
        total = 0.0
        with (
            self.part.ema.in_place() if self.part.ema else contextlib.nullcontext(),
            self.accelerator.autocast(),
        ):
            for latents, prompt, face_id in zip(
                probe.latents, probe.prompts, probe.face_ids, strict=True
            ):
                generator = torch_generator(self.settings.seed, 0, face_id, "audit")
                latent = sample_latent(latents, False, generator, self.draws.scaling_factor)
                first = int(torch.randint(1000 // TIMES, (), generator=generator))
                for part in range(TIMES):
                    batch = {
                        "latent": latent[None],
                        "noise": torch.randn(latent[None].shape, generator=generator),
                        "t_step": torch.tensor([first + part * 1000 // TIMES]),
                        "embeds": prompt.embeds[None],
                        "pooled": prompt.pooled[None],
                    }
                    on_device = {name: value.to(device) for name, value in batch.items()}
                    total += float(noise_losses(self.draws, unet, on_device, self.time_ids))
        unet.train()
        reshard(unet)
        return total / len(probe.latents) / TIMES

    def _compare(
        self, step: int, latents: torch.Tensor, pictures: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """Neighbours of what was drawn, beside those of held-out people; and the picture of the pairs."""
        found, usual = self.neighbours.nearest(FaceSet(latents, pictures)), self.neighbours.held_out
        copies = [
            any(
                near.distance[kind] < floor
                for kind, floor in usual.least.items()
                if kind in near.distance
            )
            for near in found
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        pairs_picture(pictures, found, copies).save(self.folder / f"nearest-step-{step:08d}.png")
        row: dict[str, Any] = {
            "drawn": len(found),
            "faces_seen": sum("descriptor" in near.distance for near in found),
        }
        for kind in ("latent", "descriptor"):
            distances = [near.distance[kind] for near in found if kind in near.distance]
            row[f"{kind}_nearest"] = float(np.median(distances)) if distances else None
            row[f"{kind}_held_out"] = usual.median.get(kind)
        row["copies"] = sum(copies) if usual.least else None
        return row

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temp = self.folder / ".audit.csv"
        with temp.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(rows)
        temp.replace(self.folder / "audit.csv")


def read(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's audits, by step; none where there are none."""
    path = folder / "audit.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


RISE, LATER = 1.01, 2


def advice(rows: Sequence[dict[str, Any]]) -> str:
    """What the audits so far say to do. Advises to stop where the held-out loss was lowest LATER audits ago and is above it."""
    last = rows[-1]
    losses = [
        (float(row["held_out_loss"]), int(row["step"]))
        for row in rows
        if row.get("held_out_loss") not in (None, "")
    ]
    if not losses:
        return "nobody is held out, so learning by heart cannot be told: give splits.val a share in authface.toml"
    lowest, best = min(losses)
    now = losses[-1][0]
    words = []
    after = sum(step > best for _, step in losses)
    if after >= LATER and now > lowest * RISE:
        words.append(
            f"stop: on held-out people the loss was lowest at step {best} ({lowest:.4f}, now {now:.4f})"
        )
    if last.get("copies") not in (None, "", 0, "0"):
        words.append(
            f"{last['copies']} of {last['drawn']} drawn faces are nearer to a training face than any held-out person is: "
            f"look at nearest-step-{int(last['step']):08d}.png"
        )
    return (
        "; ".join(words)
        or f"go on: loss {float(last['training_loss']):.4f} in training, {now:.4f} on held-out people"
    )
