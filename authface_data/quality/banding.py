"""Banding: smooth shading in steps, from too few levels (heavy editing of 8 bit, a poor screen or export).

At face scale, smoothed by sigma 1 so that it matters little how the steps were resampled, in squares of 15 px whose brightness
spans 5 to 30 levels: of a slope every difference between neighbours is alike, of stairs a few are large and the rest nothing. q
= mean(d)^2 / mean(d^2) is 1 for a slope, about .64 for natural skin (differences as of a Gaussian: 2 / pi), and falls with the
share of steps for stairs. The median of the squares, both directions averaged. score is .5 at q = .61.

Fails on: drawings and flat make-up; stairs that noise or resampling has blurred away (not visible either); faces with no smooth
part at all, which get 1.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import at_face_scale, blocks, rising
from authface_data.quality.luma import luma

VERSION = "1"
SIDE, LEAST, MOST, SMOOTH, MIDDLE, WIDTH = 15, 5, 30, 1.0, 0.61, 0.015


def score(crop: np.ndarray) -> float:
    """0 (stairs) to 1 (slopes), of (H, H, 3) uint8."""
    import cv2

    brightness = cv2.GaussianBlur(luma(at_face_scale(crop)), (0, 0), SMOOTH)
    squares = blocks(brightness[:-1, :-1], SIDE)
    span = np.ptp(squares, axis=(1, 2))
    smooth = (span >= LEAST) & (span < MOST)
    if not smooth.any():
        return 1.0
    evenness = []
    for steps in (
        np.abs(np.diff(brightness, axis=0))[:, :-1],
        np.abs(np.diff(brightness, axis=1))[:-1],
    ):
        of_square = blocks(steps, SIDE)[smooth]
        evenness.append(
            np.median(of_square.mean((1, 2)) ** 2 / np.maximum((of_square**2).mean((1, 2)), 1e-6))
        )
    return rising(float(np.mean(evenness)), MIDDLE, WIDTH)
