"""Sharpness: defocus and motion blur, by how much a further blur changes eyes, nose and mouth.

After Crete et al. 2007, "The Blur Effect", at face scale and within the middle of the face,
because a blurred background is not a defect. The luma, slightly smoothed against noise (sigma
0.8), is blurred with a box of nine pixels along each of four directions. A sharp picture loses
most of its differences between neighbours, a blurred picture loses few. With the differences D
before and B after, the share lost is sum(max(D - B, 0)) / sum(D). The lowest share of the four
directions is used, because motion blurs only one direction. The score is a logistic function of
it, 0.5 where a share of 0.17 is lost.

Fails on: strong noise (counts as sharp) and an evenly lit face with closed eyes (has few edges). A
slight blur, of sigma below 2 px on a face of 512 px, looks like a soft photograph.
"""

from __future__ import annotations

import numpy as np

from authface_data.images.colour import luma
from authface_data.quality.face_scale import FACE_SCALE_PX, resize_to_face_scale, sigmoid

VERSION = "2"
BOX_PX = 9
SMOOTHING_SIGMA_PX = 0.8
MIDPOINT = 0.17
WIDTH = 0.03

# The middle of the face at face scale.
FACE_ROWS = slice(round(0.36 * FACE_SCALE_PX), round(0.86 * FACE_SCALE_PX))
FACE_COLUMNS = slice(round(0.20 * FACE_SCALE_PX), round(0.80 * FACE_SCALE_PX))

ROTATED_MARGIN_PX = 60
"""Border without content after the rotation by 45 degrees."""


def score(crop: np.ndarray) -> float:
    """Measure sharpness.

    Args:
        crop: (size, size, 3) uint8 sRGB.

    Returns:
        0 (strongly blurred) to 1 (sharp).
    """
    import cv2

    luma_plane = luma(resize_to_face_scale(crop))
    face = cv2.GaussianBlur(luma_plane[FACE_ROWS, FACE_COLUMNS], (0, 0), SMOOTHING_SIGMA_PX)

    # Horizontal and vertical differences of the rotated face are the two diagonals.
    height, width = face.shape
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), 45, 1)
    inner = slice(ROTATED_MARGIN_PX, -ROTATED_MARGIN_PX)
    rotated = cv2.warpAffine(face, rotation, (width, height))[inner, inner]
    losses = [blur_loss(plane, axis) for plane in (face, rotated) for axis in (0, 1)]
    return sigmoid(min(losses), MIDPOINT, WIDTH)


def blur_loss(plane: np.ndarray, axis: int) -> float:
    """Measure the share of differences between neighbours that a box blur removes.

    Args:
        plane: (height, width) float32.
        axis: Direction of the differences and of the blur: 0 vertical, 1 horizontal.

    Returns:
        0 (a blurred or flat plane) to 1.
    """
    import cv2

    box = (1, BOX_PX) if axis == 0 else (BOX_PX, 1)
    before = np.abs(np.diff(plane, axis=axis))
    after = np.abs(np.diff(cv2.blur(plane, box), axis=axis))
    total = float(before.sum())
    return float(np.maximum(before - after, 0).sum()) / total if total > 0 else 0.0
