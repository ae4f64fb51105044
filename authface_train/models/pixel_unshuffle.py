"""A lossless replacement for a VAE: a latent cell holds the pixels of a square of the picture."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from manifests.support.model_folder import ADVICE
from manifests.support.parsing import read_json_object

LOG_VARIANCE = -30.0
"""Log variance of the posterior: small enough that every sample equals the mean."""


class PixelUnshuffle(ModelMixin, ConfigMixin):
    """Rearranges pictures (n, 3, h, w) to latents (n, 3 cell^2, h / cell, w / cell) and back.

    The rearrangement is orthonormal and exact. The class has the part of the interface of
    `AutoencoderKL` that trainers and pipelines use.

    Args:
        latent_channels: Channels of the latents.
        block_out_channels: Their number gives the side of a cell, as in a VAE that halves between
            its blocks: 2^(blocks - 1), 4 px by default.
        scaling_factor: Factor that trainers and pipelines apply to the latents.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 48,
        block_out_channels: tuple[int, ...] = (1, 1, 1),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.cell_px = 2 ** (len(block_out_channels) - 1)
        # Callers read the model's device and dtype from its parameters.
        self.nothing_learnt = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    @classmethod
    def is_vae_of(cls, folder: str) -> bool:
        """Whether the VAE of a saved pipeline is of this class."""
        config = Path(folder, "vae", "config.json")
        if not config.is_file():
            return False
        return read_json_object(config, ADVICE).get("_class_name") == cls.__name__

    def encode(self, images: torch.Tensor) -> AutoencoderKLOutput:
        """Encode pictures.

        Args:
            images: (n, 3, height, width), usually in [-1, 1].

        Returns:
            A posterior over (n, 3 cell^2, height / cell, width / cell) with almost no variance.
        """
        latents = F.pixel_unshuffle(images, self.cell_px)
        parameters = torch.cat([latents, torch.full_like(latents, LOG_VARIANCE)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(parameters))

    def decode(
        self, latents: torch.Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Decode latents.

        Args:
            latents: (n, 3 cell^2, h, w).
            return_dict: Whether to return a `DecoderOutput`, else a tuple.

        Returns:
            Pictures (n, 3, h * cell, w * cell).
        """
        images = F.pixel_shuffle(latents, self.cell_px)
        return DecoderOutput(sample=images) if return_dict else (images,)


# The model_index.json of models saved by authface 0.1 names this module by its former path.
sys.modules.setdefault("authface_train.unshuffle", sys.modules[__name__])
