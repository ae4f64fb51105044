"""Memorisation audit of Stage I: does the prior learn faces in general or copy the training faces?

At every checkpoint the audit measures two things and gives advice:

* The noise loss on training faces and on held-out faces, with the same faces, timesteps and noise
  each time. A held-out loss that rises while the training loss falls shows memorisation.
* The nearest training face of each preview. Held-out faces are the baseline: a preview that is
  closer to a training face than any held-out face is flagged as a possible copy.
"""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator

from authface_train.callbacks.nearest_faces import (
    MEASURES,
    HeldOutBaseline,
    NearestFaces,
    NearestMatch,
    known_distances,
    nearest_grid,
)
from authface_train.callbacks.previews import PreviewBatch, PreviewSampler
from authface_train.callbacks.sampling import evaluation_mode
from authface_train.data.latents import sample_latent
from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import torch_generator
from authface_train.runs.checkpoint import list_steps
from authface_train.stages.prior import prior_losses
from authface_train.training.loop import NUM_TRAIN_TIMESTEPS, to_device
from authface_train.training.sharding import broadcast_decision
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import AUDIT, AUDIT_FILE, CHECKPOINTS, step_name
from manifests.support.csv_file import read_rows, write_rows

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

    from authface_train.training.metrics_logger import MetricsLogger

logger = logging.getLogger(__name__)

AuditRow = Mapping[str, float | int | str | None]
"""A row of audit.csv. In rows read from the file all values are strings, "" for None."""

COLUMNS = [
    "step",
    "training_loss",
    "held_out_loss",
    "drawn",
    "faces_seen",
    "latent_nearest",
    "latent_held_out",
    "descriptor_nearest",
    "descriptor_held_out",
    "copies",
    "advice",
]

TIMESTEPS_PER_FACE = 4
"""Number of evenly spaced timesteps at which the loss of a face is measured."""
RELATIVE_RISE = 1.01
"""Held-out loss relative to its minimum above which it counts as risen."""
AUDITS_BEFORE_STOP = 2
"""Number of audits since the minimum of the held-out loss before the advice is to stop."""


@dataclass(frozen=True)
class Probe:
    """Fixed faces on which the loss is measured.

    Attributes:
        latents: Posterior of each face, see `Latents`.
        prompts: Caption embedding of each face.
        face_ids: Id of each face.
    """

    latents: list[torch.Tensor]
    prompts: list[Embedding]
    face_ids: list[str]


class MemorisationAudit:
    """Audits the prior before training, at every checkpoint and at the end.

    Args:
        model: The U-Net in training; its EMA weights are audited if it keeps an EMA.
        scheduler: The noise schedule.
        scaling_factor: The VAE's scaling factor.
        time_ids: (6,) SDXL size conditioning.
        training_probe: Training faces whose loss is measured.
        held_out_probe: Held-out faces whose loss is measured, or None if no faces are held out.
        preview_sampler: Draws the images to compare with the training faces.
        nearest_faces: Finds the nearest training faces.
        every: Steps between audits.
        last_step: Number of steps of the whole run.
        seed: Seed of the timesteps and noise of the losses.
        accelerator: The run's accelerator.
        run_folder: Folder of the run. `audit.csv` and the pictures `nearest-step-00001000.png` are
            saved in its `audit/`.
    """

    def __init__(
        self,
        *,
        model: TrainableModel,
        scheduler: DDPMScheduler,
        scaling_factor: float,
        time_ids: torch.Tensor,
        training_probe: Probe,
        held_out_probe: Probe | None,
        preview_sampler: PreviewSampler,
        nearest_faces: NearestFaces,
        every: int,
        last_step: int,
        seed: int,
        accelerator: Accelerator,
        run_folder: Path,
    ) -> None:
        self.model = model
        self.scheduler = scheduler
        self.scaling_factor = scaling_factor
        self.time_ids = time_ids
        self.training_probe = training_probe
        self.held_out_probe = held_out_probe
        self.preview_sampler = preview_sampler
        self.nearest_faces = nearest_faces
        self.every = every
        self.last_step = last_step
        self.seed = seed
        self.accelerator = accelerator
        self.run_folder = run_folder
        self.folder = run_folder / AUDIT

    def on_step_end(self, step: int, metrics_logger: MetricsLogger | None) -> None:
        """Audit the model if an audit is due and audit.csv has no row for this step."""
        is_due = step % self.every == 0 or step == self.last_step
        if not is_due or broadcast_decision(self._has_audit(step)):
            return

        row: dict[str, float | int | str | None] = {"step": step}
        row["training_loss"] = self.mean_loss(self.training_probe)
        if self.held_out_probe is not None:
            row["held_out_loss"] = self.mean_loss(self.held_out_probe)
        previews = self.preview_sampler.draw(step)
        if metrics_logger is None:
            return

        row |= self._compare(step, previews)
        earlier = [other for other in read_audits(self.folder) if int(other["step"]) < step]
        # The checkpoint of this step may still be written in the background.
        checkpoints = sorted({*list_steps(self.run_folder / CHECKPOINTS), step})
        row["advice"] = advise([*earlier, row], self.run_folder, checkpoints)
        write_rows(self.folder / AUDIT_FILE, [*earlier, row], columns=COLUMNS)
        scalars = {name: value for name, value in row.items() if isinstance(value, float)}
        metrics_logger.log_scalars("audit", step, scalars)
        logger.info("memorisation audit at step %d: %s", step, row["advice"])

    def _has_audit(self, step: int) -> bool:
        return any(int(row["step"]) == step for row in read_audits(self.folder))

    @torch.no_grad()
    def mean_loss(self, probe: Probe) -> float:
        """Mean noise loss over the faces of a probe, at `TIMESTEPS_PER_FACE` timesteps each."""
        device = self.accelerator.device
        faces = zip(probe.latents, probe.prompts, probe.face_ids, strict=True)
        total = 0.0
        with evaluation_mode(self.model, self.accelerator):
            for latents, prompt, face_id in faces:
                generator = torch_generator(self.seed, 0, face_id, "audit")
                latent = sample_latent(latents, False, generator, self.scaling_factor)
                max_offset = NUM_TRAIN_TIMESTEPS // TIMESTEPS_PER_FACE
                offset = int(torch.randint(max_offset, (), generator=generator))
                for index in range(TIMESTEPS_PER_FACE):
                    timestep = offset + index * NUM_TRAIN_TIMESTEPS // TIMESTEPS_PER_FACE
                    batch = {
                        "latent": latent[None],
                        "noise": torch.randn(latent[None].shape, generator=generator),
                        "timesteps": torch.tensor([timestep]),
                        "embeds": prompt.embeds[None],
                        "pooled": prompt.pooled[None],
                    }
                    losses = prior_losses(
                        self.model.module, to_device(batch, device), self.time_ids, self.scheduler
                    )
                    total += float(losses)
        return total / len(probe.latents) / TIMESTEPS_PER_FACE

    def _compare(self, step: int, previews: PreviewBatch) -> dict[str, float | int | None]:
        """Compare previews with the training faces, save the picture, return columns of the row."""
        matches = self.nearest_faces.find(previews.latents, previews.images)
        baseline = self.nearest_faces.baseline
        possible_copies = [_is_possible_copy(match, baseline) for match in matches]
        self.folder.mkdir(parents=True, exist_ok=True)
        picture = nearest_grid(previews.images, matches, possible_copies)
        picture.save(self.folder / _picture_name(step))

        row: dict[str, float | int | None] = {
            "drawn": len(matches),
            "faces_seen": len(known_distances(matches, "descriptor")),
        }
        for measure in MEASURES:
            distances = known_distances(matches, measure)
            row[f"{measure}_nearest"] = float(np.median(distances)) if distances else None
            row[f"{measure}_held_out"] = baseline.median.get(measure)
        row["copies"] = sum(possible_copies) if baseline.minimum else None
        return row


