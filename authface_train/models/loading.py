"""Loads pipelines and their parts from folders; a damaged part is named in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from diffusers import DDPMScheduler

from manifests.run_folder import MODEL_INDEX_FILE
from manifests.support.errors import UserError
from manifests.support.model_folder import ADVICE, check_model_files, explain_loading
from manifests.support.parsing import read_json_object

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T = TypeVar("T")
TRIAL_CELLS = 8
"""Side of the latents in `try_parts`."""


def load_checked(load: Callable[[], T], model: str) -> T:
    """Load a pipeline.

    Args:
        load: Loads it with diffusers.
        model: The folder of the pipeline, or its id on the Hugging Face hub.

    Returns:
        What `load` returns.

    Raises:
        OSError: If a file is missing.
        UserError: If a file is damaged or of another form. The message names the part.
    """
    folder = Path(model)
    if folder.is_dir():
        check_model_files(folder)
    try:
        with explain_loading(model):
            return load()
    except UserError:
        if folder.is_dir():
            _load_parts(folder)  # names the part that cannot be loaded
        raise


def _load_parts(folder: Path) -> None:
    """Load the parts of a pipeline one by one. Raises UserError for the first that fails."""
    index = folder / MODEL_INDEX_FILE
    if not index.is_file():
        return
    for name, value in read_json_object(index, ADVICE).items():
        if not isinstance(value, list) or not (folder / name).is_dir():
            continue
        package, class_name = value
        with explain_loading(folder / name):
            part_class = getattr(importlib.import_module(str(package)), str(class_name))
            part_class.from_pretrained(folder / name)


@torch.no_grad()
def try_parts(pipeline: DiffusionPipeline, model: str) -> None:
    """Run every part of an SDXL pipeline once, on a picture of 8 x 8 latent cells.

    Some damage of a configuration, such as a number of another type, is not noticed while the
    model is loaded, but only when it is used.

    Args:
        pipeline: The pipeline, with or without a ControlNet.
        model: The model, for messages.

    Raises:
        UserError: If a part fails.
    """
    device = pipeline.unet.device
    dtype = pipeline.unet.dtype
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and any(
            weight.is_meta for weight in part.parameters()
        ):
            raise UserError(f"{model}/{name} lacks weights; {ADVICE}")

    with explain_loading(f"the tokenizers and text encoders of {model}"):
        prompts, _, pooled_prompts, _ = pipeline.encode_prompt(
            prompt="", device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    with explain_loading(f"{model}/vae"):
        vae = pipeline.vae
        side_px = TRIAL_CELLS * 2 ** (len(vae.config.block_out_channels) - 1)
        picture = torch.zeros(1, 3, side_px, side_px, device=device)
        latents = vae.encode(picture.to(vae.dtype)).latent_dist.mean * vae.config.scaling_factor
        vae.decode(latents / vae.config.scaling_factor)
    with explain_loading(f"{model}/scheduler"):
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(1)
        timestep = scheduler.timesteps[0].to(device)
        sample = scheduler.step(latents, scheduler.timesteps[0], latents).prev_sample.to(dtype)

    conditions = {
        "text_embeds": pooled_prompts.to(dtype),
        "time_ids": torch.full((1, 6), float(side_px), device=device, dtype=dtype),
    }
    residuals = {}
    if getattr(pipeline, "controlnet", None) is not None:
        with explain_loading(f"{model}/controlnet"):
            down_residuals, mid_residual = pipeline.controlnet(
                sample,
                timestep,
                prompts.to(dtype),
                picture.to(dtype),
                added_cond_kwargs=conditions,
                return_dict=False,
            )
        residuals = {
            "down_block_additional_residuals": down_residuals,
            "mid_block_additional_residual": mid_residual,
        }
    with explain_loading(f"{model}/unet"):
        _ = pipeline.unet.add_embedding.linear_1.in_features  # read by the pipelines
        pipeline.unet(
            sample, timestep, prompts.to(dtype), added_cond_kwargs=conditions, **residuals
        )
