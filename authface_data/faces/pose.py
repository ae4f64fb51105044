"""Head pose by perspective-n-point from a few rigid points of the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A face in units of 1/450 of the distance between the outer eye corners, nose tip at the origin: x right, y down, z away
# from the camera. Heights are those of the 68-point annotation on frontal faces, depths rounded from anthropometry. A smile
# lifts the mouth's corners and reads as looking down. Its error on labelled heads has not been measured.
_MODEL = np.array(
    [
        (0.0, 0.0, 0.0),
        (0.0, 430.0, 60.0),
        (-225.0, -170.0, 190.0),
        (225.0, -170.0, 190.0),
        (-150.0, 165.0, 90.0),
        (150.0, 165.0, 90.0),
    ]
)
_DLIB = [30, 8, 36, 45, 48, 54]  # nose tip, chin, outer eye corners, mouth corners
# The detector's five: eye centres, nose tip, mouth corners.
_MODEL5 = np.array(
    [(-155.0, -170.0, 175.0), (155.0, -170.0, 175.0), (0.0, 0.0, 0.0), (-150.0, 165.0, 90.0), (150.0, 165.0, 90.0)]
)


@dataclass(frozen=True)
class Pose:
    """Degrees. yaw: positive looks to the right of the image; pitch: positive looks up; roll: positive turns clockwise."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def head_pose(landmarks: np.ndarray, size_px: tuple[int, int]) -> Pose:
    """Pose from (68, 2) or (5, 2) landmarks in a picture of (width, height), its focal length taken as its long side."""
    import cv2

    model, points = (_MODEL5, landmarks) if len(landmarks) == 5 else (_MODEL, landmarks[_DLIB])
    width, height = size_px
    focal = float(max(size_px))
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    # SQPnP finds the global optimum: the iterative solver may put the face behind the camera.
    _, rotation, _ = cv2.solvePnP(model, np.ascontiguousarray(points, dtype=float), camera, None, flags=cv2.SOLVEPNP_SQPNP)
    matrix, _ = cv2.Rodrigues(rotation)
    # Axes: x right, y down, z into the picture. The face's forward direction is -z of the model.
    forward = -matrix[:, 2]
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return Pose(float(yaw), float(pitch), float(roll))
