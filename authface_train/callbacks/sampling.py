"""Sampling from a model during training, for previews and validation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator

from authface_train.training.sharding import reshard
from authface_train.training.trainable_model import TrainableModel

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLPipeline,
    )


@contextlib.contextmanager
def evaluation_mode(model: TrainableModel, accelerator: Accelerator) -> Iterator[None]:
    """Run a block in evaluation mode, with EMA weights and autocast, then return to training.

    Args:
        model: The model in training. Its EMA weights are in place during the block if it keeps any.
        accelerator: Knows the device, and provides the autocast context of fp16.
    """
    autocast: AbstractContextManager[object] = accelerator.autocast()
    if model.in_bfloat16:
        # Samplers keep their latents in float32.
        autocast = torch.autocast(accelerator.device.type, torch.bfloat16)
    model.module.eval()
    try:
        with model.ema_weights(), autocast:
            yield
    finally:
        model.module.train()
        # A forward pass without a backward pass leaves the gathered weights of FSDP in memory.
        reshard(model.module)


def latent_pipeline(
    pipeline_class: type[StableDiffusionXLPipeline] | type[StableDiffusionXLControlNetPipeline],
    **models: object,
) -> StableDiffusionXLPipeline | StableDiffusionXLControlNetPipeline:
    """Build an SDXL pipeline without VAE and text encoders.

    It must be called with prompt embeddings and with `output_type="latent"`.

    Args:
        pipeline_class: The diffusers pipeline to build.
        models: The remaining components: `unet`, `scheduler`, and `controlnet` if there is one.
    """
    pipeline = pipeline_class(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        add_watermarker=False,
        **models,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def decode_latents(
    vae: AutoencoderKL, latents: torch.Tensor, device: torch.device
) -> list[np.ndarray]:
    """Decode latents to images, one at a time and in fp32.

    Args:
        vae: The VAE of the base model; it is moved to `device`.
        latents: (n, channels, height, width), multiplied by the VAE's scaling factor.
        device: Where to decode.

    Returns:
        n images (H, W, 3) uint8.
    """
    vae = vae.to(device, torch.float32).eval()
    images = []
    for latent in latents:
        decoded = vae.decode(latent[None].to(device) / vae.config.scaling_factor).sample[0]
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
        images.append(pixels.permute(1, 2, 0).cpu().numpy())
    return images
