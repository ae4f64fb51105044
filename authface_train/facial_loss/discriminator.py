"""Patch discriminators on latents; their hidden layers are the features of the style term."""

from __future__ import annotations

import torch
from torch import nn

TIMESTEP_FREQUENCIES = 32
"""Sines, and as many cosines, that a timestep is encoded with."""


class PatchDiscriminator(nn.Module):
    """A small convolutional discriminator, adapted from GFPGAN's facial component discriminators.

    It has 3x3 convolutions with LeakyReLU 0.2 and halves the patch once, where GFPGAN halves twice:
    a patch of latents is an eighth of the size. The convolutions are plain; GFPGAN's are equalised
    and go with a higher learning rate (2e-3 instead of 1e-4).

    Args:
        channels: Channels of the latents.
        width: Channels of the first layer.
        timestep_conditioning: Whether it is conditioned on the timestep of the prediction, as the
            discriminator of denoising diffusion GANs is (Xiao et al. 2022): an embedding of the
            timestep is added to the early features.
    """

    def __init__(self, channels: int, width: int, timestep_conditioning: bool = False) -> None:
        super().__init__()

        def block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
            return nn.Sequential(convolution, nn.LeakyReLU(0.2))

        self.first = nn.Sequential(
            block(channels, width), block(width, 2 * width, stride=2), block(2 * width, 2 * width)
        )
        self.second = nn.Sequential(block(2 * width, 4 * width), block(4 * width, 4 * width))
        self.last = nn.Conv2d(4 * width, 1, 3, 1, 1)
        self.time_embedding: nn.Sequential | None = None
        if timestep_conditioning:
            # What is created afterwards gets the same initial weights with and without it.
            with torch.random.fork_rng(devices=[]):
                self.time_embedding = nn.Sequential(
                    nn.Linear(2 * TIMESTEP_FREQUENCIES, 2 * width),
                    nn.SiLU(),
                    nn.Linear(2 * width, 2 * width),
                )
            # At first the timestep changes nothing.
            for parameter in self.time_embedding[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, patches: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Classify patches as real or generated.

        Args:
            patches: (n, channels, height, width).
            timesteps: (n,) int64, of the predictions that the patches belong to.

        Returns:
            (n,) logits, averaged over the map, positive for real; and the feature maps
            (n, 2 * width, height / 2, width / 2) and (n, 4 * width, height / 2, width / 2).
        """
        early_features = self.first(patches)
        if self.time_embedding is not None:
            from diffusers.models.embeddings import get_timestep_embedding

            encoding = get_timestep_embedding(timesteps, 2 * TIMESTEP_FREQUENCIES)
            early_features = early_features + self.time_embedding(encoding)[:, :, None, None]
        late_features = self.second(early_features)
        logits = self.last(late_features).mean((1, 2, 3))
        return logits, [early_features, late_features]
