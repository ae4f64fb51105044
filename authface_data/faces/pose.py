"""Head pose by perspective-n-point from a few rigid points of the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A mean face in arbitrary units: x right, y down, z away from the camera, as seen in the image.
_MODEL = {
    "nose tip": (0.0, 0.0, 0.0),
    "chin": (0.0, 330.0, 65.0),
    "left eye outer": (-225.0, -170.0, 135.0),
    "right eye outer": (225.0, -170.0, 135.0),
    "left mouth": (-150.0, 150.0, 125.0),
    "right mouth": (150.0, 150.0, 125.0),
}
_DLIB = (30, 8, 36, 45, 48, 54)
# The detector's five: eye centres lie nearer the nose than the outer corners.
_MODEL5 = ((-165.0, -170.0, 120.0), (165.0, -170.0, 120.0), (0.0, 0.0, 0.0), (-150.0, 150.0, 125.0), (150.0, 150.0, 125.0))


@dataclass(frozen=True)
class Pose:
    """Degrees. yaw: positive looks to the right of the image; pitch: positive looks up; roll: positive turns clockwise."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def head_pose(landmarks: np.ndarray, size_px: tuple[int, int]) -> Pose:
    """Pose from (68, 2) or (5, 2) landmarks in a picture of (width, height), its focal length taken as its long side."""
    import cv2

    if len(landmarks) == 5:
        model, points, method = np.array(_MODEL5), landmarks, cv2.SOLVEPNP_EPNP
    else:
        model, points, method = np.array(list(_MODEL.values())), landmarks[list(_DLIB)], cv2.SOLVEPNP_ITERATIVE
    width, height = size_px
    focal = float(max(size_px))
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    _, rotation, _ = cv2.solvePnP(model, np.ascontiguousarray(points, dtype=float), camera, None, flags=method)
    matrix, _ = cv2.Rodrigues(rotation)
    # Axes: x right, y down, z into the picture. The face's forward direction is -z of the model.
    forward = -matrix[:, 2]
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return Pose(float(yaw), float(pitch), float(roll))
