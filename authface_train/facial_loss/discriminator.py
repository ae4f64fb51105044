"""A small patch discriminator on latents whose layers also serve as features (after GFPGAN's facial discriminators)."""

from __future__ import annotations

import torch
from torch import nn


class PatchDiscriminator(nn.Module):
    """3x3 convolutions, one halving, LeakyReLU .2; features after the second and fourth level, logits averaged over the map.

    Plain convolutions: GFPGAN's equalised ones go with a learning rate of 2e-3, these with 1e-4.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.2))

        self.first = nn.Sequential(
            block(channels, width), block(width, 2 * width, stride=2), block(2 * width, 2 * width)
        )
        self.second = nn.Sequential(block(2 * width, 4 * width), block(4 * width, 4 * width))
        self.last = nn.Conv2d(4 * width, 1, 3, 1, 1)

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(n,) logits and the two feature maps of patches (n, channels, h, w)."""
        coarse = self.first(patches)
        fine = self.second(coarse)
        return self.last(fine).mean((1, 2, 3)), [coarse, fine]
