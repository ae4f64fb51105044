"""Saves the finished model of a run as a diffusers folder with notes, lineage and a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from authface_train.data.prompts import time_ids
from authface_train.models.sdxl import TINY
from authface_train.runs.lineage import read_lineage
from authface_train.runs.model_card import model_card
from authface_train.runs.training_run import TrainingRun
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.stages.prior import make_trainable
from authface_train.training.sharding import model_state
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import LORA, read_notes

if TYPE_CHECKING:
    from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionXLPipeline


def final_weights(model: TrainableModel, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """The weights to save: the moving average if the run keeps one, else the trained weights.

    All processes must call it together.

    Args:
        model: The trained model.
        accelerator: The run's accelerator.

    Returns:
        Tensors by parameter name, on the CPU.
    """
    if model.ema is None:
        return model_state(model.module, accelerator)
    with model.ema_weights():
        state = model_state(model.module, accelerator)
        # On the CPU the state shares memory with the module, whose weights are restored below.
        return {name: value.clone() for name, value in state.items()}


def save_prior(
    run: TrainingRun,
    settings: PriorSettings,
    state: dict[str, torch.Tensor],
    *,
    load: Callable[[], StableDiffusionXLPipeline],
    base: str,
) -> None:
    """Save the model of Stage I: the base model with the trained U-Net.

    With `lora_rank` the LoRA layers are saved twice: as LoRA weights under `lora/`, and merged into
    the weights of the U-Net.

    Args:
        run: The run to save into.
        settings: Settings of the run.
        state: Weights from `final_weights`.
        load: Loads the complete base pipeline.
        base: Hub id or folder of the base model, for the model card.
    """
    pipeline = load()
    if settings.lora_rank:
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        unet = make_trainable(pipeline.unet, settings.model_copy(update={"compile": False}))
        unet.load_state_dict(state, strict=False)
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        pipeline.save_lora_weights(run.folder / LORA, unet_lora_layers=layers)
        unet.fuse_lora()
        unet.unload_lora()
    else:
        pipeline.unet.load_state_dict(state)
    _save_pipeline(run, settings, pipeline, base)


def save_restorer(
    run: TrainingRun,
    settings: RestorerSettings,
    state: dict[str, torch.Tensor],
    *,
    controlnet: ControlNetModel,
    load: Callable[[], StableDiffusionXLPipeline],
    prior: str,
) -> None:
    """Save the model of Stage II: the prior together with the trained ControlNet.

    Args:
        run: The run to save into.
        settings: Settings of the run.
        state: Weights from `final_weights`.
        controlnet: A ControlNet of the right shape; the weights are loaded into it.
        load: Loads the complete prior pipeline.
        prior: Hub id or folder of the prior, for the model card.
    """
    from diffusers import StableDiffusionXLControlNetPipeline

    controlnet.load_state_dict(state)
    pipeline = StableDiffusionXLControlNetPipeline(**load().components, controlnet=controlnet)
    _save_pipeline(run, settings, pipeline, prior)


def _save_pipeline(
    run: TrainingRun,
    settings: PriorSettings | RestorerSettings,
    pipeline: DiffusionPipeline,
    base: str,
) -> None:
    untrained = base == TINY or bool(read_notes(Path(base)).get("untrained"))
    lineage = read_lineage(run.folder)
    notes: dict[str, object] = {
        "stage": run.stage,
        "resolution_px": settings.resolution_px,
        "time_ids": time_ids(settings.resolution_px),
        "steps": settings.steps,
        "untrained": untrained,
    }
    card = model_card(run.stage, base, settings.model_dump(mode="json"), lineage, untrained)
    run.save_model(pipeline, notes, card)
