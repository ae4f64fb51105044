"""Salt-and-pepper noise: single pixels far from all of their neighbours.

At face scale, a pixel counts if its brightness lies outside the range of its eight neighbours by more than 12 of 255. With p
the share of such pixels, score = exp(-p / 0.005): .37 at half a per cent.

Fails on: glitter and water drops (counted as noise), noise that a resize or JPEG has smeared over several pixels (missed).
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import at_face_scale
from authface_data.quality.luma import luma

VERSION = "2"
STEP, SHARE = 12.0, 0.005
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


def score(crop: np.ndarray) -> float:
    """0 (several per cent of the pixels are outliers) to 1 (none), of (H, H, 3) uint8."""
    import cv2

    brightness = luma(at_face_scale(crop))
    high, low = cv2.dilate(brightness, _NEIGHBOURS), cv2.erode(brightness, _NEIGHBOURS)
    outliers = (brightness > high + STEP) | (brightness < low - STEP)
    return float(np.exp(-outliers.mean() / SHARE))
