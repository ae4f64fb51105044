"""What looks on while a stage trains: Stage I's drawing and audit, Stage II's validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator

from authface_train.callbacks.memorisation import MemorisationAudit, Probe
from authface_train.callbacks.nearest_faces import NearestFaces
from authface_train.callbacks.previews import PreviewSampler
from authface_train.callbacks.validation import Validation
from authface_train.data.cache import Cache
from authface_train.data.captions import Captions
from authface_train.data.crops import load_crop
from authface_train.data.latents import Latents
from authface_train.data.pairs import DegradedPairs
from authface_train.data.prompts import Prompts
from authface_train.models.sdxl import DiffusionCore, load_vae
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.stages.prior import PriorTrainer
from authface_train.stages.restorer import RestorerTrainer
from authface_train.training.setup import TrainingRows
from manifests.support.fingerprint import short_hash
from manifests.workspace import Workspace

PROBED = 32


def onlookers(
    workspace: Workspace,
    settings: PriorSettings,
    rows: TrainingRows,
    trainer: PriorTrainer,
    core: DiffusionCore,
    latents: tuple[Latents, Latents],
    prompts: tuple[Prompts, Prompts, Prompts],
    captions: Captions,
    accelerator: Accelerator,
    folder: Path,
) -> list[Any]:
    """For `trainer.onlookers`. latents: of the training set and of held-out people; prompts: those of both, and of what is
    drawn; folder: the run's."""
    part = trainer.parts["unet"]
    drawing = PreviewSampler(
        settings,
        part,
        core.scheduler,
        list(zip(captions.drawn, prompts[2], strict=True)),
        trainer.null_prompt,
        tuple(latents[0][0].shape[2:]),
        lambda: load_vae(settings.base, workspace.weights_dir, settings.seed),
        accelerator,
        folder / "drawn",
    )
    if not settings.audit:
        return [drawing]
    everyone = pd.concat([rows.training, rows.held_out])
    paths = dict(zip(everyone["crop_sha256"], everyone["crop_path"], strict=True))
    neighbours = NearestFaces(
        *latents,
        lambda key: load_crop(workspace, paths[key], settings.resolution_px),
        core.scaling_factor,
        Cache(workspace, "cache/descriptors"),
        workspace.weights_dir,
    )
    audit = MemorisationAudit(
        settings,
        part,
        trainer.draws,
        trainer.time_ids,
        probe(rows.training, latents[0], prompts[0], settings.orders),
        None if rows.held_out.empty else probe(rows.held_out, latents[1], prompts[1], 1),
        drawing,
        neighbours,
        accelerator,
        folder / "audit",
    )
    return [drawing, audit]


def probe(view: pd.DataFrame, latents: Latents, prompts: Prompts, orders: int) -> Probe:
    """Up to PROBED faces of a view, always the same. orders: prompts per face."""
    ids = view["face_id"].tolist()
    places = sorted(range(len(ids)), key=lambda place: short_hash(ids[place], 16))[:PROBED]
    own = [prompts[place * orders] for place in places]
    return Probe([latents[place] for place in places], own, [ids[place] for place in places])


def validation(
    workspace: Workspace,
    settings: RestorerSettings,
    rows: TrainingRows,
    trainer: RestorerTrainer,
    prior: str,
    accelerator: Accelerator,
    folder: Path,
) -> Validation:
    """Stage II's, on people who are held out; on the training set where nobody is. folder: for its pictures."""
    view = rows.training if rows.held_out.empty else rows.held_out
    return Validation(
        settings,
        trainer.parts["controlnet"],
        trainer.unet,
        trainer.draws.scheduler,
        DegradedPairs(workspace, view, settings.resolution_px, settings.degradation, settings.seed),
        not rows.held_out.empty,
        trainer.null_prompt,
        tuple(trainer.draws.latents[0].shape[2:]),
        lambda: load_vae(prior, workspace.weights_dir, settings.seed),
        accelerator,
        folder,
    )