def _is_possible_copy(match: NearestMatch, baseline: HeldOutBaseline) -> bool:
    """Whether a preview is closer to a training face than any held-out face is, by any measure."""
    return any(
        match.distance[measure] < minimum
        for measure, minimum in baseline.minimum.items()
        if measure in match.distance
    )


def _picture_name(step: int) -> str:
    return f"nearest-{step_name(step, '.png')}"


def read_audits(folder: Path) -> list[dict[str, str]]:
    """The rows of audit.csv in a run's audit folder, by step; empty if there is no audit yet."""
    return read_rows(folder / AUDIT_FILE)


def advise(audits: Sequence[AuditRow], run_folder: Path, checkpoints: Collection[int]) -> str:
    """Turn the audits of a run so far into advice.

    Training should stop if the held-out loss had its minimum at least `AUDITS_BEFORE_STOP` audits
    ago and has risen since. Possible copies should be checked by eye.

    Args:
        audits: Rows of audit.csv by step, the current audit last.
        run_folder: Folder of the run, for the command that exports a checkpoint.
        checkpoints: Steps of the run's checkpoints. No other checkpoint is advised.

    Returns:
        One line.
    """
    current = audits[-1]
    held_out = [
        (_value(row, "held_out_loss"), int(_value(row, "step")))
        for row in audits
        if not math.isnan(_value(row, "held_out_loss"))
    ]
    if not held_out:
        return (
            "no faces are held out, so memorisation cannot be measured; "
            "collect photographs of other people, and set splits.val in authface.toml"
        )

    lowest_loss, best_step = min(held_out)
    current_loss = held_out[-1][0]
    audits_since_best = sum(step > best_step for _, step in held_out)
    advice = []
    if audits_since_best >= AUDITS_BEFORE_STOP and current_loss > lowest_loss * RELATIVE_RISE:
        advice.append(
            f"stop: the held-out loss was lowest at step {best_step} "
            f"({lowest_loss:.4f}, now {current_loss:.4f})"
        )
        kept = [(loss, step) for loss, step in held_out if step in checkpoints]
        if kept and best_step > 0:  # the model before the first step is the base
            loss, step = min(kept)
            which = "it" if step == best_step else f"the best of the kept ones ({loss:.4f})"
            command = f"authface export {shlex.quote(str(run_folder))} --checkpoint {step}"
            advice[-1] += f"; export {which} with `{command}`"
    if _value(current, "copies") > 0:
        picture = _picture_name(int(_value(current, "step")))
        advice.append(
            f"{current['copies']} of {current['drawn']} previews are closer to a training face "
            f"than any held-out face is; check {picture} by eye"
        )
    if advice:
        return "; ".join(advice)
    training_loss = _value(current, "training_loss")
    return f"continue: training loss {training_loss:.4f}, held-out loss {current_loss:.4f}"


def _value(row: AuditRow, column: str) -> float:
    """A number of a row; NaN if it is missing or the cell is empty."""
    value = row.get(column)
    return math.nan if value is None or value == "" else float(value)
