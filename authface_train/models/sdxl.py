"""Base models: SDXL from a folder, a single file or the hub, or a tiny random SDXL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from authface_train.models.base_check import check_base
from authface_train.models.loading import clip_tokenizer, load_part, load_parts
from authface_train.models.pixel_unshuffle import PixelUnshuffle
from authface_train.models.sdxl_config import (
    PIPELINE_FILES,
    TINY,
    TINY_CONFIGURATION,
    Configuration,
    arguments,
)
from authface_train.models.single_file_check import is_untrained_file
from authface_train.models.single_file_loading import load_single_file, load_single_file_vae
from manifests.run_folder import MODEL_INDEX_FILE, read_notes
from manifests.support import hub

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        SchedulerMixin,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


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


def load_base(
    base: str, weights_dir: str | None, seed: int, *, unet_as_stored: bool = False
) -> StableDiffusionXLPipeline:
    """Load a base model in fp32 on the CPU.

    Args:
        base: Hub id, folder or .safetensors file; `tiny` builds a random model.
        weights_dir: Folder that is searched for models before the hub.
        seed: Seed of the random model.
        unet_as_stored: Load the U-Net in the dtype of its file, see `load_part`.

    Raises:
        UserError: If the base is damaged or cannot be trained; see `check_base`.
        MissingResourceError: If the weights are neither on disk nor downloadable.
    """
    if base == TINY:
        return tiny_sdxl(seed)
    from diffusers import StableDiffusionXLPipeline

    check_base(base, weights_dir)
    model = _local_model(base, weights_dir)
    if model.is_file():
        return load_single_file(model, unet_as_stored=unet_as_stored)
    parts = load_parts(model, torch.float32, unet_as_stored=unet_as_stored)
    return StableDiffusionXLPipeline(**parts)


def load_vae(base: str, weights_dir: str | None, seed: int) -> AutoencoderKL | PixelUnshuffle:
    """Load the VAE of a base model in fp32 on the CPU.

    Args:
        base: Hub id, folder or .safetensors file; `tiny` builds a random model.
        weights_dir: Folder that is searched for models before the hub.
        seed: Seed of the random model.

    Raises:
        UserError: If the VAE is missing or damaged.
        MissingResourceError: If the weights are neither on disk nor downloadable.
    """
    if base == TINY:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _random_vae(TINY_CONFIGURATION)
    model = _local_model(base, weights_dir)
    if model.is_file():
        return load_single_file_vae(model)
    return load_part(model, "vae", torch.float32)


def is_untrained(base: str) -> bool:
    """Whether a base has random weights: `tiny`, and what is trained from it."""
    path = Path(base)
    if base == TINY or not path.is_file():
        return base == TINY or bool(read_notes(path).get("untrained"))
    return is_untrained_file(path)


def _local_model(base: str, weights_dir: str | None) -> Path:
    """The folder or file of a base, downloaded from the hub if necessary."""
    path = Path(hub.resolve_model(base, weights_dir, allow_file=True))
    if path.exists():
        return path
    from diffusers import StableDiffusionXLPipeline

    with hub.explain_download(base, PIPELINE_FILES, weights_dir):
        folder = Path(StableDiffusionXLPipeline.download(base))
        if not any((folder / "unet").glob("*.safetensors")):
            folder = Path(StableDiffusionXLPipeline.download(base, variant="fp16"))
        return folder


def tiny_sdxl(seed: int) -> StableDiffusionXLPipeline:
    """Build SDXL's classes with a few hundred thousand random weights. Its pictures are noise.

    Args:
        seed: Seed of the weights; the global generator is restored.
    """
    return random_sdxl(TINY_CONFIGURATION, seed)


def random_sdxl(configuration: Configuration, seed: int) -> StableDiffusionXLPipeline:
    """Build SDXL's classes with random weights in torch's default dtype.

    Args:
        configuration: Configurations of the networks and the scheduler.
        seed: Seed of the weights; the global generator is restored.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    text_config, text_config_2 = (
        CLIPTextConfig(**arguments(configuration, name)) for name in TEXT_ENCODERS
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The VAE comes first, so that `load_vae` gives the same weights without the other models.
        return StableDiffusionXLPipeline(
            vae=_random_vae(configuration),
            text_encoder=CLIPTextModel(text_config),
            text_encoder_2=CLIPTextModelWithProjection(text_config_2),
            tokenizer=clip_tokenizer("tokenizer"),
            tokenizer_2=clip_tokenizer("tokenizer_2"),
            unet=UNet2DConditionModel(**arguments(configuration, "unet")),
            scheduler=EulerDiscreteScheduler(**arguments(configuration, "scheduler")),
        )


@dataclass(frozen=True)
class MetaNetworks:
    """Networks of SDXL without weights, on torch's meta device."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[torch.nn.Module, ...]

    @property
    def vae_scale_factor(self) -> int:
        """Side of a latent cell in pixels, 8 for SDXL."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)


def meta_networks(configuration: Configuration) -> MetaNetworks:
    """Build SDXL's networks from a configuration, without memory for weights.

    Args:
        configuration: Configurations of the networks.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    text_config, text_config_2 = (
        CLIPTextConfig(**arguments(configuration, name)) for name in TEXT_ENCODERS
    )
    with torch.device("meta"):
        return MetaNetworks(
            unet=UNet2DConditionModel(**arguments(configuration, "unet")),
            vae=_random_vae(configuration),
            text_encoders=(
                CLIPTextModel(text_config),
                CLIPTextModelWithProjection(text_config_2),
            ),
        )


def is_on_this_machine(base: str, weights_dir: str | None) -> bool:
    """Whether a base needs no download. Nothing is downloaded.

    Args:
        base: Hub id, folder or .safetensors file; `tiny` is always there.
        weights_dir: Folder that is searched for models before the hub.

    Raises:
        UserError: If `base` is neither on the disk nor a possible hub id.
    """
    if base == TINY or Path(hub.resolve_model(base, weights_dir, allow_file=True)).exists():
        return True
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(base, MODEL_INDEX_FILE)
    return isinstance(index, str) and any(Path(index).parent.glob("unet/*.safetensors"))


def _random_vae(configuration: Configuration) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**arguments(configuration, "vae"))
