"""Head pose: a model face projected at known angles is measured back."""

import numpy as np
import pytest

from authface_data.faces import pose


def turned(points, yaw, pitch, roll):
    """Turn model points (x right, y down, z away): roll first, then pitch, then yaw, in degrees, signs as documented."""
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    about_z = np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    )
    about_y = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    return points @ (about_y @ about_x @ about_z).T


def seen(points, size=(1000, 1200)):
    """Pixels of model points in front of a camera at about the distance that the method supposes."""
    away = points + [0, 0, 9000]
    return away[:, :2] / away[:, 2:] * 8 * max(size) + np.array(size) / 2


def turned_five(yaw, pitch, roll):
    return seen(turned(pose._MODEL5, yaw, pitch, roll))


@pytest.mark.parametrize("backend", [5, 68])
@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"),
    [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 15, 0), (0, -20, 0), (0, 0, 12), (25, -10, 0)],
)
def test_angles_come_back(backend, yaw, pitch, roll):
    if backend == 5:
        landmarks = seen(turned(pose._MODEL5, yaw, pitch, roll))
    else:
        landmarks = np.zeros((68, 2))
        landmarks[pose._DLIB] = seen(turned(pose._MODEL, yaw, pitch, roll))
    found = pose.head_pose(landmarks, landmarks if backend == 5 else turned_five(yaw, pitch, roll))
    assert found.yaw_deg == pytest.approx(yaw, abs=1.5)
    assert found.pitch_deg == pytest.approx(pitch, abs=1.5)
    if not (yaw or pitch):
        assert found.roll_deg == pytest.approx(roll, abs=1.5)
