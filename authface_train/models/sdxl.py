"""SDXL to start from: the real one from a folder or the hub, or a tiny random one built from configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from authface_train.models.pixel_unshuffle import (
    PixelUnshuffle,  # diffusers loads a class that is no part of it only when it is there
)
from manifests.support import hub
from manifests.support.clip_tokens import clip_vocabulary

TINY = "tiny"


@dataclass(frozen=True)
class DiffusionCore:
    """What is left of an SDXL when latents and prompts are cached. vae_scale_factor: side of a latent cell in pixels."""

    unet: Any
    scheduler: Any
    scaling_factor: float
    vae_scale_factor: int


def vae_scale_factor(pipeline: Any) -> int:
    """Side of a latent cell in pixels: 8 for SDXL."""
    return 2 ** (len(pipeline.vae.config.block_out_channels) - 1)


def hint_channels(cell_px: int) -> tuple[int, ...]:
    """Of a ControlNet's hint network, which halves between them: diffusers' own for SDXL's cells of 8 px, fewer for smaller."""
    return (16, 32, 96, 256)[: cell_px.bit_length()]


def detach_core(pipeline: Any) -> DiffusionCore:
    """The core of a pipeline, which goes without the rest from now on: memory of VAE and text encoders is free again."""
    core = DiffusionCore(
        pipeline.unet,
        pipeline.scheduler,
        float(pipeline.vae.config.scaling_factor),
        vae_scale_factor(pipeline),
    )
    pipeline.vae = pipeline.text_encoder = pipeline.text_encoder_2 = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return core


def load_base(base: str, weights_dir: str | None, seed: int) -> Any:
    """A StableDiffusionXLPipeline in fp32 on the CPU. Raises MissingResourceError where the weights cannot be had."""
    if base == TINY:
        return tiny_sdxl(seed)
    from diffusers import StableDiffusionXLPipeline

    where = hub.locate(base, weights_dir)
    try:
        return StableDiffusionXLPipeline.from_pretrained(
            where, dtype=torch.float32, use_safetensors=True
        )
    except OSError as error:
        files = "model_index.json and the folders unet, vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, scheduler"
        raise hub.missing(base, files, weights_dir, error) from error


def load_vae(base: str, weights_dir: str | None, seed: int) -> Any:
    """The VAE alone of what `load_base` gives."""
    if base == TINY:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _tiny_vae()
    from diffusers import AutoencoderKL

    where = hub.locate(base, weights_dir)
    kind = PixelUnshuffle if PixelUnshuffle.is_in(where) else AutoencoderKL
    return kind.from_pretrained(where, subfolder="vae", dtype=torch.float32)


def _tiny_vae() -> Any:
    """The first of the tiny models that is made, so that it is the same without the others."""
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


def tiny_sdxl(seed: int) -> Any:
    """The real classes with a few hundred thousand random weights. It has learnt nothing; it makes noise."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    text: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "projection_dim": 32,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    vocabulary, merges = clip_vocabulary()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StableDiffusionXLPipeline(
            vae=_tiny_vae(),
            text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text)),
            tokenizer=CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77),
            tokenizer_2=CLIPTokenizer(
                vocab=vocabulary, merges=merges, model_max_length=77, pad_token="!"
            ),
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
