"""Lightness of the face in the picture: the median luma of its skin patches at face scale.

It depends on the light and on the skin alike.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import resize_to_face_scale, skin_patches

VERSION = "1"


def score(crop: np.ndarray) -> float:
    """Measure the lightness of the face.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (black) to 1 (white).
    """
    patches = skin_patches(luma(resize_to_face_scale(crop)))
    return float(np.median([np.median(patch) for patch in patches])) / 255
