"""Blur by defocus, motion or upscaling: how much a further blur takes away.

After Crete et al. 2007 (The blur effect): the brightness is blurred with a box of nine pixels along each axis; a sharp
picture loses most of its differences between neighbours, a blurred one few. With D the differences of neighbours before and B
after, the share kept is 1 - sum(max(D - B, 0)) / sum(D), taken along both axes; score = 1 - the larger share.

Fails on: noise (counts as sharp), large even areas (little to go by), a sharp background behind a blurred face.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.luma import luma

VERSION = "1"
BOX = 9


def score(crop: np.ndarray) -> float:
    """0 (nothing but blur) to 1 (every difference is between neighbours), of (H, W, 3) uint8."""
    import cv2

    brightness = luma(crop)
    kept = []
    for axis, kernel in ((0, (1, BOX)), (1, (BOX, 1))):
        before = np.abs(np.diff(brightness, axis=axis))
        after = np.abs(np.diff(cv2.blur(brightness, kernel), axis=axis))
        total = float(before.sum())
        lost = float(np.maximum(before - after, 0).sum())
        kept.append(1.0 - lost / total if total > 0 else 1.0)
    return 1.0 - max(kept)
