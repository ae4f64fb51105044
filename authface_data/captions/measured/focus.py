"""Focus on the eyes, and depth of field: how sharp the background's edges are beside the face's.

- eyes: of the differences between neighbours in the patch around an eye, the share that a box of nine pixels takes away (as in
  quality/sharpness.py, without the diagonals). Both eyes above .36: sharp eyes. Both below .26: soft focus.
- background: two strips at the crop's sides. An edge's blur follows from its gradients under Gaussians of 1 and 4 px: a step
  blurred by s has the ratio r = sqrt((s² + 16) / (s² + 1)), so s = sqrt((16 - r²) / (r² - 1)). The median over the strongest
  5 % of the strips' edges: above 1.7 px, and 1.2 times the eyes', it is blurred; below .8 it is sharp. A background without
  edges (gradient below 4 levels a pixel) says nothing.

Hair that reaches into the strips counts as background; strong noise as sharpness.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement, above, below, with_doubt
from authface_data.quality.face_scale import FACE_SCALE_PX
from authface_data.quality.sharpness import blur_loss

SHARP_EYES, SOFT_EYES, EYES_WIDTH = 0.36, 0.26, 0.012
BLURRED_PX, SHARP_PX, BLUR_WIDTH, TIMES_THE_EYES, TIMES_WIDTH = 1.7, 0.8, 0.12, 1.2, 0.06
LEAST_EDGE, STRONGEST = 4.0, 95
FINE_PX, COARSE_PX = 1.0, 4.0


def measure(face: FaceCrop) -> list[Measurement]:
    return [*_eyes(face), *_background(face)]


def _eyes(face: FaceCrop) -> list[Measurement]:
    import cv2

    if not face.both_eyes:
        return []
    half, lost = face.eye_distance * np.array([0.42, 0.23]), []
    for eye in face.five[:2]:
        patch = cv2.GaussianBlur(face.around(eye, half), (0, 0), 0.8)
        lost.append(min(blur_loss(patch, 0), blur_loss(patch, 1)))
    return [
        above("focus", "sharp eyes", min(lost), SHARP_EYES, EYES_WIDTH),
        below("focus", "soft focus", max(lost), SOFT_EYES, EYES_WIDTH),
    ]


def _background(face: FaceCrop) -> list[Measurement]:
    y, x = (np.mgrid[:FACE_SCALE_PX, :FACE_SCALE_PX] + 0.5) / FACE_SCALE_PX
    strips = (np.abs(x - 0.5) > 0.34) & (np.abs(x - 0.5) < 0.49) & (y > 0.02) & (y < 0.75)
    eyes = (np.abs(x - 0.5) < 0.2) & (np.abs(y - 0.47) < 0.07)
    behind, of_eyes = edge_blur_px(face.brightness, strips), edge_blur_px(face.brightness, eyes)
    if behind is None or of_eyes is None:
        return []
    beside = above(
        "focus", "blurred background", behind / of_eyes, TIMES_THE_EYES, TIMES_WIDTH
    ).confidence
    return [
        with_doubt(above("focus", "blurred background", behind, BLURRED_PX, BLUR_WIDTH), beside),
        below("focus", "sharp background", behind, SHARP_PX, BLUR_WIDTH),
    ]


def edge_blur_px(brightness: np.ndarray, where: np.ndarray) -> float | None:
    """The blur of the strongest edges in a region, as the sigma of a Gaussian, px. None where there is no edge."""
    import cv2

    def gradient(sigma: float) -> np.ndarray:
        smooth = cv2.GaussianBlur(brightness, (0, 0), sigma)
        return np.hypot(*(cv2.Sobel(smooth, cv2.CV_32F, 1 - axis, axis) / 8 for axis in (0, 1)))

    fine, coarse = gradient(FINE_PX), gradient(COARSE_PX)
    least = float(np.percentile(coarse[where], STRONGEST))
    if least < LEAST_EDGE:
        return None
    edges = where & (coarse >= least)
    ratio = float(np.median(cv2.dilate(fine, np.ones((7, 7), np.uint8))[edges] / coarse[edges]))
    ratio = min(max(ratio, 1.001), COARSE_PX / FINE_PX - 0.001)
    return float(np.sqrt((COARSE_PX**2 - ratio**2) / (ratio**2 - FINE_PX**2)))
