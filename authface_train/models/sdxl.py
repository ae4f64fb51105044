"""Base models: SDXL from a folder or the hub, or a tiny random SDXL built from configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from authface_train.models.loading import load_checked, try_parts

# diffusers finds the class of a saved PixelUnshuffle only if its module is imported already.
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from manifests.support import hub
from manifests.support.clip_tokens import clip_vocabulary

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        SchedulerMixin,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

TINY = "tiny"
"""Name of the random model in the setting `base`."""

PIPELINE_FILES = (
    "model_index.json and the folders unet, vae, text_encoder, text_encoder_2, tokenizer, "
    "tokenizer_2, scheduler"
)


@dataclass(frozen=True)
class DiffusionCore:
    """The parts of SDXL that training needs once latents and prompts are cached."""

    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    scaling_factor: float
    """`vae.config.scaling_factor`."""
    vae_scale_factor: int
    """Side of a latent cell, in pixels."""


def vae_scale_factor(pipeline: StableDiffusionXLPipeline) -> int:
    """Side of a latent cell in pixels, 8 for SDXL."""
    return 2 ** (len(pipeline.vae.config.block_out_channels) - 1)


def hint_channels(cell_px: int) -> tuple[int, ...]:
    """Channels of a ControlNet's hint network, which halves the picture between them.

    Args:
        cell_px: Side of a latent cell in pixels, a power of two up to 8.

    Returns:
        diffusers' default for SDXL's cells of 8 px, fewer for smaller cells.
    """
    return (16, 32, 96, 256)[: cell_px.bit_length()]


def detach_core(pipeline: StableDiffusionXLPipeline) -> DiffusionCore:
    """Take the core out of a pipeline and free its VAE and text encoders.

    Args:
        pipeline: The pipeline; it cannot encode or decode afterwards.
    """
    core = DiffusionCore(
        unet=pipeline.unet,
        scheduler=pipeline.scheduler,
        scaling_factor=float(pipeline.vae.config.scaling_factor),
        vae_scale_factor=vae_scale_factor(pipeline),
    )
    pipeline.vae = None
    pipeline.text_encoder = None
    pipeline.text_encoder_2 = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return core


def load_base(base: str, weights_dir: str | None, seed: int) -> StableDiffusionXLPipeline:
    """Load a base model in fp32 on the CPU.

    Args:
        base: Hub id or folder; `tiny` builds a random model.
        weights_dir: Folder that is searched for models before the hub.
        seed: Seed of the random model.

    Raises:
        MissingResourceError: If the weights are neither on disk nor downloadable.
    """
    if base == TINY:
        return tiny_sdxl(seed)
    from diffusers import StableDiffusionXLPipeline

    model = hub.resolve_model(base, weights_dir)
    try:
        pipeline = load_checked(
            lambda: StableDiffusionXLPipeline.from_pretrained(
                model, dtype=torch.float32, use_safetensors=True
            ),
            model,
        )
    except OSError as error:
        raise hub.missing_model_error(base, PIPELINE_FILES, weights_dir, error) from error
    try_parts(pipeline, model)
    return pipeline


def load_vae(base: str, weights_dir: str | None, seed: int) -> AutoencoderKL | PixelUnshuffle:
    """Load the VAE of a base model in fp32 on the CPU.

    Args:
        base: Hub id or folder; `tiny` builds a random model.
        weights_dir: Folder that is searched for models before the hub.
        seed: Seed of the random model.
    """
    if base == TINY:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _tiny_vae()
    from diffusers import AutoencoderKL

    model = hub.resolve_model(base, weights_dir)
    vae_class = PixelUnshuffle if PixelUnshuffle.is_vae_of(model) else AutoencoderKL
    try:
        return load_checked(
            lambda: vae_class.from_pretrained(model, subfolder="vae", dtype=torch.float32), model
        )
    except OSError as error:
        raise hub.missing_model_error(base, "the folder vae", weights_dir, error) from error


def tiny_sdxl(seed: int) -> StableDiffusionXLPipeline:
    """Build SDXL's classes with a few hundred thousand random weights. Its pictures are noise.

    Args:
        seed: Seed of the weights; the global generator is restored.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    text_config: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "projection_dim": 32,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    vocabulary, merges = clip_vocabulary()
    tokenizer_config: dict[str, Any] = {
        "vocab": vocabulary,
        "merges": merges,
        "model_max_length": 77,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The VAE comes first, so that `load_vae` gives the same weights without the other models.
        return StableDiffusionXLPipeline(
            vae=_tiny_vae(),
            text_encoder=CLIPTextModel(CLIPTextConfig(**text_config)),
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text_config)),
            tokenizer=CLIPTokenizer(**tokenizer_config),
            tokenizer_2=CLIPTokenizer(**tokenizer_config, pad_token="!"),
            unet=UNet2DConditionModel(
                sample_size=16,
                block_out_channels=(32, 64),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                norm_num_groups=8,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=80,
                cross_attention_dim=64,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                steps_offset=1,
                timestep_spacing="leading",
            ),
        )


def _tiny_vae() -> AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=128,
        scaling_factor=0.13025,
    )
