"""Banding: smooth shading in visible steps, caused by heavy editing at 8 bits or a poor export.

Two properties are measured at face scale, in blocks of 15 px whose luma, smoothed with sigma 1,
spans 5 to 30 levels. A picture is banded only if it has both.

- Uneven differences. On a smooth slope all differences d between neighbours are similar; on stairs
  a few are large and the others zero. The evenness q = mean(d)^2 / mean(d^2) of a block is 1 for a
  slope, about 0.64 for natural skin (2/pi, as for Gaussian differences), and falls with the share
  of steps for stairs. The median over the blocks is averaged over both directions.
- Few distinct levels. Where the 3 x 3 neighbourhood of a pixel spans at most one level, the levels
  of each channel are counted. A photograph uses all levels, stairs use one for each step. With the
  entropies H of the histogram and S of the histogram smoothed over 9 levels, the fullness is
  exp(H - S): about 0.6 to 1 for photographs, 0.18 for 48 levels, 0.11 for 20. The median over the
  channels is used.

Each property gives a logistic score, E = 0.5 at q = 0.62 and F = 0.5 at a fullness of 0.4. The
score is E^(1 - F), so that it is low only if both are.

Fails on: stairs that noise, resampling or JPEG compression has blurred (score high; from 32 levels
on they are hardly visible either), and faces without smooth blocks, which score 1.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale, sigmoid, split_into_blocks

VERSION = "2"
BLOCK_SIDE_PX = 15
# Luma levels that a used block spans.
MIN_SPAN = 5
MAX_SPAN = 30
SMOOTHING_SIGMA_PX = 1.0
# Of the logistic functions, in units of the evenness and of the fullness.
EVENNESS_MIDPOINT = 0.62
EVENNESS_WIDTH = 0.012
FULLNESS_MIDPOINT = 0.4
FULLNESS_WIDTH = 0.03

MIN_PLATEAU_PX = 400
"""With fewer pixels without a slope, the levels are not counted."""
CLIPPED_LEVELS = 4
"""Levels at either end of the range that are not counted, because clipping fills them."""
HISTOGRAM_SMOOTHING = 9
"""Width of the box that smooths the histogram, in levels."""


def score(crop: np.ndarray) -> float:
    """Measure banding.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (stairs) to 1 (smooth slopes).
    """
    import cv2

    pixels = resize_to_face_scale(crop)
    smoothed = cv2.GaussianBlur(luma(pixels), (0, 0), SMOOTHING_SIGMA_PX)
    span = np.ptp(split_into_blocks(smoothed[:-1, :-1], BLOCK_SIDE_PX), axis=(1, 2))
    is_slope = (span >= MIN_SPAN) & (span < MAX_SPAN)
    if not is_slope.any():
        return 1.0

    vertical = np.abs(np.diff(smoothed, axis=0))[:, :-1]
    horizontal = np.abs(np.diff(smoothed, axis=1))[:-1]
    evenness = [_median_evenness(steps, is_slope) for steps in (vertical, horizontal)]
    fullness = [_fullness(pixels[:-1, :-1, channel], is_slope) for channel in range(3)]
    even_score = sigmoid(float(np.mean(evenness)), EVENNESS_MIDPOINT, EVENNESS_WIDTH)
    full_score = sigmoid(float(np.median(fullness)), FULLNESS_MIDPOINT, FULLNESS_WIDTH)
    return even_score ** (1 - full_score)


def _median_evenness(steps: np.ndarray, is_slope: np.ndarray) -> np.floating:
    """Return the median of mean(d)^2 / mean(d^2) over the selected blocks."""
    blocks = split_into_blocks(steps, BLOCK_SIDE_PX)[is_slope]
    mean_of_squares = np.maximum((blocks**2).mean((1, 2)), 1e-6)
    return np.median(blocks.mean((1, 2)) ** 2 / mean_of_squares)


def _fullness(channel: np.ndarray, is_slope: np.ndarray) -> float:
    """Measure how many of the possible levels the plateaus of the selected blocks use."""
    import cv2

    plane = np.ascontiguousarray(channel)
    neighbours = np.ones((3, 3), np.uint8)
    is_plateau = cv2.dilate(plane, neighbours) - cv2.erode(plane, neighbours) <= 1
    levels = split_into_blocks(plane, BLOCK_SIDE_PX)[is_slope]
    levels = levels[split_into_blocks(is_plateau, BLOCK_SIDE_PX)[is_slope]]
    counts = np.bincount(levels, minlength=256)[CLIPPED_LEVELS:-CLIPPED_LEVELS]
    if counts.sum() < MIN_PLATEAU_PX:
        return 1.0
    shares = counts / counts.sum()
    smoothed = np.convolve(shares, np.full(HISTOGRAM_SMOOTHING, 1 / HISTOGRAM_SMOOTHING))
    return float(np.exp(_entropy(shares) - _entropy(smoothed)))


def _entropy(shares: np.ndarray) -> float:
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())
