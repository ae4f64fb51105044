"""Colour fixes: transfer the colours of the degraded face to the restored one.

A diffusion model may shift colours, but the degraded face has the right ones. There are two fixes:

- wavelet: low frequencies of the degraded face, high frequencies of the restored one (Wang et al.
  2023, "Exploiting Diffusion Prior for Real-World Image Super-Resolution", appendix).
- adain: mean and standard deviation per channel of the degraded face (Huang and Belongie 2017,
  Eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

WAVELET_LEVELS = 5
BINOMIAL_KERNEL = (0.25, 0.5, 0.25)


def wavelet_fix(restored: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """Combine the high frequencies of the restored face with the low ones of the degraded face.

    Args:
        restored: (height, width, 3) uint8 RGB.
        degraded: The degraded face, same shape and type.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    combined = restored.astype(np.float32) - _low_pass(restored) + _low_pass(degraded)
    return np.clip(np.rint(combined), 0, 255).astype(np.uint8)


def adain_fix(restored: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """Give each channel of the restored face the mean and deviation of the degraded face.

    Args:
        restored: (height, width, 3) uint8 RGB.
        degraded: The degraded face, same shape and type.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    source = restored.reshape(-1, 3).astype(np.float64)
    target = degraded.reshape(-1, 3).astype(np.float64)
    normalised = (restored - source.mean(0)) / np.maximum(source.std(0), 1e-5)
    matched = normalised * target.std(0) + target.mean(0)
    return np.clip(np.rint(matched), 0, 255).astype(np.uint8)


def _low_pass(picture: np.ndarray) -> np.ndarray:
    """Blur with `WAVELET_LEVELS` à-trous binomial kernels, whose taps are 1, 2, 4 ... px apart."""
    low = picture.astype(np.float32)
    for level in range(WAVELET_LEVELS):
        taps = np.zeros(2 ** (level + 1) + 1, np.float32)
        taps[:: 2**level] = BINOMIAL_KERNEL
        low = cv2.sepFilter2D(low, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return low


def _no_fix(restored: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    return restored


COLOUR_FIXES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "none": _no_fix,
    "wavelet": wavelet_fix,
    "adain": adain_fix,
}
