"""Saves the finished model of a run as a diffusers folder with notes, lineage and a model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from authface_train.data.prompts import time_ids
from authface_train.models.sdxl import is_untrained
from authface_train.runs.lineage import read_lineage
from authface_train.runs.model_card import model_card
from authface_train.runs.training_run import TrainingRun
from authface_train.settings import PriorSettings, RestorerSettings
from authface_train.stages.prior import make_trainable
from authface_train.training.trainable_model import TrainableModel
from manifests.run_folder import LORA, MODEL_CARD_FILE, NOTES_FILE
from manifests.support.files import apply_umask, write_atomic, write_json

if TYPE_CHECKING:
    from diffusers import (
        ControlNetModel,
        DiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

StateDict = dict[str, torch.Tensor]


def final_weights(model: TrainableModel, accelerator: Accelerator) -> StateDict:
    """The weights to save: the moving average if the run keeps one, else the trained weights.

    All processes must call it together.

    Args:
        model: The trained model.
        accelerator: The run's accelerator.

    Returns:
        Tensors by parameter name, on the CPU.
    """
    if model.ema is None:
        return model.state(accelerator)
    with model.ema_weights():
        state = model.state(accelerator)
        # On the CPU the state shares memory with the module, whose weights are restored below.
        return {name: value.clone() for name, value in state.items()}


@dataclass(frozen=True)
class ModelOrigin:
    """What a model's card and notes say about its training.

    Attributes:
        run_folder: Folder of the run, which holds the lineage.
        stage: "prior" or "restorer".
        base: Hub id, folder or file of the model that the run started from.
        checkpoint_step: Step of the checkpoint that holds the weights; None for the finished model.
    """

    run_folder: Path
    stage: str
    base: str
    checkpoint_step: int | None = None


def save_prior(
    run: TrainingRun,
    settings: PriorSettings,
    state: StateDict,
    *,
    load: Callable[[], StableDiffusionXLPipeline],
    base: str,
) -> None:
    """Save the model of Stage I into its run folder, see `write_prior`.

    Args:
        run: The run to save into.
        settings: Settings of the run.
        state: Weights from `final_weights`.
        load: Loads the complete base pipeline.
        base: Hub id, folder or file of the base model, for the model card.
    """
    origin = ModelOrigin(run.folder, run.stage, base)
    run.save_model(lambda folder: write_prior(folder, settings, load(), lambda unet: state, origin))


def save_restorer(
    run: TrainingRun,
    settings: RestorerSettings,
    state: StateDict,
    *,
    controlnet: ControlNetModel,
    load: Callable[[], StableDiffusionXLPipeline],
    prior: str,
) -> None:
    """Save the model of Stage II into its run folder: the prior with the trained ControlNet.

    Args:
        run: The run to save into.
        settings: Settings of the run.
        state: Weights from `final_weights`.
        controlnet: A ControlNet of the right shape; the weights are loaded into it.
        load: Loads the complete prior pipeline.
        prior: Hub id, folder or file of the prior, for the model card.
    """
    controlnet.load_state_dict(state)
    origin = ModelOrigin(run.folder, run.stage, prior)
    run.save_model(lambda folder: write_restorer(folder, settings, load(), controlnet, origin))


def write_prior(
    folder: Path,
    settings: PriorSettings,
    pipeline: StableDiffusionXLPipeline,
    weights: Callable[[UNet2DConditionModel], StateDict],
    origin: ModelOrigin,
) -> None:
    """Write a model of Stage I: the base model with the trained U-Net.

    With `lora_rank` the LoRA layers are saved twice: as LoRA weights under `lora/`, and merged into
    the weights of the U-Net.

    Args:
        folder: Folder to write into.
        settings: Settings of the run.
        pipeline: The complete base pipeline. It is changed.
        weights: Returns the trained weights for the base's U-Net, which has the LoRA layers.
        origin: What the card and the notes say.
    """
    if settings.lora_rank:
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        unet = make_trainable(pipeline.unet, settings.model_copy(update={"compile": False}))
        unet.load_state_dict(weights(unet), strict=False)
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
        pipeline.save_lora_weights(folder / LORA, unet_lora_layers=layers)
        unet.fuse_lora()
        unet.unload_lora()
    else:
        pipeline.unet.load_state_dict(weights(pipeline.unet))
    _write_pipeline(folder, settings, pipeline, origin)


def write_restorer(
    folder: Path,
    settings: RestorerSettings,
    pipeline: StableDiffusionXLPipeline,
    controlnet: ControlNetModel,
    origin: ModelOrigin,
) -> None:
    """Write a model of Stage II: the prior with the trained ControlNet.

    Args:
        folder: Folder to write into.
        settings: Settings of the run.
        pipeline: The complete prior pipeline.
        controlnet: The trained ControlNet.
        origin: What the card and the notes say.
    """
    from diffusers import StableDiffusionXLControlNetPipeline

    restorer = StableDiffusionXLControlNetPipeline(**pipeline.components, controlnet=controlnet)
    _write_pipeline(folder, settings, restorer, origin)


def _write_pipeline(
    folder: Path,
    settings: PriorSettings | RestorerSettings,
    pipeline: DiffusionPipeline,
    origin: ModelOrigin,
) -> None:
    untrained = is_untrained(origin.base)
    step = origin.checkpoint_step
    notes: dict[str, object] = {
        "stage": origin.stage,
        "resolution_px": settings.resolution_px,
        "time_ids": time_ids(settings.resolution_px),
        "steps": settings.steps if step is None else step,
        "untrained": untrained,
    }
    if step is not None:
        notes["checkpoint_step"] = step
    card = model_card(
        origin.stage,
        origin.base,
        settings.model_dump(mode="json"),
        read_lineage(origin.run_folder),
        untrained=untrained,
        checkpoint_step=step,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    write_json(folder / NOTES_FILE, notes)
    write_atomic(folder / MODEL_CARD_FILE, card)
    apply_umask(folder)
