"""Detection in photographs that lie on their side or upside down without saying so in EXIF.

A detector finds most faces of a turned photograph, but their landmarks are poor. If the five points
of the largest face are rolled by more than 45 degrees, the photograph is turned by quarter turns
until they are upright, and searched again. If nothing is found, it is searched upside down. Upright
photographs with a face cost nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from authface_data.faces.boxes import area
from authface_data.faces.detect import Detect, Picture, detect_faces
from authface_data.faces.detectors import Detection
from authface_data.faces.pose import Pose, head_pose

HALF_TURN = 2


class TurnedPhoto:
    """A photograph turned counter-clockwise by quarter turns.

    Args:
        photo: The photograph.
        quarter_turns: 1, 2 or 3.
    """

    def __init__(self, photo: Picture, quarter_turns: int) -> None:
        self._photo = photo
        self._quarter_turns = quarter_turns

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) after the turn."""
        width, height = self._photo.size_px
        return (height, width) if self._quarter_turns % 2 else (width, height)

    def pixels(self, long_side_px: int | None = None) -> np.ndarray:
        """Decode the photograph and turn it.

        Args:
            long_side_px: As for `Photo.pixels`.

        Returns:
            (height, width, 3) uint8 sRGB.
        """
        return np.ascontiguousarray(np.rot90(self._photo.pixels(long_side_px), self._quarter_turns))


def detect_faces_upright(
    detect: Detect, photos: Sequence[Picture], long_side_px: int
) -> list[list[Detection]]:
    """Detect the faces of photographs, also of those that are turned.

    Args:
        detect: Detects the faces of pictures. All pictures are given to it at once.
        photos: The photographs.
        long_side_px: As for `detect_faces`.

    Returns:
        The faces of each photograph in its pixels, highest score first. The first landmark is the
        left eye as seen when the face is upright.
    """
    faces_by_photo = detect_faces(detect, photos, long_side_px)
    turns = {index: _turns_needed(faces) for index, faces in enumerate(faces_by_photo)}
    rotated = {
        index: TurnedPhoto(photos[index], count) for index, count in turns.items() if count > 0
    }
    if not rotated:
        return faces_by_photo

    results = detect_faces(detect, list(rotated.values()), long_side_px)
    for index, faces in zip(rotated, results, strict=True):
        # Keep what was found at first if the turned photograph shows no better.
        if faces and _turns_needed(faces) == 0:
            size_px = photos[index].size_px
            faces_by_photo[index] = [_turn_back(face, size_px, turns[index]) for face in faces]
    return faces_by_photo


def quarter_turns(landmarks5_px: np.ndarray) -> int:
    """Count the counter-clockwise quarter turns that make a face upright, to within 45 degrees.

    Args:
        landmarks5_px: (5, 2) landmarks of the detector.

    Returns:
        0 to 3.
    """
    # From the eyes to the mouth, which also holds in profile.
    down = landmarks5_px[3:].mean(0) - landmarks5_px[:2].mean(0)
    roll = np.arctan2(-down[0], down[1])
    return int(np.rint(roll / (np.pi / 2))) % 4


def turn_points(points: np.ndarray, size_px: tuple[int, int], turns: int) -> np.ndarray:
    """Map points of a picture to the picture after counter-clockwise quarter turns.

    Args:
        points: (n, 2) pixel centres.
        size_px: (width, height) before the turns.
        turns: 0 to 3, as for `numpy.rot90`.

    Returns:
        (n, 2) pixel centres.
    """
    width, height = size_px
    for _ in range(turns):
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], axis=1)
        width, height = height, width
    return points


def upright_pose(landmarks: np.ndarray, landmarks5: np.ndarray) -> Pose:
    """Estimate the pose of a head that may lie on its side or upside down.

    Args:
        landmarks: (68, 2) or (5, 2) landmarks.
        landmarks5: (5, 2) landmarks of the detector.

    Returns:
        Yaw and pitch as seen when the face is turned upright by quarter turns, and roll in the
        photograph, from -180 to 180.
    """
    turns = quarter_turns(landmarks5)
    size_px = (0, 0)  # moves the turned points, which does not change the pose
    pose = head_pose(
        turn_points(landmarks, size_px, turns), turn_points(landmarks5, size_px, turns)
    )
    roll_deg = (pose.roll_deg + 90 * turns + 180) % 360 - 180
    return replace(pose, roll_deg=roll_deg)


def _turns_needed(faces: Sequence[Detection]) -> int:
    """Quarter turns after which the largest face is upright; half a turn without any face."""
    if not faces:
        return HALF_TURN
    return quarter_turns(max(faces, key=lambda face: area(face.box_px)).landmarks5_px)


def _turn_back(face: Detection, size_px: tuple[int, int], turns: int) -> Detection:
    """Convert a detection in a turned photograph to pixels of the photograph."""
    rotated_size_px = size_px[::-1] if turns % 2 else size_px
    back = (4 - turns) % 4
    # Boxes are pixel edges, half a pixel beyond the centres.
    corners = turn_points(face.box_px.reshape(2, 2) - 0.5, rotated_size_px, back) + 0.5
    return Detection(
        box_px=np.concatenate([corners.min(0), corners.max(0)]),
        score=face.score,
        landmarks5_px=turn_points(face.landmarks5_px, rotated_size_px, back),
    )
