"""Salt-and-pepper noise: single pixels far from all of their neighbours.

A pixel counts if it lies outside the range of its eight neighbours by more than 24 of 255, in brightness. With p the share of
such pixels, score = 1 - min(p / 0.005, 1). Half a per cent of corrupted pixels is the worst there is.

Fails on: glitter and water drops (counted as noise), noise that a resize or JPEG has smeared over several pixels (missed).
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.luma import luma

VERSION = "1"
STEP, WORST_SHARE = 24.0, 0.005
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


def score(crop: np.ndarray) -> float:
    """0 (half a per cent or more of the pixels are outliers) to 1 (none), of (H, W, 3) uint8."""
    import cv2

    brightness = luma(crop)
    high, low = cv2.dilate(brightness, _NEIGHBOURS), cv2.erode(brightness, _NEIGHBOURS)
    outliers = (brightness > high + STEP) | (brightness < low - STEP)
    return 1.0 - min(float(outliers.mean()) / WORST_SHARE, 1.0)
