"""The finished model of a run: a diffusers folder with its card, its lineage and what restoring must know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator

from authface_train.data.prompts import time_ids
from authface_train.models.sdxl import TINY
from authface_train.runs import lineage
from authface_train.runs.checkpoint import TrainableModel
from authface_train.runs.model_card import model_card
from authface_train.runs.run_folder import NOTES, RunFolder
from authface_train.settings import PriorSettings, TrainSettings
from authface_train.stages.prior import make_trainable
from authface_train.training.sharding import model_state
from manifests.support.console import console, quote_path


def final_state(part: TrainableModel, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """What a model has learnt, or the average of it where one is kept. For all processes to call together."""
    if part.ema is None:
        return model_state(part.module, accelerator)
    with part.ema.in_place():  # which is over before they are written
        return {
            name: value.clone() for name, value in model_state(part.module, accelerator).items()
        }


def save_prior(
    run: RunFolder,
    settings: PriorSettings,
    state: dict[str, torch.Tensor],
    load: Callable[[], Any],
    base: str,
) -> None:
    """Stage I's model: the base with the trained U-Net. load: gives the base, whole.

    LoRA layers are saved by themselves too, under `lora/`, and are part of the U-Net's weights in the folder.
    """
    pipeline = load()
    if settings.lora_rank:
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        unet = make_trainable(pipeline.unet, settings.model_copy(update={"compile": False}))
        unet.load_state_dict(state, strict=False)
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        pipeline.save_lora_weights(run.folder / "lora", unet_lora_layers=layers)
        unet.fuse_lora()
        unet.unload_lora()
    else:
        pipeline.unet.load_state_dict(state)
    _save(run, settings, pipeline, base)


def save_restorer(
    run: RunFolder,
    settings: TrainSettings,
    controlnet: Any,
    state: dict[str, torch.Tensor],
    load: Callable[[], Any],
    prior: str,
) -> None:
    """Stage II's model: the prior, and the trained ControlNet beside it."""
    from diffusers import StableDiffusionXLControlNetPipeline

    controlnet.load_state_dict(state)
    _save(
        run,
        settings,
        StableDiffusionXLControlNetPipeline(**load().components, controlnet=controlnet),
        prior,
    )


def notes_of(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself; empty for what is none."""
    path = folder / NOTES
    return json.loads(path.read_text()) if path.is_file() else {}


def _save(run: RunFolder, settings: TrainSettings, pipeline: Any, base: str) -> None:
    untrained = base == TINY or bool(notes_of(Path(base)).get("untrained"))
    frozen = pd.read_parquet(run.folder / lineage.FILE)
    notes = {
        "stage": run.stage,
        "resolution_px": settings.resolution_px,
        "time_ids": time_ids(settings.resolution_px),
        "steps": settings.steps,
        "untrained": untrained,
    }
    run.save_model(
        pipeline,
        notes,
        model_card(run.stage, base, settings.model_dump(mode="json"), frozen, untrained),
    )
    if untrained:
        console.print(
            "[yellow]Untrained:[/] built from configuration, for trying the machinery only; it restores nothing"
        )
    console.print(
        f"The {run.stage} is in {quote_path(run.folder)}: DiffusionPipeline.from_pretrained loads it"
    )
