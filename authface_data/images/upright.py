"""A picture's file as the training half reads it: upright, sRGB, 8 bit, by the code that reads photographs."""

from __future__ import annotations

import numpy as np

from authface_data.images import open as photo

IMAGE_SUFFIXES = photo.IMAGE_SUFFIXES
DECODE_ERRORS = photo.DECODE_ERRORS  # what `upright` raises at a file that cannot be decoded


def upright(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of a file's bytes. Raises one of UNDECODABLE."""
    return photo.Photo(lambda: data).pixels()
