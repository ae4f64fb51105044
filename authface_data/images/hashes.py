"""Picture hashes: an exact hash of the pixels, and a perceptual hash for near-duplicates."""

from __future__ import annotations

import numpy as np
from PIL import Image

from manifests.fine_hash import FINE_HASH_SIDE

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
    import imagehash

    return str(imagehash.phash(Image.fromarray(_reduce(pixels))))


def mirrored_perceptual_hash(pixels: np.ndarray) -> str:
    """Compute the perceptual hash of a picture's mirror image.

    Args:
        pixels: (height, width, 3) uint8 sRGB, upright.

    Returns:
        16 hexadecimal digits, as `perceptual_hash` gives for the picture with left and right
        exchanged.
    """
    import imagehash

    return str(imagehash.phash(Image.fromarray(_reduce(pixels)[:, ::-1])))


def fine_hash(pixels: np.ndarray) -> str:
    """Compute the signs of the lowest frequencies of a square picture, see manifests/fine_hash.py.

    Args:
        pixels: (size, size, 3) uint8 sRGB, upright.

    Returns:
        64 hexadecimal digits: a bit for each frequency of the cosine transform, by rows.
    """
    import cv2
    from scipy import fft

    side = 4 * FINE_HASH_SIDE
    reduced = cv2.resize(_reduce(pixels), (side, side), interpolation=cv2.INTER_AREA)
    transform = fft.dctn(reduced.astype(float), norm="ortho")
    return np.packbits(transform[:FINE_HASH_SIDE, :FINE_HASH_SIDE] > 0).tobytes().hex()


def _reduce(pixels: np.ndarray) -> np.ndarray:
    """The luma of a picture, averaged down to about `PHASH_SIDE_PX`; uint8."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    # Averaging is several times faster if the factor is a whole number.
    factor = max(max(height, width) // PHASH_SIDE_PX, 1)
    size_px = max(width // factor, 1), max(height // factor, 1)
    whole_cells = grey[: size_px[1] * factor, : size_px[0] * factor]
    return cv2.resize(whole_cells, size_px, interpolation=cv2.INTER_AREA)
