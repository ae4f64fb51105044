"""Finding the faces of a photograph that is to be restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from authface_data.faces.align import Quad, ffhq_quad
from authface_data.faces.boxes import area
from authface_data.faces.detect import detect_from_size
from authface_data.faces.detectors import make_detector
from authface_data.faces.landmarks import alignment_points
from authface_data.images.open import Photo

FaceSelection = Literal["largest", "all"]

MIN_SCORE = 0.6
"""Lowest detector score of a face."""
MIN_FACE_PX = 32
"""Default size of the smallest face: longer side of its box."""

ALIGNED_SIZE_RATIO = 1.35
"""Largest ratio, in either direction, between the sides of the picture and of its face's quad."""
ALIGNED_OFFSET = 0.12
"""Largest distance between the centres of both along an axis, as a share of the picture's side."""
ALIGNED_ROTATION_DEG = 15.0
"""Largest angle between the sides of both."""


@dataclass(frozen=True)
class FoundFace:
    """A face of a photograph.

    Attributes:
        box_px: (4,) pixel edges left, top, right, bottom in the upright photograph.
        score: Score of the detector, 0 to 1.
        quad: The quad of its aligned crop in the upright photograph.
    """

    box_px: np.ndarray
    score: float
    quad: Quad


class FaceFinder:
    """Detects faces and aligns them by the detector's five landmarks.

    The 68 landmarks of dlib are not used: they are unreliable on degraded faces.

    Args:
        detector: Name of the detector, see `make_detector`.
        weights_dir: Folder of the setting `weights_dir`, if any.
        device: A torch device, such as "cpu" or "cuda:0".
        min_face_px: Longer side of the box of the smallest face, in pixels of the photograph.

    Raises:
        UserError: If the detector is unknown.
        MissingResourceError: If its weights are missing.
    """

    def __init__(
        self,
        detector: str,
        weights_dir: str | None,
        device: str = "cpu",
        min_face_px: int = MIN_FACE_PX,
    ) -> None:
        self.min_face_px = min_face_px
        self.detector = make_detector(detector)
        self.detector.setup(device if self.detector.uses_gpu else "cpu", weights_dir)

    def find(self, photo: Photo) -> list[FoundFace]:
        """Find the faces of a photograph.

        Args:
            photo: The photograph.

        Returns:
            The faces from left to right. The list is empty if no face is detected.

        Raises:
            Exception: One of `DECODE_ERRORS` if the file cannot be decoded.
        """
        detections = detect_from_size(self.detector, photo, self.min_face_px, MIN_SCORE)
        return [
            FoundFace(face.box_px, face.score, ffhq_quad(*alignment_points(face.landmarks5_px)))
            for face in sorted(detections, key=lambda face: float(face.box_px[0]))
        ]


def select_faces(faces: Sequence[FoundFace], selection: FaceSelection) -> list[FoundFace]:
    """Select the faces to restore.

    Args:
        faces: All faces of a photograph.
        selection: "all" returns every face, "largest" only the face with the largest box.
    """
    if selection == "largest":
        return sorted(faces, key=lambda face: -area(face.box_px))[:1]
    return list(faces)


def covers_picture(face: FoundFace, side_px: int) -> bool:
    """Whether a square picture is the aligned crop of a face.

    The crop of FFHQ's alignment that belongs to the landmarks of the face must agree with the
    picture in centre, size and rotation, within the tolerances of this module. They allow for the
    error of landmarks on degraded faces.

    Args:
        face: A face in the picture.
        side_px: Side of the picture.
    """
    corners_px = face.quad.corners_px
    # Corners are pixel centres; half a pixel leads to pixel edges.
    offset_px = np.abs(corners_px.mean(axis=0) + 0.5 - side_px / 2).max()
    ratio = face.quad.size_px / side_px
    across = corners_px[3] - corners_px[0]
    rotation_deg = abs(np.degrees(np.arctan2(across[1], across[0])))
    return bool(
        1 / ALIGNED_SIZE_RATIO <= ratio <= ALIGNED_SIZE_RATIO
        and offset_px <= ALIGNED_OFFSET * side_px
        and rotation_deg <= ALIGNED_ROTATION_DEG
    )
