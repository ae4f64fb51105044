"""Skin tone as the individual typology angle (ITA), in degrees: about 70 very light, -60 very dark.

After Chardon et al. 1991: ITA = atan2(L* - 50, b*) in CIELAB (D65). It is computed from the median
colour of each patch of bare skin on cheeks and forehead at face scale; the median over the patches
is used.

It is the tone of the skin in this picture, not of the person: exposure, white balance, coloured
light and make-up change it by tens of degrees, and patches may lie on hair or a beard. It is
suitable for counting over a set, not for describing a single face.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import resize_to_face_scale, skin_patches

VERSION = "1"
MIN_B = 1
"""Skin is yellowish. A b* below 1 (black and white, blue light) leaves only the lightness."""


def score(crop: np.ndarray) -> float:
    """Measure the skin tone.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        ITA in degrees, -90 to 90.
    """
    import cv2

    rgb = resize_to_face_scale(crop).astype(np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    colours = np.array([np.median(patch.reshape(-1, 3), axis=0) for patch in skin_patches(lab)])
    lightness = colours[:, 0]
    b = np.maximum(colours[:, 2], MIN_B)
    return float(np.median(np.degrees(np.arctan2(lightness - 50, b))))
