"""Pastes a restored face back into its photograph through a soft mask."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from authface_data.faces.align import Quad

EDGE_FRACTION = 0.02
"""Margin of the crop that is not pasted, as a fraction of its side."""
FEATHER_FRACTION = 0.12
"""Width of the band inside the margin over which the face fades in, as a fraction of the side."""


def soft_mask(size_px: int) -> np.ndarray:
    """Blending weights of a square crop: 0 at the margin, 1 inside, smoothstep between.

    Returns:
        (size_px, size_px) float32 in [0, 1].
    """
    distance_to_edge = (np.minimum(np.arange(size_px), np.arange(size_px)[::-1]) + 0.5) / size_px
    ramp = np.clip((distance_to_edge - EDGE_FRACTION) / FEATHER_FRACTION, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


def paste_face(
    photo: np.ndarray, quad: Quad, restored: np.ndarray
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Blend a restored crop into the photograph that it was cut out of.

    Args:
        photo: (height, width, 3) uint8 RGB.
        quad: The square of the photograph that the crop was cut out of.
        restored: (size, size, 3) uint8 RGB.

    Returns:
        The changed photograph, and the box (left, top, right, bottom) in pixel edges that contains
        every changed pixel. Pixels outside the box, and those where the mask is 0, are kept.

    Raises:
        ValueError: If the quad lies outside the photograph.
    """
    height, width = photo.shape[:2]
    low = np.floor(quad.corners_px.min(0)).astype(int)
    high = np.ceil(quad.corners_px.max(0)).astype(int) + 1
    left, top = max(low[0], 0), max(low[1], 0)
    right, bottom = min(high[0], width), min(high[1], height)
    if left >= right or top >= bottom:
        raise ValueError("the face lies outside the photograph")

    side = len(restored)
    if quad.size_px < side:
        # Reduced with a proper filter first: the warp alone would skip pixels and alias.
        side = max(round(quad.size_px), 1)
        reduced = Image.fromarray(restored).resize((side, side), Image.Resampling.LANCZOS)
        restored = np.asarray(reduced)

    north_west, south_west, _, north_east = quad.corners_px
    across = (north_east - north_west) / side
    down = (south_west - north_west) / side
    # The centre of crop pixel (u, v) lies at (u + 0.5, v + 0.5) of the quad.
    matrix = np.column_stack([across, down, north_west + 0.5 * (across + down) - (left, top)])
    size = (int(right - left), int(bottom - top))
    face = cv2.warpAffine(
        restored, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    mask = cv2.warpAffine(soft_mask(side), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
    mask = mask[..., None]

    pasted = photo.copy()
    background = pasted[top:bottom, left:right]
    blended = background + (face.astype(np.float32) - background) * mask
    blended = np.rint(blended).astype(np.uint8)
    pasted[top:bottom, left:right] = np.where(mask > 0, blended, background)
    return pasted, (int(left), int(top), int(right), int(bottom))
