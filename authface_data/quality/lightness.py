"""How light or dark the face is in the picture: the median brightness of its skin patches at face scale, 0 to 1.

It depends on the light and on the skin alike.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import at_face_scale, skin_patches
from authface_data.quality.luma import luma

VERSION = "1"


def score(crop: np.ndarray) -> float:
    """0 black to 1 white, of (H, H, 3) uint8."""
    return (
        float(np.median([np.median(patch) for patch in skin_patches(luma(at_face_scale(crop)))]))
        / 255
    )
