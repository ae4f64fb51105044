"""Gaussian noise: what is left in the calmest parts of the face when everything smooth is taken away.

After Immerkaer 1996 (Fast noise variance estimation): at face scale, the brightness is filtered by the difference of two
Laplacians, which leaves edges and slopes out; sigma = sqrt(pi / 2) * mean |response| / 6 in each square of 16 px that is
neither black nor white, and the lower quartile of the squares counts. score = exp(-sigma / 6): .43 at sigma 5, that is noise of
8 in every channel.

Fails on: fine regular texture over the whole face (a veil, freckles under hard light) counts as noise; noise that was averaged
away by shrinking the photograph is not seen, and rightly.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import at_face_scale, blocks
from authface_data.quality.luma import luma

VERSION = "1"
MARGIN, SIDE, FEWEST, SIGMA = 64, 16, 20, 6.0
_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


def score(crop: np.ndarray) -> float:
    """0 (nothing but noise) to 1 (none), of (H, H, 3) uint8."""
    import cv2

    brightness = luma(at_face_scale(crop))
    inner = slice(MARGIN, -MARGIN)
    response = blocks(cv2.filter2D(brightness, -1, _KERNEL)[inner, inner], SIDE)
    level = blocks(brightness[inner, inner], SIDE)
    usable = ((level > 8) & (level < 247)).mean((1, 2)) > 0.9
    sigma = np.sqrt(np.pi / 2) * np.abs(response).mean((1, 2))
    if usable.sum() >= FEWEST:
        sigma = sigma[usable]
    return float(np.exp(-np.percentile(sigma, 25) / SIGMA))
