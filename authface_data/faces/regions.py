"""Boxes of the eyes and the mouth in a crop. Left and right are as seen in the image."""

from __future__ import annotations

import numpy as np

from authface_data.faces.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE

REFERENCE_PX = 512
"""Side of the crop for which MIN_HALF_PX is given."""
MIN_HALF_PX = 16.0
"""Smallest half side of a box, before it is multiplied by the growth factor."""

# Growth factors of the half sides.
EYE_GROWTH = 1.4
MOUTH_GROWTH = 1.0

# Five landmarks give no extent of the eyes and the mouth. The half sides are then those of a mean
# face, as shares of the crop's side.
EYE_HALF_SHARE = 0.1
MOUTH_HALF_SHARE = 0.125


def square_box(points: np.ndarray, size_px: int, growth: float) -> np.ndarray:
    """Compute a square box around landmarks.

    Its half side is half the larger extent of the points, but at least 16 px in a crop of 512 px,
    times `growth`.

    Args:
        points: (n, 2) pixel centres in the crop.
        size_px: Side of the crop.
        growth: Factor on the half side.

    Returns:
        (4,) pixel edges left, top, right, bottom.
    """
    half_extent = float(np.ptp(points, axis=0).max()) / 2
    half = max(half_extent, MIN_HALF_PX * size_px / REFERENCE_PX) * growth
    centre = points.mean(0) + 0.5
    return np.concatenate([centre - half, centre + half])


def region_boxes(landmarks_crop_px: np.ndarray, size_px: int) -> dict[str, np.ndarray]:
    """Compute the boxes of the eyes and the mouth.

    Args:
        landmarks_crop_px: (68, 2) or (5, 2) landmarks, pixel centres in the crop.
        size_px: Side of the crop.

    Returns:
        `left_eye`, `right_eye` and `mouth`, each as (4,) pixel edges left, top, right, bottom of a
        square. A box may extend beyond the crop.
    """
    if len(landmarks_crop_px) == 5:
        left_eye, right_eye, _, mouth_left, mouth_right = landmarks_crop_px
        mouth = (mouth_left + mouth_right) / 2
        return {
            "left_eye": _box_around(left_eye, EYE_HALF_SHARE * size_px),
            "right_eye": _box_around(right_eye, EYE_HALF_SHARE * size_px),
            "mouth": _box_around(mouth, MOUTH_HALF_SHARE * size_px),
        }
    return {
        "left_eye": square_box(landmarks_crop_px[LEFT_EYE], size_px, EYE_GROWTH),
        "right_eye": square_box(landmarks_crop_px[RIGHT_EYE], size_px, EYE_GROWTH),
        "mouth": square_box(landmarks_crop_px[MOUTH], size_px, MOUTH_GROWTH),
    }


def _box_around(point: np.ndarray, half: float) -> np.ndarray:
    return np.concatenate([point + 0.5 - half, point + 0.5 + half])
