"""Colour fixes: the restored face's colours brought to those of the degraded one, which has kept them.

wavelet: low frequencies of the degraded face, high ones of the restored (Wang et al. 2023, StableSR, the appendix on colour);
adain: each channel's mean and deviation (Huang and Belongie 2017, Eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LEVELS = 5
BINOMIAL = (0.25, 0.5, 0.25)


def wavelet(restored: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of two pictures of that shape: what LEVELS of blur take from the restored, on the degraded's rest."""
    made = restored.astype(np.float32) - _blurred(restored) + _blurred(degraded)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def adain(restored: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the restored picture with each channel's mean and deviation of the degraded."""
    of, to = (picture.reshape(-1, 3).astype(np.float64) for picture in (restored, degraded))
    made = (restored - of.mean(0)) / np.maximum(of.std(0), 1e-5) * to.std(0) + to.mean(0)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def _blurred(picture: np.ndarray) -> np.ndarray:
    """LEVELS times by a binomial kernel whose taps stand 1, 2, 4 ... pixels apart (a trous)."""
    import cv2

    low = picture.astype(np.float32)
    for level in range(LEVELS):
        taps = np.zeros(2 ** (level + 1) + 1, np.float32)
        taps[:: 2**level] = BINOMIAL
        low = cv2.sepFilter2D(low, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return low


FIXES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "none": lambda restored, degraded: restored,
    "wavelet": wavelet,
    "adain": adain,
}
