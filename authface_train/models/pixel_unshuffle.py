"""Latents that lose nothing: each cell's pixels side by side. It stands where a VAE stands, and is not one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

NO_SPREAD = -30.0  # logarithm of the variance: what a VAE would draw from is a point


class PixelUnshuffle(ModelMixin, ConfigMixin):
    """Pictures (n, 3, h, w) to latents (n, 3 cell², h / cell, w / cell) and back: a rearrangement, so orthonormal and exact.

    Has what trainers and pipelines ask of an AutoencoderKL.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 48,
        block_out_channels: tuple[int, ...] = (1, 1, 1),
        scaling_factor: float = 1.0,
    ):
        """A VAE halves between its blocks: as many of them tell readers the same cell, here of 4 px."""
        super().__init__()
        self.cell_px = 2 ** (len(block_out_channels) - 1)
        self.nothing_learnt = torch.nn.Parameter(
            torch.zeros(1), requires_grad=False
        )  # devices and dtypes are asked of it

    @classmethod
    def is_in(cls, folder: str) -> bool:
        """Whether it is what a pipeline's folder has for a VAE."""
        config = Path(folder, "vae", "config.json")
        return (
            config.is_file() and json.loads(config.read_text()).get("_class_name") == cls.__name__
        )

    def encode(self, pictures: torch.Tensor) -> AutoencoderKLOutput:
        latents = F.pixel_unshuffle(pictures, self.cell_px)
        return AutoencoderKLOutput(
            latent_dist=DiagonalGaussianDistribution(
                torch.cat([latents, torch.full_like(latents, NO_SPREAD)], dim=1)
            )
        )

    def decode(
        self, latents: torch.Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[torch.Tensor]:
        pictures = F.pixel_shuffle(latents, self.cell_px)
        return DecoderOutput(sample=pictures) if return_dict else (pictures,)


# model_index.json of models saved by authface 0.1 names the module by its former path.
sys.modules.setdefault("authface_train.unshuffle", sys.modules[__name__])
