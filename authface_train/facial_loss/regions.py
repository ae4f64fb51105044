"""Boxes of eyes and mouth on latents, and the patches inside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

REGIONS = ("left_eye", "right_eye", "mouth")
"""The regions in the order of every box tensor; left and right as seen in the picture."""
LEFT_EYE, RIGHT_EYE, MOUTH = range(3)


@dataclass(frozen=True)
class Patches:
    """Patches of one kind of region, from all samples of a batch."""

    latents: torch.Tensor
    """(n, channels, cells, cells)."""
    sample_index: torch.Tensor
    """(n,) int64: the sample of the batch that each patch comes from."""


def flip_boxes(
    boxes_px: torch.Tensor, visible: torch.Tensor, width_px: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror the boxes of a picture: x0' = width - x1, x1' = width - x0; the eyes change places.

    Args:
        boxes_px: (3, 4) box edges x0, y0, x1, y1 in pixels, see `REGIONS`.
        visible: (3,) bool.
        width_px: Width of the picture.

    Returns:
        The boxes and the visibility of the mirrored picture.
    """
    x0, y0, x1, y1 = boxes_px.unbind(-1)
    mirrored = torch.stack([width_px - x1, y0, width_px - x0, y1], dim=-1)
    order = [RIGHT_EYE, LEFT_EYE, MOUTH]
    return mirrored[order], visible[order]


def cut_patches(
    latents: torch.Tensor,
    boxes_px: torch.Tensor,
    visible: torch.Tensor,
    *,
    eye_cells: int,
    mouth_cells: int,
    vae_scale_factor: int,
) -> tuple[Patches, Patches]:
    """Cut the visible eyes and mouths out of latents.

    Right eyes are mirrored, so that one discriminator sees one kind of eye.

    Args:
        latents: (batch, channels, height, width).
        boxes_px: (batch, 3, 4) box edges in pixels on the CPU, see `REGIONS`.
        visible: (batch, 3) bool on the CPU; invisible regions give no patch.
        eye_cells: Side of an eye patch, in latent cells.
        mouth_cells: Side of a mouth patch, in latent cells.
        vae_scale_factor: Side of a latent cell, in pixels.

    Returns:
        The eyes, all left ones before all right ones, and the mouths.
    """
    from torchvision.ops import roi_align

    def cut_region(region: int, cells: int) -> Patches:
        sample_index = torch.nonzero(visible[:, region]).flatten()
        boxes = torch.cat([sample_index[:, None], boxes_px[sample_index, region]], dim=1)
        patches = roi_align(
            latents,
            boxes.to(latents, non_blocking=True),
            cells,
            spatial_scale=1 / vae_scale_factor,
            sampling_ratio=2,
            aligned=True,
        )
        return Patches(patches, sample_index.to(latents.device, non_blocking=True))

    left_eyes = cut_region(LEFT_EYE, eye_cells)
    right_eyes = cut_region(RIGHT_EYE, eye_cells)
    mouths = cut_region(MOUTH, mouth_cells)
    eyes = Patches(
        latents=torch.cat([left_eyes.latents, right_eyes.latents.flip(-1)]),
        sample_index=torch.cat([left_eyes.sample_index, right_eyes.sample_index]),
    )
    return eyes, mouths
