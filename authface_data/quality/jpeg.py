"""JPEG blocking: differences between neighbours that come back every eight pixels of the photograph.

The photograph's grid of 8 x 8 blocks lies in the crop turned and scaled as the quad tells; without a quad it is the crop's own.
For both directions of the grid, the differences of brightness along it (at most 12, so that edges do not count, and less their
local mean) are compared with waves of the grid's frequency and its next two multiples, at whatever phase: a, the amplitude
above twice that at frequencies nearby, over the mean difference. score = exp(-a / 0.2).

Fails on: pictures that were shrunk after they were compressed, and whose quad says nothing of it; a grid finer than 2.5 px of
the crop (not visible either); woven cloth or a screen of just that period.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.luma import luma

VERSION = "1"
USES_QUAD = True
BLOCK_PX, MOST, FINEST, SCALE = 8.0, 12.0, 0.4, 0.2
NEARBY = (-10, -8, -7, -6, -5, 5, 6, 7, 8, 10)  # in cycles per crop


def score(crop: np.ndarray, quad_px: np.ndarray | None = None) -> float:
    """0 (blocks and little else) to 1 (no blocks), of (H, H, 3) uint8; quad_px (4, 2): where it lay in the photograph."""
    size, brightness = len(crop), luma(crop)
    if quad_px is None:
        axes = np.eye(2)
    else:
        north_west, south_west, _, north_east = quad_px
        axes = np.stack([north_east - north_west, south_west - north_west], axis=1) / size  # photo px per crop px
    return float(np.exp(-np.mean([_amplitude(brightness, axis / BLOCK_PX) for axis in axes]) / SCALE))


def _amplitude(brightness: np.ndarray, wave: np.ndarray) -> float:
    """How much of the differences goes with waves of that frequency, (x, y) in cycles per pixel, and its multiples."""
    import cv2

    axis = 1 if abs(wave[0]) > abs(wave[1]) else 0
    steps = np.minimum(np.abs(np.diff(brightness, axis=axis)), MOST)
    rows, columns = np.arange(steps.shape[0]), np.arange(steps.shape[1])
    window = np.outer(np.hanning(len(rows)), np.hanning(len(columns)))
    varying, frequency = (steps - cv2.blur(steps, (33, 33))) * window, float(np.hypot(*wave))

    def at(cycles_per_px: float) -> float:
        x, y = wave / frequency * cycles_per_px
        return abs(np.exp(-2j * np.pi * y * rows) @ varying @ np.exp(-2j * np.pi * x * columns)) * 2 / window.sum()

    above = 0.0
    for multiple in (1, 2, 3):
        if multiple * frequency <= FINEST:
            nearby = float(np.mean([at(multiple * frequency + off / len(brightness)) for off in NEARBY]))
            above += max(at(multiple * frequency) - 2 * nearby, 0)
    return above / (float((steps * window).sum() / window.sum()) + 0.3)
