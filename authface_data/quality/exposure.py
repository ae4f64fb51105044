"""Exposure: blown-out highlights and black shadows on the face.

At face scale, a pixel is clipped if at least two channels are 253 or more, or if all channels are 3
or less. One saturated channel is no loss: the red of light skin in good light is often 255. Only
areas count that contain a square of 5 px, so that catch-lights, wet lips and strands of hair do
not. They are counted in an oval around eyes, nose and mouth that a turned head still fills. With
the share p of clipped pixels, the score is exp(-p / 0.12): 0.37 if 12 % of the oval are clipped.

Fails on: black sunglasses, masks and beards in the deepest black (count as shadows), a profile
before a white wall (counts as highlights), and clipping that was darkened or compressed afterwards
(is missed).
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import FACE_SCALE_PX, resize_to_face_scale

VERSION = "3"
OVAL_CENTRE = (0.5, 0.58)
"""(x, y) of the oval's centre, as shares of the crop's side."""
OVAL_RADII = (0.18, 0.26)
"""Half width and half height of the oval, as shares of the crop's side."""
HIGHEST_LEVEL = 253
LOWEST_LEVEL = 3
AREA_SIDE_PX = 5
"""Side of the smallest square that counts as an area."""
SHARE_SCALE = 0.12
"""Share of clipped pixels at which the score is 1/e."""


def score(crop: np.ndarray) -> float:
    """Measure clipping.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (most of the face is clipped) to 1 (nothing is clipped).
    """
    x = (np.arange(FACE_SCALE_PX) + 0.5) / FACE_SCALE_PX - OVAL_CENTRE[0]
    y = (np.arange(FACE_SCALE_PX)[:, None] + 0.5) / FACE_SCALE_PX - OVAL_CENTRE[1]
    is_face = (x / OVAL_RADII[0]) ** 2 + (y / OVAL_RADII[1]) ** 2 <= 1

    # The second highest and the highest channel of each pixel.
    red, green, blue = np.moveaxis(resize_to_face_scale(crop), -1, 0)
    higher, lower = np.maximum(red, green), np.minimum(red, green)
    second = np.maximum(lower, np.minimum(higher, blue))
    is_blown = second >= HIGHEST_LEVEL
    is_black = np.maximum(higher, blue) <= LOWEST_LEVEL
    is_clipped = _keep_areas(is_blown) | _keep_areas(is_black)
    return float(np.exp(-is_clipped[is_face].mean() / SHARE_SCALE))


def _keep_areas(is_clipped: np.ndarray) -> np.ndarray:
    """Remove what is narrower than the smallest area that counts."""
    import cv2

    square = np.ones((AREA_SIDE_PX, AREA_SIDE_PX), np.uint8)
    return cv2.morphologyEx(is_clipped.astype(np.uint8), cv2.MORPH_OPEN, square) > 0
