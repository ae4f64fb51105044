"""Boxes of eyes and mouth on latents, and the patches under them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

LEFT_EYE, RIGHT_EYE, MOUTH = 0, 1, 2
COLUMNS = ("left_eye", "right_eye", "mouth")


def flip_boxes(
    boxes_px: torch.Tensor, visible: torch.Tensor, size_px: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (3, 4) as edges and visibility (3,) of the mirrored picture: x0' = W - x1, x1' = W - x0, the eyes change places."""
    x0, y0, x1, y1 = boxes_px.unbind(-1)
    mirrored = torch.stack([size_px - x1, y0, size_px - x0, y1], dim=-1)
    order = [RIGHT_EYE, LEFT_EYE, MOUTH]
    return mirrored[order], visible[order]


@dataclass(frozen=True)
class Patches:
    """pixels: (n, channels, cells, cells); sample: (n,) which sample of the batch each comes from."""

    pixels: torch.Tensor
    sample: torch.Tensor


def cut(
    latents: torch.Tensor,
    boxes_px: torch.Tensor,
    visible: torch.Tensor,
    cells: tuple[int, int],
    vae_scale_factor: int,
) -> tuple[Patches, Patches]:
    """(eyes, mouths) of latents (b, c, h, w), given boxes (b, 3, 4) in pixel edges and visible (b, 3) bool.

    Right eyes are mirrored, so that one discriminator sees one kind of eye. Left eyes come before right eyes.
    """
    from torchvision.ops import roi_align

    def region(index: int, side: int) -> Patches:
        sample = torch.nonzero(visible[:, index]).flatten()
        rois = torch.cat(
            [sample[:, None].to(latents.dtype), boxes_px[sample, index].to(latents.dtype)], dim=1
        )
        pixels = roi_align(
            latents, rois, side, spatial_scale=1 / vae_scale_factor, sampling_ratio=2, aligned=True
        )
        return Patches(pixels, sample)

    left, right, mouth = (
        region(LEFT_EYE, cells[0]),
        region(RIGHT_EYE, cells[0]),
        region(MOUTH, cells[1]),
    )
    eyes = Patches(
        torch.cat([left.pixels, right.pixels.flip(-1)]), torch.cat([left.sample, right.sample])
    )
    return eyes, mouth
