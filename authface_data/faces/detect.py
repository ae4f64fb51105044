"""Face detection in large photographs, at two scales whose results are merged.

The anchors of a detector are 16 to 512 px, so it finds small faces only in a large picture, and
large faces only in a small one. Each photograph is therefore searched twice. At the fine scale its
long side is `long_side_px`, and faces from 2 % of that are found. At the coarse scale it is a third
of that, and faces up to the whole frame are found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from authface_data.faces.boxes import area, intersection_area, iou, longer_side
from authface_data.faces.detectors import Detection, Detector
from authface_data.images.open import Photo

COARSE_DIVISOR = 3
"""Ratio of the long sides of the fine and the coarse scale."""

COARSE_MIN_SHARE = 0.15
"""Smallest face that is taken from the coarse scale: longer side of its box, as a share of the long
side of the photograph."""
FINE_MAX_SHARE = 0.3
"""Faces from this share upwards are taken from the coarse scale only."""

DUPLICATE_IOU = 0.4
"""A detection that overlaps a kept one by more than this IoU is a duplicate."""
DUPLICATE_INSIDE = 0.7
"""A detection with more than this share of its box inside a kept one is a duplicate: the detector
took a part of the face, such as an eye, for a face."""


def detect_faces(
    detector: Detector, photos: Sequence[Photo], long_side_px: int, min_score: float
) -> list[list[Detection]]:
    """Detect the faces of photographs at two scales.

    Args:
        detector: A detector that is set up.
        photos: The photographs.
        long_side_px: Long side of the photographs at the fine scale; smaller ones are not enlarged.
        min_score: Lowest score of a face, 0 to 1.

    Returns:
        The faces of each photograph in its pixels, highest score first.
    """
    fine_pictures = [photo.pixels(long_side_px) for photo in photos]
    coarse_pictures = [
        _reduce(picture, long_side_px // COARSE_DIVISOR) for picture in fine_pictures
    ]
    coarse_results = detector.detect(coarse_pictures, min_score)
    fine_results = detector.detect(fine_pictures, min_score)

    faces_by_photo = []
    for index, photo in enumerate(photos):
        fine_picture = fine_pictures[index]
        coarse_picture = coarse_pictures[index]
        fine_faces = _scale_to_photo(fine_results[index], fine_picture, photo)
        if coarse_picture.shape == fine_picture.shape:
            faces_by_photo.append(fine_faces)
            continue
        coarse_faces = _scale_to_photo(coarse_results[index], coarse_picture, photo)
        faces_by_photo.append(_merge_scales(coarse_faces, fine_faces, max(photo.size_px)))
    return faces_by_photo


def _reduce(picture: np.ndarray, long_side_px: int) -> np.ndarray:
    """Scale a picture down so that its long side is at most `long_side_px`."""
    image = Image.fromarray(picture)
    image.thumbnail((long_side_px, long_side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)


def _scale_to_photo(faces: list[Detection], picture: np.ndarray, photo: Photo) -> list[Detection]:
    """Convert detections in a scaled picture to pixels of the photograph."""
    scale = np.array(photo.size_px) / (picture.shape[1], picture.shape[0])
    # Boxes are pixel edges and scale directly. Landmarks are pixel centres, which lie half a pixel
    # from the edges.
    return [
        Detection(
            box_px=face.box_px * np.tile(scale, 2),
            score=face.score,
            landmarks5_px=(face.landmarks5_px + 0.5) * scale - 0.5,
        )
        for face in faces
    ]


def _merge_scales(
    coarse_faces: list[Detection], fine_faces: list[Detection], photo_side_px: int
) -> list[Detection]:
    """Take the large faces from the coarse scale and the others from the fine scale."""
    large = [
        face
        for face in coarse_faces
        if longer_side(face.box_px) / photo_side_px >= COARSE_MIN_SHARE
    ]
    small = [
        face for face in fine_faces if longer_side(face.box_px) / photo_side_px < FINE_MAX_SHARE
    ]
    return sorted(_drop_duplicates([*large, *small]), key=lambda face: -face.score)


def _drop_duplicates(faces: list[Detection]) -> list[Detection]:
    """Drop detections that overlap an earlier one or lie mostly inside it."""
    kept: list[Detection] = []
    for face in faces:
        if not any(_is_duplicate(face.box_px, other.box_px) for other in kept):
            kept.append(face)
    return kept


def _is_duplicate(box: np.ndarray, other: np.ndarray) -> bool:
    if iou(box, other) > DUPLICATE_IOU:
        return True
    return intersection_area(box, other) > DUPLICATE_INSIDE * area(box)
