"""Hashes of pictures: equal for equal pixels, near for pictures that look alike."""

from __future__ import annotations

import numpy as np
from PIL import Image


def hash_of_pixels(pixels: np.ndarray) -> str:
    """32 hex digits over an upright sRGB picture (H, W, 3) uint8: the same for the same picture in any lossless file."""
    import xxhash

    digest = xxhash.xxh3_128(
        str(pixels.shape).encode()
    )  # not a cipher's hash, and ten times as fast: a picture may have 200 MB
    digest.update(np.ascontiguousarray(pixels).reshape(-1).data)
    return digest.hexdigest()


def perceptual_hash(pixels: np.ndarray) -> str:
    """16 hex digits: the DCT hash of a picture (H, W, 3) uint8 (Zauner 2010), from its brightness, averaged to about
    256 px."""
    import cv2
    import imagehash

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    by = max(max(height, width) // 256, 1)  # a whole number: averaging is several times faster then
    size = max(width // by, 1), max(height // by, 1)
    grey = cv2.resize(grey[: size[1] * by, : size[0] * by], size, interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(grey)))
