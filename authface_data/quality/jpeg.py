"""JPEG blocking: luma differences that repeat every eight pixels of the photograph.

Alignment rotates and scales the photograph's grid of 8 x 8 blocks, and the quad specifies how.
Without a quad, the grid is that of the crop. Along both directions of the grid, luma differences
between neighbours are clipped at 12, so that edges do not dominate, and their local mean is
removed. Their Fourier amplitude is measured at the frequency of the grid and at twice and three
times that frequency. From each amplitude, twice the mean amplitude of nearby frequencies is
subtracted. Let a be the sum of the positive results, divided by the mean difference and averaged
over both directions. The score is exp(-a / 0.2).

Fails on: pictures that were reduced after compression if the quad does not reflect that, grids
finer than 2.5 px of the crop (not visible either), and woven cloth or screens with the period of
the grid.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma

VERSION = "2"
USES_QUAD = True
MAX_SIDE_PX = 1024
"""Only the middle of a larger crop is used."""
BLOCK_PX = 8.0
MAX_DIFFERENCE = 12.0
MAX_FREQUENCY = 0.4
"""Highest frequency that is measured, in cycles per pixel."""
HARMONICS = (1, 2, 3)
NEARBY_OFFSETS = (-10, -8, -7, -6, -5, 5, 6, 7, 8, 10)
"""Offsets of the nearby frequencies, in cycles per crop."""
LOCAL_MEAN_PX = 33
"""Side of the box over which the local mean is computed."""
AMPLITUDE_SCALE = 0.2
"""Relative amplitude at which the score is 1/e."""


def score(crop: np.ndarray, quad_px: np.ndarray | None = None) -> float:
    """Measure JPEG blocking.

    Args:
        crop: (size, size, 3) uint8 sRGB.
        quad_px: (4, 2) corners of the crop's quad in the photograph, see `Quad.corners_px`. None if
            the crop is the photograph itself.

    Returns:
        0 (strong blocks) to 1 (no blocks).
    """
    size = len(crop)
    margin = max(size - MAX_SIDE_PX, 0) // 2
    luma_plane = luma(crop[margin : size - margin, margin : size - margin])
    # The rows are the gradients of the photograph's x and y coordinate over the crop, in photograph
    # pixels per crop pixel.
    if quad_px is None:
        gradients = np.eye(2)
    else:
        north_west, south_west, _, north_east = quad_px
        gradients = np.stack([north_east - north_west, south_west - north_west], axis=1) / size
    amplitudes = [_grid_amplitude(luma_plane, gradient / BLOCK_PX) for gradient in gradients]
    return float(np.exp(-np.mean(amplitudes) / AMPLITUDE_SCALE))


def _grid_amplitude(luma_plane: np.ndarray, wave_vector: np.ndarray) -> float:
    """Measure how strongly the luma differences repeat with the grid.

    Args:
        luma_plane: (size, size) float32.
        wave_vector: (2,) frequency of the grid along x and y, in cycles per pixel.

    Returns:
        The amplitude above that of nearby frequencies, relative to the mean difference.
    """
    import cv2

    axis = 1 if abs(wave_vector[0]) > abs(wave_vector[1]) else 0
    differences = np.minimum(np.abs(np.diff(luma_plane, axis=axis)), MAX_DIFFERENCE)
    num_rows, num_columns = differences.shape
    window = np.outer(np.hanning(num_rows), np.hanning(num_columns)).astype(np.float32)
    window_sum = float(window.sum())
    local_mean = cv2.blur(differences, (LOCAL_MEAN_PX, LOCAL_MEAN_PX))

    grid_frequency = float(np.hypot(*wave_vector))
    harmonics = [grid_frequency * harmonic for harmonic in HARMONICS]
    measured = np.array([frequency for frequency in harmonics if frequency <= MAX_FREQUENCY])
    offsets = np.array([0, *NEARBY_OFFSETS]) / len(luma_plane)
    frequencies = (measured[:, None] + offsets).ravel()[:, None] * wave_vector / grid_frequency
    spectrum = _spectrum((differences - local_mean) * window, frequencies)
    amplitudes = (np.abs(spectrum) * 2 / window_sum).reshape(len(measured), len(offsets))

    excess = np.maximum(amplitudes[:, 0] - 2 * amplitudes[:, 1:].mean(1), 0).sum()
    mean_difference = float((differences * window).sum() / window_sum)
    return float(excess) / (mean_difference + 0.3)


def _spectrum(plane: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The Fourier transform of a plane at single frequencies.

    Args:
        plane: (height, width) float32.
        frequencies: (n, 2) along x and y, in cycles per pixel.

    Returns:
        (n,) complex64.
    """
    height, width = plane.shape
    x_waves, y_waves = (
        np.exp(-2j * np.pi * np.outer(np.arange(size), frequencies[:, axis])).astype(np.complex64)
        for axis, size in enumerate((width, height))
    )
    return ((plane @ x_waves) * y_waves).sum(0)
