"""Builds the callbacks of a training job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from authface_train.callbacks import Callback
from authface_train.callbacks.gradient_ledger import GradientLedger
from authface_train.callbacks.memorisation import MemorisationAudit, Probe
from authface_train.callbacks.nearest_faces import NearestFaces
from authface_train.callbacks.previews import PreviewSampler
from authface_train.callbacks.validation import Validation
from authface_train.data.cache import Cache
from authface_train.data.crops import load_crop
from authface_train.data.latents import Latents
from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Embedding
from authface_train.data.sample_keys import hash_order
from authface_train.models.sdxl import load_vae
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.stages.restorer import RestorerTrainer
from manifests.run_folder import PREVIEWS, VALIDATION

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from authface_train.training.jobs import TrainingJob

MAX_PROBE_FACES = 32
"""Maximum number of faces in each of the audit's two probes, training faces and held-out faces."""


def build_callbacks(job: TrainingJob) -> list[Callback]:
    """Build the callbacks of a job.

    Args:
        job: The job.

    Returns:
        The callbacks in the order in which they run. Stage I: previews, then the memorisation audit
        if `audit` is set. Stage II: validation, then the gradient ledger.
    """
    if isinstance(job.settings, PriorSettings):
        assert isinstance(job.trainer, PriorTrainer)
        previews = _previews(job, job.settings, job.trainer)
        if not job.settings.audit:
            return [previews]
        return [previews, _memorisation_audit(job, job.settings, job.trainer, previews)]
    assert isinstance(job.trainer, RestorerTrainer)
    return [
        _validation(job, job.settings, job.trainer),
        GradientLedger(trainer=job.trainer, folder=job.run.folder),
    ]


def _vae_loader(job: TrainingJob) -> Callable[[], AutoencoderKL]:
    """A function that loads the VAE of the job's base, which is needed only to decode images."""
    request = job.request
    return lambda: load_vae(request.base, request.workspace.weights_dir, job.settings.seed)


def _latent_shape(latents: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """(channels, height, width) of cached posteriors, see `Latents`."""
    return tuple(latents[0].shape[2:])


def _previews(job: TrainingJob, settings: PriorSettings, trainer: PriorTrainer) -> PreviewSampler:
    inputs = job.inputs
    return PreviewSampler(
        model=trainer.models["unet"],
        scheduler=job.core.scheduler,
        prompts=list(zip(inputs.preview_captions, inputs.preview_prompts, strict=True)),
        null_prompt=inputs.null_prompt,
        latent_shape=_latent_shape(inputs.train_latents),
        settings=settings.draw,
        resolution_px=settings.resolution_px,
        last_step=settings.steps,
        load_vae=_vae_loader(job),
        accelerator=job.accelerator,
        folder=job.run.folder / PREVIEWS,
    )


def _memorisation_audit(
    job: TrainingJob, settings: PriorSettings, trainer: PriorTrainer, previews: PreviewSampler
) -> MemorisationAudit:
    inputs = job.inputs
    rows = job.rows
    workspace = job.request.workspace
    assert isinstance(inputs.train_latents, Latents)
    assert isinstance(inputs.val_latents, Latents)
    crop_paths = dict(zip(rows.all["crop_sha256"], rows.all["crop_path"], strict=True))
    nearest_faces = NearestFaces(
        training=inputs.train_latents,
        held_out=inputs.val_latents,
        load_crop=lambda key: load_crop(workspace, crop_paths[key], settings.resolution_px),
        scaling_factor=job.core.scaling_factor,
        descriptors=Cache(workspace, "cache/descriptors"),
        weights_dir=workspace.weights_dir,
    )
    held_out = None
    if not rows.held_out.empty:
        held_out = make_probe(rows.held_out, inputs.val_latents, inputs.val_prompts, orders=1)
    return MemorisationAudit(
        model=trainer.models["unet"],
        scheduler=trainer.scheduler,
        scaling_factor=job.core.scaling_factor,
        time_ids=trainer.time_ids,
        training_probe=make_probe(
            rows.training, inputs.train_latents, inputs.train_prompts, settings.orders
        ),
        held_out_probe=held_out,
        preview_sampler=previews,
        nearest_faces=nearest_faces,
        every=settings.checkpoint_every,
        last_step=settings.steps,
        seed=settings.seed,
        accelerator=job.accelerator,
        run_folder=job.run.folder,
    )


def make_probe(
    view: pd.DataFrame,
    latents: Sequence[torch.Tensor],
    prompts: Sequence[Embedding],
    orders: int,
) -> Probe:
    """Choose up to `MAX_PROBE_FACES` faces, the same ones every time, by a hash of their ids.

    Args:
        view: Faces, one row each, with a column `face_id`.
        latents: A posterior per face.
        prompts: `orders` embeddings per face, face by face. The first of each face is used.
        orders: Number of embeddings per face.
    """
    face_ids = view["face_id"].tolist()
    chosen = hash_order(face_ids)[:MAX_PROBE_FACES]
    return Probe(
        latents=[latents[index] for index in chosen],
        prompts=[prompts[index * orders] for index in chosen],
        face_ids=[face_ids[index] for index in chosen],
    )


def _validation(
    job: TrainingJob, settings: RestorerSettings, trainer: RestorerTrainer
) -> Validation:
    """Validation on held-out faces, or on training faces if the workspace has none."""
    rows = job.rows
    has_held_out = not rows.held_out.empty
    pairs = DegradedPairs(
        job.request.workspace,
        rows.held_out if has_held_out else rows.training,
        settings.resolution_px,
        settings.degradation,
        settings.seed,
    )
    return Validation(
        model=trainer.models["controlnet"],
        unet=trainer.unet,
        scheduler=trainer.scheduler,
        pairs=pairs,
        held_out=has_held_out,
        null_prompt=trainer.null_prompt,
        latent_shape=_latent_shape(trainer.noise_sampler.latents),
        settings=settings.validation,
        resolution_px=settings.resolution_px,
        seed=settings.seed,
        last_step=settings.steps,
        load_vae=_vae_loader(job),
        accelerator=job.accelerator,
        folder=job.run.folder / VALIDATION,
    )
