"""The faces of a photograph that is to be restored: where they are, and their crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from authface_data.faces.align import Quad, align_photo, ffhq_quad
from authface_data.faces.boxes import area
from authface_data.faces.detect import detect
from authface_data.faces.detectors import make_detector
from authface_data.faces.landmarks import eyes_and_mouth
from authface_data.images.open import Photo

Which = Literal["largest", "all"]
LONG_SIDE_PX, LEAST_SCORE = 1280, 0.6


@dataclass(frozen=True)
class FoundFace:
    """box_px: (4,) edges; quad: in the upright photograph; crop: (size, size, 3) uint8 sRGB."""

    box_px: np.ndarray
    score: float
    quad: Quad
    crop: np.ndarray


class FaceFinder:
    """By a detector's five points: 68 are too much of a degraded face. Raises UserError, and MissingResourceError without weights."""

    def __init__(self, detector: str, weights_dir: str | None):
        self.detector = make_detector(detector)
        self.detector.setup("cpu", weights_dir)

    def find(self, data: bytes, which: Which, size_px: int) -> list[FoundFace]:
        """Faces of a photograph's file, from left to right; none where there are none. Raises Pillow's errors."""
        photo = Photo(lambda: data)
        (found,) = detect(self.detector, [photo], LONG_SIDE_PX, LEAST_SCORE)
        if which == "largest":
            found = sorted(found, key=lambda face: -area(face.box_px))[:1]
        faces = []
        for face in sorted(found, key=lambda face: float(face.box_px[0])):
            quad = ffhq_quad(*eyes_and_mouth(face.landmarks5_px))
            faces.append(
                FoundFace(face.box_px, face.score, quad, align_photo(photo, quad, size_px).pixels)
            )
        return faces
