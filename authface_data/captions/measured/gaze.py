"""Gaze: into the camera, or away, from the head's yaw and where the irises stand between the corners of the eyes.

An iris is the dark of an eye's opening: the centroid of what is darker than the middle between its 5th and 90th percentile. Its
place runs from -1 (at the left corner) to 1; the mean of both eyes, times 60 degrees, is added to the yaw. Within 14 degrees
the gaze is direct, beyond 24 it is away.

Abstains where an eye is not visible, where the eyes disagree by more than .4, where the landmarks are five, and, for a direct
gaze, where the head is bowed by more than 14 degrees: closed and lowered eyes look like open ones to dlib's points.
"""

from __future__ import annotations

import numpy as np

from authface_data.captions.measured.measurement import FaceCrop, Measurement, above, below, with_doubt
from authface_data.faces.landmarks import LEFT_EYE, RIGHT_EYE

DEGREES_OF_A_PLACE, MOST_APART = 60.0, 0.4
DIRECT, AWAY, WIDTH = 14.0, 24.0, 2.5
PROFILE, BOWED = 60.0, 14.0


def measure(face: FaceCrop) -> list[Measurement]:
    yaw = float(face.row["yaw_deg"])
    if abs(yaw) > PROFILE:  # nobody sees the camera past their own nose
        return [above("gaze", "looking away", abs(yaw), PROFILE, WIDTH)]
    if not face.both_eyes or len(face.points) == 5:
        return []
    left, right = (iris_place(face.brightness, face.points[eye]) for eye in (LEFT_EYE, RIGHT_EYE))
    if left is None or right is None or abs(left - right) > MOST_APART:
        return []
    angle = abs(yaw + DEGREES_OF_A_PLACE * (left + right) / 2)
    raised = below("gaze", "direct gaze", -float(face.row["pitch_deg"]), BOWED, WIDTH).confidence
    return [
        with_doubt(below("gaze", "direct gaze", angle, DIRECT, WIDTH), raised),
        above("gaze", "looking away", angle, AWAY, WIDTH),
    ]


def iris_place(brightness: np.ndarray, eye: np.ndarray) -> float | None:
    """Where the iris stands between the corners of an eye, -1 left to 1 right. eye: dlib's six points. None: nothing to see."""
    import cv2

    mask = np.zeros(brightness.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(eye * 8).astype(np.int32)), 1, shift=3)
    opening = brightness[mask > 0]
    if len(opening) < 20:
        return None
    low, high = np.percentile(opening, (5, 90))
    weights = np.clip((low + high) / 2 - brightness, 0, None) * mask
    if not weights.any():
        return None
    rows, columns = np.nonzero(weights)
    centre = np.average(np.stack([columns, rows], axis=1), axis=0, weights=weights[rows, columns])
    corners = eye[3] - eye[0]
    return float((centre - (eye[0] + eye[3]) / 2) @ corners / (corners @ corners) * 2)
