"""Boxes of the eyes and the mouth in a crop, and whether each can be seen there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from authface_data.faces.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE

REFERENCE_PX = 512
MIN_HALF_PX = 16.0  # at 512
EYE_GROWTH = 1.4
# Beyond this yaw the far eye and the far half of the mouth are seen edge on or not at all.
FAR_EYE_YAW_DEG, MOUTH_YAW_DEG = 50.0, 75.0


@dataclass(frozen=True)
class Region:
    """box_crop_px: (4,) pixel edges [x0, y0, x1, y1], square, may reach beyond the crop."""

    box_crop_px: np.ndarray
    visible: bool


def square_box(points: np.ndarray, size_px: int, growth: float) -> np.ndarray:
    """Box edges around pixel-centre points (n, 2): centre = mean + 0.5, half = max(max extent / 2, 16 at 512) * growth."""
    half = max(float(np.ptp(points, axis=0).max()) / 2, MIN_HALF_PX * size_px / REFERENCE_PX) * growth
    centre = points.mean(0) + 0.5
    return np.concatenate([centre - half, centre + half])


def regions(landmarks_crop_px: np.ndarray, size_px: int, yaw_deg: float, on_photo: np.ndarray) -> dict[str, Region]:
    """left_eye, right_eye and mouth (as seen in the image) of a crop of side size_px, from (68, 2) or (5, 2) landmarks.

    With five points there is no extent: an eye takes the side that it has on a mean face, .2 of the crop, the mouth .25.
    Visible: the box lies within the crop, its landmarks on the photograph (on_photo: (68,) or (5,) bool), and the head is not
    turned so far that the region is on its far side.
    """
    if len(landmarks_crop_px) == 5:
        left, right, _, mouth_left, mouth_right = landmarks_crop_px
        there = {"left_eye": on_photo[0], "right_eye": on_photo[1], "mouth": on_photo[3:].all()}
        boxes = {
            "left_eye": _around(left, 0.1 * size_px),
            "right_eye": _around(right, 0.1 * size_px),
            "mouth": _around((mouth_left + mouth_right) / 2, 0.125 * size_px),
        }
    else:
        there = {"left_eye": on_photo[LEFT_EYE].all(), "right_eye": on_photo[RIGHT_EYE].all(), "mouth": on_photo[MOUTH].all()}
        boxes = {
            "left_eye": square_box(landmarks_crop_px[LEFT_EYE], size_px, EYE_GROWTH),
            "right_eye": square_box(landmarks_crop_px[RIGHT_EYE], size_px, EYE_GROWTH),
            "mouth": square_box(landmarks_crop_px[MOUTH], size_px, 1.0),
        }
    # Looking to the right of the image hides the right eye first.
    turned = {
        "left_eye": yaw_deg < -FAR_EYE_YAW_DEG,
        "right_eye": yaw_deg > FAR_EYE_YAW_DEG,
        "mouth": abs(yaw_deg) > MOUTH_YAW_DEG,
    }
    return {
        name: Region(box, bool((box >= 0).all() and (box <= size_px).all() and there[name] and not turned[name]))
        for name, box in boxes.items()
    }


def _around(point: np.ndarray, half: float) -> np.ndarray:
    return np.concatenate([point + 0.5 - half, point + 0.5 + half])
