"""Gaze tags: whether the person looks into the camera or away.

The gaze angle is the yaw of the head plus the turn of the eyes. The iris is the dark part of the
eye's opening: the centroid of the pixels darker than the middle between the opening's 5th and 90th
percentile, weighted by their darkness. Its position runs from -1 (left corner of the eye) to 1
(right corner); the mean position of both eyes, times 60 degrees, is the turn of the eyes. Below 14
degrees the gaze is direct, beyond 24 degrees the person looks away. Beyond 60 degrees of yaw, the
yaw alone decides.

The gaze is not measured if an eye is not visible, if the positions of the two irises differ by more
than 0.4, or if there are only five landmarks. A direct gaze also requires that the head is bowed by
less than 14 degrees, because dlib's landmarks do not distinguish closed or lowered eyes from open
ones.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement
from authface_data.faces.landmarks import LEFT_EYE, RIGHT_EYE

DEGREES_PER_POSITION = 60.0
MAX_POSITION_DIFFERENCE = 0.4
MAX_DIRECT_DEG = 14.0
MIN_AWAY_DEG = 24.0
MIN_PROFILE_YAW_DEG = 60.0
MAX_BOWED_DEG = 14.0
WIDTH_DEG = 2.5
MIN_OPENING_PIXELS = 20


def measure_gaze(face: FaceCrop) -> list[Measurement]:
    """Measure the gaze from yaw and the positions of the irises."""
    yaw = float(face.row["yaw_deg"])
    if abs(yaw) > MIN_PROFILE_YAW_DEG:
        return [
            Measurement.above(
                "gaze", "looking away", abs(yaw), bound=MIN_PROFILE_YAW_DEG, width=WIDTH_DEG
            )
        ]
    if not face.both_eyes_visible or len(face.landmarks) == 5:
        return []

    left = iris_position(face.brightness, face.landmarks[LEFT_EYE])
    right = iris_position(face.brightness, face.landmarks[RIGHT_EYE])
    if left is None or right is None or abs(left - right) > MAX_POSITION_DIFFERENCE:
        return []

    angle = abs(yaw + DEGREES_PER_POSITION * (left + right) / 2)
    direct = Measurement.below("gaze", "direct gaze", angle, bound=MAX_DIRECT_DEG, width=WIDTH_DEG)
    bowed = -float(face.row["pitch_deg"])
    upright = Measurement.below("gaze", "direct gaze", bowed, bound=MAX_BOWED_DEG, width=WIDTH_DEG)
    return [
        direct.capped(upright.confidence),
        Measurement.above("gaze", "looking away", angle, bound=MIN_AWAY_DEG, width=WIDTH_DEG),
    ]


def iris_position(brightness: np.ndarray, eye: np.ndarray) -> float | None:
    """Locate the iris between the corners of an eye.

    Args:
        brightness: (height, width) float32, 0 to 255.
        eye: (6, 2) float; dlib's landmarks of one eye, (x, y) in px. The first is the left corner,
            the fourth the right corner.

    Returns:
        -1 at the left corner, 1 at the right corner; None if the opening is too small or uniform.
    """
    import cv2

    mask = np.zeros(brightness.shape, np.uint8)
    # fillConvexPoly takes fixed-point coordinates: three bits of fraction.
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(eye * 8).astype(np.int32)), 1, shift=3)
    opening = brightness[mask > 0]
    if len(opening) < MIN_OPENING_PIXELS:
        return None

    low, high = np.percentile(opening, (5, 90))
    darkness = np.clip((low + high) / 2 - brightness, 0, None) * mask
    if not darkness.any():
        return None

    rows, columns = np.nonzero(darkness)
    coordinates = np.stack([columns, rows], axis=1)
    centre = np.average(coordinates, axis=0, weights=darkness[rows, columns])
    axis = eye[3] - eye[0]
    return float((centre - (eye[0] + eye[3]) / 2) @ axis / (axis @ axis) * 2)
