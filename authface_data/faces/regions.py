"""Boxes of the eyes and the mouth in a crop."""

from __future__ import annotations

import numpy as np

from authface_data.faces.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE

REFERENCE_PX = 512
MIN_HALF_PX = 16.0  # at 512
EYE_GROWTH = 1.4


def square_box(points: np.ndarray, size_px: int, growth: float) -> np.ndarray:
    """Box edges around pixel-centre points (n, 2): centre = mean + 0.5, half = max(max extent / 2, 16 at 512) * growth."""
    half = (
        max(float(np.ptp(points, axis=0).max()) / 2, MIN_HALF_PX * size_px / REFERENCE_PX) * growth
    )
    centre = points.mean(0) + 0.5
    return np.concatenate([centre - half, centre + half])


def regions(landmarks_crop_px: np.ndarray, size_px: int) -> dict[str, np.ndarray]:
    """left_eye, right_eye and mouth (as seen in the image) of a crop of side size_px, from (68, 2) or (5, 2) landmarks.

    Each (4,) pixel edges [x0, y0, x1, y1], square, may reach beyond the crop. With five points there is no extent: an eye takes
    the side that it has on a mean face, .2 of the crop, the mouth .25.
    """
    if len(landmarks_crop_px) == 5:
        left, right, _, mouth_left, mouth_right = landmarks_crop_px
        return {
            "left_eye": _around(left, 0.1 * size_px),
            "right_eye": _around(right, 0.1 * size_px),
            "mouth": _around((mouth_left + mouth_right) / 2, 0.125 * size_px),
        }
    return {
        "left_eye": square_box(landmarks_crop_px[LEFT_EYE], size_px, EYE_GROWTH),
        "right_eye": square_box(landmarks_crop_px[RIGHT_EYE], size_px, EYE_GROWTH),
        "mouth": square_box(landmarks_crop_px[MOUTH], size_px, 1.0),
    }


def _around(point: np.ndarray, half: float) -> np.ndarray:
    return np.concatenate([point + 0.5 - half, point + 0.5 + half])
