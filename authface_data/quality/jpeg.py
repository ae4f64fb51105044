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
MOST_PX = 1024  # of a larger crop the middle will do
BLOCK_PX, MOST, FINEST, SCALE = 8.0, 12.0, 0.4, 0.2
NEARBY = (-10, -8, -7, -6, -5, 5, 6, 7, 8, 10)  # in cycles per crop


def score(crop: np.ndarray, quad_px: np.ndarray | None = None) -> float:
    """0 (blocks and little else) to 1 (no blocks), of (H, H, 3) uint8; quad_px (4, 2): where it lay in the photograph."""
    size, rest = len(crop), max(len(crop) - MOST_PX, 0) // 2
    brightness = luma(crop[rest : size - rest, rest : size - rest])
    if quad_px is None:
        axes = np.eye(2)
    else:
        north_west, south_west, _, north_east = quad_px
        axes = (
            np.stack([north_east - north_west, south_west - north_west], axis=1) / size
        )  # photo px per crop px
    return float(
        np.exp(-np.mean([_amplitude(brightness, axis / BLOCK_PX) for axis in axes]) / SCALE)
    )


def _amplitude(brightness: np.ndarray, wave: np.ndarray) -> float:
    """How much of the differences goes with waves of that frequency, (x, y) in cycles per pixel, and its multiples."""
    import cv2
    from scipy import fft

    axis = 1 if abs(wave[0]) > abs(wave[1]) else 0
    steps = np.minimum(np.abs(np.diff(brightness, axis=axis)), MOST)
    rows, columns = steps.shape
    window = np.outer(np.hanning(rows), np.hanning(columns)).astype(np.float32)
    # Twice as long as the picture, so that no wave falls between two of the transform's.
    length = fft.next_fast_len(2 * len(brightness))
    waves = fft.rfft2((steps - cv2.blur(steps, (33, 33))) * window, (length, length))
    frequency = float(np.hypot(*wave))
    direction = (
        wave / frequency * (1 if wave[0] >= 0 else -1)
    )  # a real picture's waves are the same both ways

    def at(cycles_per_px: float) -> float:
        x, y = np.rint(direction * cycles_per_px * length).astype(int)
        return abs(complex(waves[y % length, x])) * 2 / float(window.sum())

    above = 0.0
    for multiple in (1, 2, 3):
        if multiple * frequency <= FINEST:
            nearby = float(
                np.mean([at(multiple * frequency + off / len(brightness)) for off in NEARBY])
            )
            above += max(at(multiple * frequency) - 2 * nearby, 0)
    return above / (float((steps * window).sum() / window.sum()) + 0.3)
