"""Banding: smooth shading in visible steps, caused by heavy editing at 8 bits or a poor export.

The luma at face scale is smoothed (sigma 1), so that it matters little how the steps were
resampled. It is split into blocks of 15 px, and blocks whose luma spans 5 to 30 levels are used.
On a smooth slope all differences d between neighbours are similar; on stairs a few are large and
the others zero. The evenness q = mean(d)^2 / mean(d^2) of a block is 1 for a slope, about 0.64 for
natural skin (2/pi, as for Gaussian differences), and falls with the share of steps for stairs. The
median over the blocks is averaged over both directions. The score is a logistic function of q, 0.5
at q = 0.61.

Fails on: drawings and flat make-up (score low), stairs that noise or resampling has blurred away
(score high, but are not visible either), and faces without a smooth block, which score 1.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale, sigmoid, split_into_blocks

VERSION = "1"
BLOCK_SIDE_PX = 15
# Luma levels that a used block spans.
MIN_SPAN = 5
MAX_SPAN = 30
SMOOTHING_SIGMA_PX = 1.0
# Of the logistic function, in units of the evenness.
MIDPOINT = 0.61
WIDTH = 0.015


def score(crop: np.ndarray) -> float:
    """Measure banding.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (stairs) to 1 (smooth slopes).
    """
    import cv2

    luma_plane = luma(resize_to_face_scale(crop))
    smoothed = cv2.GaussianBlur(luma_plane, (0, 0), SMOOTHING_SIGMA_PX)
    blocks = split_into_blocks(smoothed[:-1, :-1], BLOCK_SIDE_PX)
    span = np.ptp(blocks, axis=(1, 2))
    is_slope = (span >= MIN_SPAN) & (span < MAX_SPAN)
    if not is_slope.any():
        return 1.0

    vertical = np.abs(np.diff(smoothed, axis=0))[:, :-1]
    horizontal = np.abs(np.diff(smoothed, axis=1))[:-1]
    evenness = [_median_evenness(steps, is_slope) for steps in (vertical, horizontal)]
    return sigmoid(float(np.mean(evenness)), MIDPOINT, WIDTH)


def _median_evenness(steps: np.ndarray, is_slope: np.ndarray) -> np.floating:
    """Return the median of mean(d)^2 / mean(d^2) over the selected blocks."""
    blocks = split_into_blocks(steps, BLOCK_SIDE_PX)[is_slope]
    mean_of_squares = np.maximum((blocks**2).mean((1, 2)), 1e-6)
    return np.median(blocks.mean((1, 2)) ** 2 / mean_of_squares)
