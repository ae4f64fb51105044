"""Salt-and-pepper noise: isolated dark and light dots, spread evenly over smooth areas.

Hair, beards and pores that are shrunk to a crop also leave single dark and light pixels, so three
properties of the noise are required:

- Only smooth areas count: skin and background, where the median-filtered luma varies little around
  its local mean.
- An outlier differs from the 7 x 7 median of the luma, at face scale, by more than 8 levels and
  more than 4.7 times the typical difference nearby, which is the median over blocks of 16 px. It
  is the extremum of its 3 x 3 neighbours and not part of a line, as strands of hair are.
- The outliers are spread over the picture, and some are dark and some are light. In each cell of
  128 px the mean contrast of the outliers per pixel of smooth area is computed. With the 30th
  percentile p of the cells, in levels, the score is exp(-p / 0.04). p is reduced if less than a
  fifth of the outliers have the rarer sign.

The mean contrast is nearly independent of the scale: where alignment has reduced the photograph,
the dots are more and fainter. Dots of 1 % of the photograph's pixels give p = 0.06 on a face of
256 px, and 0.15 to 0.6 on faces of 384 to 1024 px.

Crops of 1024 px and more are also measured at 1024 px, and the lower score counts: there, a large
photograph is reduced less. Most clean faces score 0.95 or more.

Fails on: dots that a reduction by more than 3 has averaged away (faces of more than 1600 px in a
crop of 512 px, where they are nearly invisible), a picture of texture only (is not measured, scores
1), and rough walls with sharpened pores (score 0.68).
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale, split_into_blocks

VERSION = "5"
LARGE_SCALE_PX = 1024
"""Larger crops are reduced to this size for the second measurement."""
MEDIAN_SIDE_PX = 7
"""Side of the median filter: dots of 4 px, enlarged from one pixel, disappear."""
MAX_ROUGHNESS = 2.0
"""Largest mean deviation of the median-filtered luma in a smooth area, in levels."""
MIN_CONTRAST = 8.0
"""Smallest contrast of an outlier, in luma levels."""
MAX_CONTRAST = 80.0
"""Larger contrasts count as this."""
MIN_RELATIVE_CONTRAST = 4.7
"""Smallest contrast of an outlier, relative to the typical difference nearby."""
BLOCK_SIDE_PX = 16
CELL_SIDE_PX = 128
MIN_SMOOTH_SHARE = 0.2
"""Smallest share of smooth area of a cell that counts."""
MIN_CELLS = 3
CELL_PERCENTILE = 30
MIN_RARER_SHARE = 0.2
CONTRAST_SCALE = 0.04
"""Mean contrast at which the score is 1/e, in luma levels."""

LINE_REACH_PX = 4
LINE_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Directions (rows, columns) in which a line may continue."""
LINE_CONTRAST_SHARE = 0.35
"""An outlier belongs to a line if both sides have at least this share of its contrast."""
NEIGHBOURS = np.ones((3, 3), np.uint8)


def score(crop: np.ndarray) -> float:
    """Measure salt-and-pepper noise.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (a per cent of the photograph's pixels are dots) to 1 (no dots).
    """
    import cv2

    scales = [resize_to_face_scale(crop)]
    if len(crop) >= LARGE_SCALE_PX:
        size_px = (LARGE_SCALE_PX, LARGE_SCALE_PX)
        is_larger = len(crop) > LARGE_SCALE_PX
        scales.append(
            cv2.resize(crop, size_px, interpolation=cv2.INTER_AREA) if is_larger else crop
        )
    return min(_score_at_scale(luma(pixels)) for pixels in scales)


def _score_at_scale(luma_plane: np.ndarray) -> float:
    """Score a crop at one scale."""
    import cv2

    median = cv2.medianBlur(np.rint(luma_plane).astype(np.uint8), MEDIAN_SIDE_PX).astype(np.float32)
    difference = luma_plane - median
    contrast = np.abs(difference)
    is_smooth = _smooth_area(median)

    min_contrast = np.maximum(MIN_CONTRAST, MIN_RELATIVE_CONTRAST * _typical_contrast(contrast))
    is_outlier = is_smooth & (contrast > min_contrast)
    is_outlier &= contrast >= cv2.dilate(contrast, NEIGHBOURS)
    inner = slice(LINE_REACH_PX, -LINE_REACH_PX)
    rows, columns = np.nonzero(is_outlier[inner, inner]) + np.array(LINE_REACH_PX)
    is_dot = ~_continues_as_line(difference, rows, columns)
    return _score_dots(rows[is_dot], columns[is_dot], difference, is_smooth)


def _smooth_area(median: np.ndarray) -> np.ndarray:
    """Mark where the median-filtered luma varies little around its local mean."""
    import cv2

    deviation = np.abs(median - cv2.blur(median, (7, 7)))
    is_smooth = cv2.blur(deviation, (9, 9)) < MAX_ROUGHNESS
    return cv2.erode(is_smooth.astype(np.uint8), NEIGHBOURS) > 0


def _typical_contrast(contrast: np.ndarray) -> np.ndarray:
    """Return the median contrast of the surrounding blocks, which a few dots do not change."""
    import cv2

    # Every second pixel of both directions is enough for a median.
    blocks = split_into_blocks(contrast[::2, ::2], BLOCK_SIDE_PX // 2)
    side = len(contrast) // BLOCK_SIDE_PX
    medians = np.median(blocks, axis=(1, 2)).reshape(side, side).astype(np.float32)
    highest = cv2.dilate(medians, NEIGHBOURS)
    return cv2.resize(highest, contrast.shape) + 0.5


def _continues_as_line(difference: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Tell which outliers continue on two opposite sides, 3 or 4 px away."""
    centre = difference[rows, columns]
    sign = np.sign(centre)
    is_line = np.zeros(len(rows), bool)
    for row_step, column_step in LINE_STEPS:
        for distance in (LINE_REACH_PX - 1, LINE_REACH_PX):
            down, right = row_step * distance, column_step * distance
            one_side = difference[rows + down, columns + right] * sign
            other_side = difference[rows - down, columns - right] * sign
            is_line |= np.minimum(one_side, other_side) > LINE_CONTRAST_SHARE * np.abs(centre)
    return is_line


def _score_dots(
    rows: np.ndarray, columns: np.ndarray, difference: np.ndarray, is_smooth: np.ndarray
) -> float:
    """Score the dots by their contrast, their spread over the picture and their signs."""
    if len(rows) == 0:
        return 1.0
    contrasts = difference[rows, columns]
    dots = np.zeros_like(difference)
    dots[rows, columns] = np.minimum(np.abs(contrasts), MAX_CONTRAST)
    smooth_share = split_into_blocks(is_smooth, CELL_SIDE_PX).mean((1, 2))
    mean_contrast = split_into_blocks(dots, CELL_SIDE_PX).mean((1, 2))
    is_measured = smooth_share >= MIN_SMOOTH_SHARE
    if is_measured.sum() < MIN_CELLS:
        return 1.0

    typical = np.percentile(mean_contrast[is_measured] / smooth_share[is_measured], CELL_PERCENTILE)
    light_share = float((contrasts > 0).mean())
    rarer_share = min(light_share, 1 - light_share)
    typical *= min(1.0, rarer_share / MIN_RARER_SHARE)
    return float(np.exp(-typical / CONTRAST_SCALE))
