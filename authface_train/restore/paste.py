"""A restored face back into its photograph: the inverse of the alignment, through a soft mask."""

from __future__ import annotations

import numpy as np
from PIL import Image

from authface_data.faces.align import Quad

EDGE, FEATHER = (
    0.02,
    0.12,
)  # of the crop's side: what is left out at its edge, and how far the face fades in after that


def soft_mask(size_px: int) -> np.ndarray:
    """(size, size) float32: 0 at the edge of the crop, 1 within; smoothstep between."""
    inwards = (np.minimum(np.arange(size_px), np.arange(size_px)[::-1]) + 0.5) / size_px
    ramp = np.clip((inwards - EDGE) / FEATHER, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


def paste(
    photo: np.ndarray, quad: Quad, restored: np.ndarray
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The photograph (H, W, 3) uint8 with a crop (size, size, 3) uint8 laid over the quad that it was cut out of.

    Also the box that was touched: left, top, right, bottom, pixel edges. Outside it, and where the mask is 0, pixels are the
    photograph's own to the bit. Raises ValueError for a quad that lies off the photograph.
    """
    import cv2

    height, width = photo.shape[:2]
    low, high = (
        np.floor(quad.corners_px.min(0)).astype(int),
        np.ceil(quad.corners_px.max(0)).astype(int) + 1,
    )
    left, top, right, bottom = (
        max(low[0], 0),
        max(low[1], 0),
        min(high[0], width),
        min(high[1], height),
    )
    if left >= right or top >= bottom:
        raise ValueError("the face lies off the photograph")
    side = len(restored)
    if quad.size_px < side:  # brought down first: a warp alone would leave out pixels
        side = max(round(quad.size_px), 1)
        restored = np.asarray(
            Image.fromarray(restored).resize((side, side), Image.Resampling.LANCZOS)
        )
    north_west, south_west, _, north_east = quad.corners_px
    across, down = (north_east - north_west) / side, (south_west - north_west) / side
    # Crop pixel (u, v) has its centre at (u + .5, v + .5) of the quad.
    matrix = np.column_stack([across, down, north_west + 0.5 * (across + down) - (left, top)])
    size = (int(right - left), int(bottom - top))
    face = cv2.warpAffine(
        restored, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    mask = cv2.warpAffine(soft_mask(side), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)[
        ..., None
    ]
    pasted = photo.copy()
    under = pasted[top:bottom, left:right]
    blended = np.rint(under + (face.astype(np.float32) - under) * mask).astype(np.uint8)
    pasted[top:bottom, left:right] = np.where(mask > 0, blended, under)
    return pasted, (int(left), int(top), int(right), int(bottom))
