"""Faces of every size in large photographs: looked for at two scales, and put together.

A detector's largest anchor is 512 px: it finds small faces in a large picture and large faces in a small one. So each
photograph is looked at with its long side at `long_side_px`, for faces from 2 % of it, and at a third of that, for faces up to
the whole frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from authface_data.faces.boxes import area, overlap, shared_area
from authface_data.faces.detectors import Detection, Detector
from authface_data.images.open import Photo

COARSE = 3
# By the longer side of a face's box, in parts of the picture's long side: what the two scales are trusted with.
COARSE_FROM, FINE_TO = 0.15, 0.3
SAME_OVERLAP, SAME_INSIDE = 0.4, 0.7


def detect(
    detector: Detector, photos: Sequence[Photo], long_side_px: int, min_score: float
) -> list[list[Detection]]:
    """The faces of each photograph in its own pixels, best first."""
    fine = [photo.pixels(long_side_px) for photo in photos]
    coarse = [_reduced(picture, long_side_px // COARSE) for picture in fine]
    found = []
    for photo, small, large, of_small, of_large in zip(
        photos,
        coarse,
        fine,
        detector.detect(coarse, min_score),
        detector.detect(fine, min_score),
        strict=True,
    ):
        if small.shape == large.shape:
            found.append(_in_photo(of_large, large, photo))
            continue
        big = [
            face for face in _in_photo(of_small, small, photo) if _share(face, photo) >= COARSE_FROM
        ]
        others = [
            face for face in _in_photo(of_large, large, photo) if _share(face, photo) < FINE_TO
        ]
        found.append(sorted(_without_same([*big, *others]), key=lambda face: -face.score))
    return found


def _reduced(picture: np.ndarray, long_side_px: int) -> np.ndarray:
    """The picture with its long side at most that."""
    image = Image.fromarray(picture)
    image.thumbnail((long_side_px, long_side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)


def _in_photo(faces: list[Detection], picture: np.ndarray, photo: Photo) -> list[Detection]:
    """Detections in a scaled picture, in pixels of the photograph."""
    scale = np.array(photo.size_px) / (picture.shape[1], picture.shape[0])
    # Boxes are edges. Points are pixel centres: half a pixel is added before scaling and taken off after.
    return [
        Detection(
            face.box_px * np.tile(scale, 2), face.score, (face.landmarks5_px + 0.5) * scale - 0.5
        )
        for face in faces
    ]


def _share(face: Detection, photo: Photo) -> float:
    return float((face.box_px[2:] - face.box_px[:2]).max()) / max(photo.size_px)


def _without_same(faces: list[Detection]) -> list[Detection]:
    """Without those that an earlier one is: overlapping it, or mostly inside it (an eye of it, say)."""
    kept: list[Detection] = []
    for face in faces:
        if not any(_is_same(face.box_px, other.box_px) for other in kept):
            kept.append(face)
    return kept


def _is_same(box: np.ndarray, other: np.ndarray) -> bool:
    return overlap(box, other) > SAME_OVERLAP or shared_area(box, other) > SAME_INSIDE * area(box)
