"""Direction of the light on the face: positive from the right of the image, negative from the left.

The score is ln((R + 1) / (L + 1)), where R and L are the median luma of the right and the left
cheek at face scale. A score of 0.26 corresponds to a ratio of 1.3.

Fails on: a turned head, because one of its cheeks faces away from the light and from the camera.
Compare the yaw.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import SKIN_POINTS, resize_to_face_scale, skin_patches

VERSION = "1"
MIN_CHEEK_OFFSET = 0.1
"""Patches further from the middle than this share of the crop belong to a cheek."""


def score(crop: np.ndarray) -> float:
    """Measure the direction of the light.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        The logarithm of the ratio, about -1 to 1; 0 for even light.
    """
    patches = skin_patches(luma(resize_to_face_scale(crop)))
    left_medians = []
    right_medians = []
    for patch, (x, _) in zip(patches, SKIN_POINTS, strict=True):
        if 0.5 - x > MIN_CHEEK_OFFSET:
            left_medians.append(float(np.median(patch)))
        elif x - 0.5 > MIN_CHEEK_OFFSET:
            right_medians.append(float(np.median(patch)))
    left = float(np.median(left_medians))
    right = float(np.median(right_medians))
    return float(np.log((right + 1) / (left + 1)))
