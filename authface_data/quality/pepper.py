"""Salt-and-pepper noise: single pixels that differ strongly from all of their neighbours.

At face scale, a pixel is an outlier if its luma lies outside the range of its eight neighbours by
more than 12 of 255. With the share p of outliers, the score is exp(-p / 0.005): 0.37 at half a per
cent.

Fails on: glitter and water drops (count as noise), and noise that resizing or JPEG compression has
spread over several pixels (is missed).
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale

VERSION = "2"
MIN_STEP = 12.0
"""Smallest distance of an outlier from the range of its neighbours, in luma levels."""
SHARE_SCALE = 0.005
"""Share of outliers at which the score is 1/e."""
NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


def score(crop: np.ndarray) -> float:
    """Measure salt-and-pepper noise.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (several per cent of the pixels are outliers) to 1 (no outliers).
    """
    import cv2

    luma_plane = luma(resize_to_face_scale(crop))
    highest = cv2.dilate(luma_plane, NEIGHBOURS)
    lowest = cv2.erode(luma_plane, NEIGHBOURS)
    is_outlier = (luma_plane > highest + MIN_STEP) | (luma_plane < lowest - MIN_STEP)
    return float(np.exp(-is_outlier.mean() / SHARE_SCALE))
