"""Blur by defocus or motion: how much a further blur takes away from eyes, nose and mouth.

After Crete et al. 2007 (The blur effect), at face scale, within the middle of the face alone: a blurred background is no fault.
The brightness, smoothed a little against noise (sigma .8), is blurred with a box of nine pixels along each of four directions;
a sharp picture loses most of its differences between neighbours, a blurred one few. With D the differences before and B after,
the share lost is sum(max(D - B, 0)) / sum(D), and the least of the four directions counts (motion blurs only one). score is .5
where a share of .17 is lost, and goes to 0 and 1 on both sides of it.

Fails on: strong noise (counts as sharp), a face of even light with closed eyes (little to go by). A slight blur, of sigma below
2 px on a face of 512, is not told from a soft photograph.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import SIZE_PX, at_face_scale, rising
from authface_data.quality.luma import luma

VERSION = "2"
BOX, SMOOTH, MIDDLE, WIDTH = 9, 0.8, 0.17, 0.03
TOP, BOTTOM, LEFT, RIGHT = (round(part * SIZE_PX) for part in (0.36, 0.86, 0.20, 0.80))
CORNER = 60  # what turning leaves empty


def score(crop: np.ndarray) -> float:
    """0 (nothing but blur) to 1 (every difference is between neighbours), of (H, H, 3) uint8."""
    import cv2

    face = cv2.GaussianBlur(luma(at_face_scale(crop))[TOP:BOTTOM, LEFT:RIGHT], (0, 0), SMOOTH)
    height, width = face.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 45, 1)
    turned = cv2.warpAffine(face, turn, (width, height))[CORNER:-CORNER, CORNER:-CORNER]
    lost = [share_lost(plane, axis) for plane in (face, turned) for axis in (0, 1)]
    return rising(min(lost), MIDDLE, WIDTH)


def share_lost(plane: np.ndarray, axis: int) -> float:
    """The share of a plane's differences between neighbours along an axis that a box of nine pixels takes away: 0 to 1."""
    import cv2

    before = np.abs(np.diff(plane, axis=axis))
    after = np.abs(np.diff(cv2.blur(plane, (1, BOX) if axis == 0 else (BOX, 1)), axis=axis))
    total = float(before.sum())
    return float(np.maximum(before - after, 0).sum()) / total if total > 0 else 0.0
