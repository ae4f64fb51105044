"""Picture hashes: an exact hash of the pixels, and a perceptual hash for near-duplicates."""

from __future__ import annotations

import numpy as np
from PIL import Image

PHASH_SIDE_PX = 256
"""Pictures are averaged down to about this size before the perceptual hash is computed."""


def hash_pixels(pixels: np.ndarray) -> str:
    """Hash the pixels of a picture; every lossless file of the same picture has the same hash.

    Args:
        pixels: (height, width, 3) uint8 sRGB, upright.

    Returns:
        32 hexadecimal digits: XXH3-128 over the shape and the pixels.
    """
    import xxhash

    # XXH3 is not cryptographic but ten times as fast, and a picture can have 200 MB of pixels.
    digest = xxhash.xxh3_128(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).reshape(-1).data)
    return digest.hexdigest()


def perceptual_hash(pixels: np.ndarray) -> str:
    """Compute the DCT hash of a picture (Zauner 2010); similar pictures differ in few bits.

    Args:
        pixels: (height, width, 3) uint8 sRGB, upright.

    Returns:
        16 hexadecimal digits: 64 bits.
    """
    import cv2
    import imagehash

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    # Averaging is several times faster if the factor is a whole number.
    factor = max(max(height, width) // PHASH_SIDE_PX, 1)
    size_px = max(width // factor, 1), max(height // factor, 1)
    whole_cells = grey[: size_px[1] * factor, : size_px[0] * factor]
    reduced = cv2.resize(whole_cells, size_px, interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(reduced)))
