"""Clipped highlights and shadows on the face.

At face scale, in an oval around eyes, nose and mouth. A pixel is clipped if any channel is at least 253, or all are at most 3.
With p the share of such pixels, score = exp(-p / 0.15): .37 where 15 % of the face are gone.

Fails on: saturated make-up and neon light (one channel clips without loss of detail), black hair falling over the face.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import SIZE_PX, at_face_scale

VERSION = "2"
CENTRE, HALF, SHARE = (0.5, 0.58), (0.22, 0.30), 0.15


def score(crop: np.ndarray) -> float:
    """0 (half of the face is clipped) to 1 (nothing is), of (H, H, 3) uint8."""
    rows, columns = (np.mgrid[:SIZE_PX, :SIZE_PX] + 0.5) / SIZE_PX
    oval = ((columns - CENTRE[0]) / HALF[0]) ** 2 + ((rows - CENTRE[1]) / HALF[1]) ** 2 <= 1
    face = at_face_scale(crop)[oval]
    clipped = (face >= 253).any(-1) | (face <= 3).all(-1)
    return float(np.exp(-clipped.mean() / SHARE))
