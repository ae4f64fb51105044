"""Finding and aligning the faces of a photograph that is to be restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from authface_data.faces.align import Quad, align_photo, ffhq_quad
from authface_data.faces.boxes import area
from authface_data.faces.detect import detect_faces
from authface_data.faces.detectors import make_detector
from authface_data.faces.landmarks import alignment_points
from authface_data.images.open import Photo

FaceSelection = Literal["largest", "all"]

LONG_SIDE_PX = 1280
"""Long side to which the photograph is reduced for detection."""

MIN_SCORE = 0.6
"""Lowest detector score of a face."""


@dataclass(frozen=True)
class FoundFace:
    """A face of a photograph and its crop.

    Attributes:
        box_px: (4,) pixel edges left, top, right, bottom in the upright photograph.
        score: Score of the detector, 0 to 1.
        quad: The quad of the crop in the upright photograph.
        crop: (size_px, size_px, 3) uint8 sRGB.
    """

    box_px: np.ndarray
    score: float
    quad: Quad
    crop: np.ndarray


class FaceFinder:
    """Detects faces and aligns them by the detector's five landmarks.

    The 68 landmarks of dlib are not used: they are unreliable on degraded faces.

    Args:
        detector: Name of the detector, see `make_detector`.
        weights_dir: Folder of the setting `weights_dir`, if any.

    Raises:
        UserError: If the detector is unknown.
        MissingResourceError: If its weights are missing.
    """

    def __init__(self, detector: str, weights_dir: str | None) -> None:
        self.detector = make_detector(detector)
        self.detector.setup("cpu", weights_dir)

    def find(self, data: bytes, selection: FaceSelection, size_px: int) -> list[FoundFace]:
        """Find the faces of a photograph.

        Args:
            data: The content of the photograph's file.
            selection: "all" returns every face, "largest" only the face with the largest box.
            size_px: Side of the crops.

        Returns:
            The faces from left to right. The list is empty if no face is detected.

        Raises:
            Exception: One of `DECODE_ERRORS` if the file cannot be decoded.
        """
        photo = Photo(lambda: data)
        (detections,) = detect_faces(self.detector, [photo], LONG_SIDE_PX, MIN_SCORE)
        if selection == "largest":
            detections = sorted(detections, key=lambda face: -area(face.box_px))[:1]

        faces = []
        for face in sorted(detections, key=lambda face: float(face.box_px[0])):
            quad = ffhq_quad(*alignment_points(face.landmarks5_px))
            crop = align_photo(photo, quad, size_px)
            faces.append(FoundFace(face.box_px, face.score, quad, crop.pixels))
        return faces
