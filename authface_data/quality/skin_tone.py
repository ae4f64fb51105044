"""Skin tone of the crop as ITA, the individual typology angle, in degrees: about 70 very light, -60 very dark.

After Chardon et al. 1991: ITA = atan2(L* - 50, b*) in CIELAB (D65), of the median colour of each patch of bare skin on cheeks
and forehead, at face scale, and the median over the patches.

It is the tone of the skin in this picture, not of the person: exposure, white balance, coloured light and make-up move it by
tens of degrees, and patches may lie on hair or a beard. Good for counting over a set, not for judging a face.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import at_face_scale, skin_patches

VERSION = "1"


def score(crop: np.ndarray) -> float:
    """Degrees, -90 to 90, of (H, H, 3) uint8 sRGB."""
    import cv2

    lab = cv2.cvtColor(at_face_scale(crop).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    colours = np.array([np.median(patch.reshape(-1, 3), axis=0) for patch in skin_patches(lab)])
    # Skin is yellowish: a b* below 1 (a black-and-white picture, blue light) says nothing of the tone but its lightness.
    angles = np.degrees(np.arctan2(colours[:, 0] - 50, np.maximum(colours[:, 2], 1)))
    return float(np.median(angles))
