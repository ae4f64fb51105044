"""Over-smoothed skin: retouched, beautified or denoised until only the shading remains.

It uses patches of cheeks and forehead at face scale. The fine texture F is the luma between
Gaussians of sigma 0.7 and 1.4 px, the coarse texture C between 3 and 6 px, both as the median of
absolute values. Smoothing removes the fine texture first, in any light and on any skin, so their
ratio is used: r = ln((F + 0.05) / (C + 0.3)), the median over the patches. The score is a logistic
function of r, 0.5 at r = -2.05.

Fails on: defocus, which also removes fine texture (compare `sharpness`); noise added after
retouching, and beards, fringes and glasses over most patches (count as texture).
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale, sigmoid, skin_patches

VERSION = "1"
FINE_SIGMAS_PX = (0.7, 1.4)
COARSE_SIGMAS_PX = (3, 6)
MIDPOINT = -2.05
WIDTH = 0.12


def score(crop: np.ndarray) -> float:
    """Measure the texture of the skin.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (as if painted) to 1 (pores and fine hair).
    """
    luma_plane = luma(resize_to_face_scale(crop))
    fine_patches = skin_patches(_band_magnitude(luma_plane, *FINE_SIGMAS_PX))
    coarse_patches = skin_patches(_band_magnitude(luma_plane, *COARSE_SIGMAS_PX))
    ratios = []
    for fine, coarse in zip(fine_patches, coarse_patches, strict=True):
        ratios.append((np.median(fine) + 0.05) / (np.median(coarse) + 0.3))
    return sigmoid(float(np.log(np.median(ratios))), MIDPOINT, WIDTH)


def _band_magnitude(
    luma_plane: np.ndarray, small_sigma_px: float, large_sigma_px: float
) -> np.ndarray:
    """Return the absolute difference of two Gaussian blurs."""
    import cv2

    small = cv2.GaussianBlur(luma_plane, (0, 0), small_sigma_px)
    large = cv2.GaussianBlur(luma_plane, (0, 0), large_sigma_px)
    return np.abs(small - large)
