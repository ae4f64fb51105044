"""How light falls on the face: from which side. Positive from the right of the image, negative from the left, 0 even.

At face scale: the natural logarithm of the median brightness of the right cheek's patches over that of the left's; .26 stands
for 1.3 times.

A turned head has one cheek away from the light and from the camera: read it beside the yaw.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import SKIN, at_face_scale, skin_patches
from authface_data.quality.luma import luma

VERSION = "1"


def score(crop: np.ndarray) -> float:
    """A logarithm, about -1 to 1, of (H, H, 3) uint8."""
    patches = skin_patches(luma(at_face_scale(crop)))
    sides = [
        [
            float(np.median(p))
            for p, (x, _) in zip(patches, SKIN, strict=True)
            if side * (x - 0.5) > 0.1
        ]
        for side in (-1, 1)
    ]
    left, right = (float(np.median(side)) for side in sides)
    return float(np.log((right + 1) / (left + 1)))
