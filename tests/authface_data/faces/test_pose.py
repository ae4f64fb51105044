"""Head pose: a head model projected at known angles yields those angles."""

import numpy as np
import pytest

from authface_data.faces.pose import MODEL5_POINTS, MODEL_INDICES, MODEL_POINTS, head_pose


def rotate(points, yaw, pitch, roll):
    """Rotate model points (x right, y down, z away) by roll, then pitch, then yaw, in degrees."""
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    about_z = np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    )
    about_y = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    return points @ (about_y @ about_x @ about_z).T


def project(points, size=(1000, 1200)):
    """Project model points with a camera at about the distance that `head_pose` assumes."""
    shifted = points + [0, 0, 9000]
    return shifted[:, :2] / shifted[:, 2:] * 8 * max(size) + np.array(size) / 2


@pytest.mark.parametrize("backend", [5, 68])
@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"),
    [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 15, 0), (0, -20, 0), (0, 0, 12), (25, -10, 0)],
)
def test_pose_recovers_angles_of_projected_model(backend, yaw, pitch, roll):
    landmarks5 = project(rotate(MODEL5_POINTS, yaw, pitch, roll))
    landmarks = landmarks5
    if backend == 68:
        landmarks = np.zeros((68, 2))
        landmarks[MODEL_INDICES] = project(rotate(MODEL_POINTS, yaw, pitch, roll))

    pose = head_pose(landmarks, landmarks5)

    assert pose.yaw_deg == pytest.approx(yaw, abs=1.5)
    assert pose.pitch_deg == pytest.approx(pitch, abs=1.5)
    if not (yaw or pitch):
        assert pose.roll_deg == pytest.approx(roll, abs=1.5)
