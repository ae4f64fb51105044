"""Over-smoothed skin: retouched or beautified until only the shading remains, eyes left sharp.

The texture T is the luma between Gaussians of sigma 0.7 and 1.4 px, as absolute values at face
scale. Its level depends on lens, focus and compression, so the skin is compared with the eyes of
the same crop:

- Skin: T averaged over boxes of 13 px, on cheeks, forehead and chin, and only on pixels with about
  the colour of the skin patches (not on hair or the background) that are not blown out. Filters
  leave flat areas, so the 10th percentile F is used.
- Eyes: the 95th percentile E of T in boxes around both eyes (lashes, lids, the edge of the iris).

The score is a logistic function of ln((F + 0.03) / (E + 0.03)), 0.5 at -3.9. Natural faces lie
between -3.6 and -2, also if slightly out of focus, enlarged from 256 px or compressed at quality
75; make-up lies at the lower end.

Fails on: light retouching that leaves a third of the texture, and mild filters on skin with much
texture (both look like make-up and score high); noise added after retouching; closed eyes and
glasses without reflections; a background in the colour of the skin; pictures smoothed as a whole,
eyes included (compare `sharpness` and `photographic`).
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import (
    FACE_SCALE_PX,
    resize_to_face_scale,
    sigmoid,
    skin_patches,
)

VERSION = "2"
TEXTURE_SIGMAS_PX = (0.7, 1.4)
AVERAGING_PX = 13
SKIN_PERCENTILE = 10
EYE_PERCENTILE = 95
OFFSET = 0.03
"""Added to both textures, in luma levels, so that rounding does not decide."""
MIDPOINT = -3.9
WIDTH = 0.15

# Regions of the crop, as shares of its side.
OVAL_CENTRE = (0.5, 0.56)
OVAL_RADII = (0.24, 0.34)
NOT_SKIN = (
    (0.26, 0.35, 0.74, 0.55),  # eyes and brows: left, top, right, bottom
    (0.42, 0.55, 0.58, 0.67),  # tip of the nose
    (0.36, 0.67, 0.64, 0.82),  # mouth
)
EYES = ((0.293, 0.42, 0.459, 0.537), (0.541, 0.42, 0.707, 0.537))

# A pixel has the colour of the skin if it differs by at most this from the skin patches.
MAX_CHROMA_DIFFERENCE = 12
LUMA_RATIOS = (0.5, 1.7)
MIN_SKIN_PX = 4000
"""With fewer pixels of that colour, the whole region is used."""
BLOWN_LUMA = 245
"""Blown-out skin and white walls from this luma on are not measured."""


def score(crop: np.ndarray) -> float:
    """Measure the texture of the skin.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (as if painted) to 1 (pores and fine hair).
    """
    import cv2

    pixels = resize_to_face_scale(crop)
    luma_plane = luma(pixels)
    fine, coarse = (cv2.GaussianBlur(luma_plane, (0, 0), sigma) for sigma in TEXTURE_SIGMAS_PX)
    texture = np.abs(fine - coarse)

    region = skin_region() & (luma_plane < BLOWN_LUMA)
    is_skin = region & has_skin_colour(pixels)
    if is_skin.sum() < MIN_SKIN_PX:
        is_skin = region
    if is_skin.sum() < MIN_SKIN_PX:
        return 1.0
    averaged = cv2.blur(texture, (AVERAGING_PX, AVERAGING_PX))
    skin_texture = np.percentile(averaged[is_skin], SKIN_PERCENTILE)
    eyes = [texture[_slices(box)].ravel() for box in EYES]
    eye_texture = np.percentile(np.concatenate(eyes), EYE_PERCENTILE)
    ratio = (skin_texture + OFFSET) / (eye_texture + OFFSET)
    return sigmoid(float(np.log(ratio)), MIDPOINT, WIDTH)


def _slices(box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Return the rows and columns of a box given in shares of the crop's side."""
    left, top, right, bottom = (round(share * FACE_SCALE_PX) for share in box)
    return slice(top, bottom), slice(left, right)


def skin_region() -> np.ndarray:
    """Mark where FFHQ alignment places cheeks, forehead and chin.

    Returns:
        (512, 512) bool.
    """
    shares = (np.arange(FACE_SCALE_PX) + 0.5) / FACE_SCALE_PX
    x = (shares - OVAL_CENTRE[0]) / OVAL_RADII[0]
    y = (shares[:, None] - OVAL_CENTRE[1]) / OVAL_RADII[1]
    region = x**2 + y**2 <= 1
    for box in NOT_SKIN:
        region[_slices(box)] = False
    return region


def has_skin_colour(pixels: np.ndarray) -> np.ndarray:
    """Mark pixels with about the median colour of the skin patches.

    Args:
        pixels: (512, 512, 3) uint8 sRGB at face scale.

    Returns:
        (512, 512) bool.
    """
    import cv2

    smoothed = cv2.cvtColor(cv2.blur(pixels, (4, 4)), cv2.COLOR_RGB2YCrCb)
    patches = [np.median(patch.reshape(-1, 3), axis=0) for patch in skin_patches(smoothed)]
    skin_luma, skin_cr, skin_cb = np.median(patches, axis=0)
    lowest, highest = (ratio * skin_luma for ratio in LUMA_RATIOS)
    low = (lowest, skin_cr - MAX_CHROMA_DIFFERENCE, skin_cb - MAX_CHROMA_DIFFERENCE)
    high = (highest + 10, skin_cr + MAX_CHROMA_DIFFERENCE, skin_cb + MAX_CHROMA_DIFFERENCE)
    return cv2.inRange(smoothed, low, high) > 0
