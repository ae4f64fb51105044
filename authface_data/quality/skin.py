"""Over-smoothed skin: retouched, beautified or heavily denoised, so that pores are gone and only shading is left.

At face scale, on patches of cheeks and forehead: the fine texture F is the brightness between Gaussians of sigma .7 and 1.4 px,
the coarse one C between 3 and 6 px, both as the median of absolute values. Smoothing takes the fine one away first, whatever
the light and however fine the skin, so their ratio tells: r = ln((F + .05) / (C + .3)), the median of the patches. score is .5
at r = -2.05, and goes to 0 below it and 1 above.

Fails on: defocus, which takes fine texture away as well (`sharpness` tells the two apart); noise added after retouching (counts
as texture); beards, fringes and glasses over most patches (counts as texture).
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import at_face_scale, rising, skin_patches
from authface_data.quality.luma import luma

VERSION = "1"
MIDDLE, WIDTH = -2.05, 0.12


def score(crop: np.ndarray) -> float:
    """0 (as if painted) to 1 (pores and fine hair), of (H, H, 3) uint8."""
    import cv2

    brightness = luma(at_face_scale(crop))

    def between(fine: float, coarse: float) -> np.ndarray:
        return np.abs(
            cv2.GaussianBlur(brightness, (0, 0), fine)
            - cv2.GaussianBlur(brightness, (0, 0), coarse)
        )

    patches = zip(skin_patches(between(0.7, 1.4)), skin_patches(between(3, 6)), strict=True)
    ratios = [(np.median(fine) + 0.05) / (np.median(coarse) + 0.3) for fine, coarse in patches]
    return rising(float(np.log(np.median(ratios))), MIDDLE, WIDTH)
