"""Gaussian noise: what remains in the calmest parts of the face without edges and slopes.

After Immerkaer 1996, "Fast Noise Variance Estimation": the luma at face scale is filtered by the
difference of two Laplacians, which suppresses edges and slopes. In each block of 16 px that is
neither black nor white, sigma = sqrt(pi / 2) * mean |response| / 6. With the lower quartile of
sigma over the blocks, the score is exp(-sigma / 6): 0.43 at sigma 5, which is noise of sigma 8 in
every channel.

Fails on: fine regular texture over the whole face, such as a veil or freckles in hard light
(counts as noise). Noise that was averaged away by reducing the photograph is not detected, as it
is not visible.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale, split_into_blocks

VERSION = "1"
MARGIN_PX = 64
BLOCK_SIDE_PX = 16
MIN_BLOCKS = 20
"""With fewer usable blocks, all blocks are used."""
SIGMA_SCALE = 6.0
"""Sigma at which the score is 1/e, in luma levels."""
KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


def score(crop: np.ndarray) -> float:
    """Measure noise.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (strong noise) to 1 (no noise).
    """
    import cv2

    luma_plane = luma(resize_to_face_scale(crop))
    inner = slice(MARGIN_PX, -MARGIN_PX)
    filtered = cv2.filter2D(luma_plane, -1, KERNEL)
    responses = split_into_blocks(filtered[inner, inner], BLOCK_SIDE_PX)
    levels = split_into_blocks(luma_plane[inner, inner], BLOCK_SIDE_PX)

    is_usable = ((levels > 8) & (levels < 247)).mean((1, 2)) > 0.9
    sigma = np.sqrt(np.pi / 2) * np.abs(responses).mean((1, 2))
    if is_usable.sum() >= MIN_BLOCKS:
        sigma = sigma[is_usable]
    return float(np.exp(-np.percentile(sigma, 25) / SIGMA_SCALE))
