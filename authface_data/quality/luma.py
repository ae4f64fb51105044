"""Brightness of a picture, as the artefact measures see it."""

from __future__ import annotations

import numpy as np


def luma(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB to (H, W) float32 0..255: Rec. 601 weights on the encoded values."""
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
