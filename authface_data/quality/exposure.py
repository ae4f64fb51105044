"""Clipped highlights and shadows on the face.

Looks at the middle of the crop, where the face is (FFHQ's alignment: the central 60 % of both sides). A pixel is clipped if any
channel is at least 254, or all are at most 2. With p the share of such pixels, score = 1 - min(p / 0.5, 1).

Fails on: saturated make-up and neon light (one channel clips without loss of detail), black hair falling over the face.
"""

from __future__ import annotations

import numpy as np

VERSION = "1"
MARGIN, WORST_SHARE = 0.2, 0.5


def score(crop: np.ndarray) -> float:
    """0 (half of the face or more is clipped) to 1 (nothing is), of (H, W, 3) uint8."""
    height, width = crop.shape[:2]
    top, left = int(height * MARGIN), int(width * MARGIN)
    face = crop[top : height - top, left : width - left]
    clipped = (face >= 254).any(-1) | (face <= 2).all(-1)
    return 1.0 - min(float(clipped.mean()) / WORST_SHARE, 1.0)
