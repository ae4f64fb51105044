"""Exposure: clipped highlights and shadows on the face.

It counts pixels at face scale in an oval around eyes, nose and mouth. A pixel is clipped if any
channel is at least 253 or all channels are at most 3. With the share p of clipped pixels, the
score is exp(-p / 0.15): 0.37 if 15 % of the face are clipped.

Fails on: saturated make-up and neon light (one channel clips without loss of detail) and black
hair over the face.
"""

from __future__ import annotations

import numpy as np

from authface_data.quality.face_scale import FACE_SCALE_PX, resize_to_face_scale

VERSION = "2"
OVAL_CENTRE = (0.5, 0.58)
"""(x, y) of the oval's centre, as shares of the crop's side."""
OVAL_RADII = (0.22, 0.30)
"""Half width and half height of the oval, as shares of the crop's side."""
SHARE_SCALE = 0.15
"""Share of clipped pixels at which the score is 1/e."""


def score(crop: np.ndarray) -> float:
    """Measure clipping.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (most of the face is clipped) to 1 (nothing is clipped).
    """
    rows, columns = (np.mgrid[:FACE_SCALE_PX, :FACE_SCALE_PX] + 0.5) / FACE_SCALE_PX
    x = (columns - OVAL_CENTRE[0]) / OVAL_RADII[0]
    y = (rows - OVAL_CENTRE[1]) / OVAL_RADII[1]
    face = resize_to_face_scale(crop)[x**2 + y**2 <= 1]
    is_clipped = (face >= 253).any(-1) | (face <= 3).all(-1)
    return float(np.exp(-is_clipped.mean() / SHARE_SCALE))
