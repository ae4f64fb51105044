"""Face detection in large photographs, at several scales whose results are merged.

The anchors of a detector are 16 to 512 px, so it finds small faces only in a large picture, and
large faces only in a small one. Each photograph is therefore searched twice. At the fine scale its
long side is `long_side_px`, and faces from 2 % of that are found. At the coarse scale it is a third
of that, and faces up to the whole frame are found. Faces that are smaller still are found in tiles
of the photograph, see `detect_from_size`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from typing import Protocol

import numpy as np
from PIL import Image

from authface_data.faces.boxes import area, intersection_area, iou, longer_side
from authface_data.faces.detectors import Detection, Detector
from authface_data.images.open import Photo

Detect = Callable[[Sequence[np.ndarray]], list[list[Detection]]]
"""Detects the faces of pictures, see `Detector.detect`."""


class Picture(Protocol):
    """A picture that can be decoded at a reduced scale, such as a `Photo`."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the whole picture."""
        ...

    def pixels(self, long_side_px: int | None = None) -> np.ndarray:
        """(height, width, 3) uint8 sRGB; the long side is `long_side_px` if that is smaller."""
        ...


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

SCALE_RATIO = 3
"""Ratio of the long sides of successive scales that are searched in tiles."""
TILE_PX = 1280
"""Side of a tile."""
TILE_OVERLAP_PX = 160
"""Overlap of neighbouring tiles. Each face that is taken from a tile lies whole in one of them."""
TILE_BORDER_PX = 4
"""A box this close to the border of a tile may be a part of a face, and is dropped."""
TILE_MIN_FACE_PX = 20
"""Longer side of the smallest faces that are found reliably in a tile."""
TILE_MAX_FACE_PX = 100
"""Longer side of the largest faces that are taken from a tile. Larger ones are found at the next
coarser scale; in a tile, which lacks their surroundings, most of them are not faces."""
TILE_MIN_SCORE = 0.8
"""Lowest score of a face in a tile: a large photograph has much texture that resembles a face."""


def detect_faces(
    detect: Detect, photos: Sequence[Picture], long_side_px: int
) -> list[list[Detection]]:
    """Detect the faces of photographs at two scales.

    Args:
        detect: Detects the faces of pictures. All pictures are given to it at once.
        photos: The photographs.
        long_side_px: Long side of the photographs at the fine scale; smaller ones are not enlarged.

    Returns:
        The faces of each photograph in its pixels, highest score first.
    """
    fine_pictures = [photo.pixels(long_side_px) for photo in photos]
    coarse_pictures = [
        _reduce(picture, long_side_px // COARSE_DIVISOR) for picture in fine_pictures
    ]
    # A small photograph has one scale only.
    has_coarse = [
        coarse.shape != fine.shape
        for coarse, fine in zip(coarse_pictures, fine_pictures, strict=True)
    ]
    results = iter(detect([*compress(coarse_pictures, has_coarse), *fine_pictures]))
    coarse_results = [next(results) if exists else [] for exists in has_coarse]

    faces_by_photo = []
    for index, photo in enumerate(photos):
        fine_picture = fine_pictures[index]
        fine_faces = _scale_to_photo(next(results), fine_picture, photo)
        if not has_coarse[index]:
            faces_by_photo.append(fine_faces)
            continue
        coarse_faces = _scale_to_photo(coarse_results[index], coarse_pictures[index], photo)
        faces_by_photo.append(_merge_scales(coarse_faces, fine_faces, max(photo.size_px)))
    return faces_by_photo


def detect_from_size(
    detector: Detector, photo: Photo, min_face_px: float, min_score: float
) -> list[Detection]:
    """Detect the faces of a photograph from a given size upwards, however large it is.

    The whole photograph is searched first, as by `detect_faces`. If it is so large that its
    smallest faces are lost at that scale, it is also searched in overlapping tiles.

    Args:
        detector: A detector that is set up.
        photo: The photograph.
        min_face_px: Longer side of the box of the smallest face, in pixels of the photograph.
        min_score: Lowest score of a face, 0 to 1. In tiles it is `TILE_MIN_SCORE` or higher.

    Returns:
        The faces in pixels of the photograph, highest score first.
    """
    detect = partial(detector.detect, min_score=min_score)
    (faces,) = detect_faces(detect, [photo], TILE_PX)
    for long_side_px in _tiled_scales(max(photo.size_px), min_face_px):
        picture = photo.pixels(long_side_px)
        tile_faces = _detect_in_tiles(detector, picture, max(min_score, TILE_MIN_SCORE))
        # Larger scales come first, because a whole face is preferred to its parts.
        faces = _drop_duplicates([*faces, *_scale_to_photo(tile_faces, picture, photo)])
    found = [face for face in faces if longer_side(face.box_px) >= min_face_px]
    return sorted(found, key=lambda face: -face.score)


def _tiled_scales(full_px: int, min_face_px: float) -> list[int]:
    """Long sides of the scales at which a photograph is searched in tiles, in ascending order.

    Args:
        full_px: Long side of the photograph.
        min_face_px: Longer side of the smallest face in the photograph.
    """
    long_sides_px = []
    long_side_px = round(full_px * min(1.0, TILE_MIN_FACE_PX / min_face_px))
    while long_side_px > TILE_PX:
        long_sides_px.append(long_side_px)
        long_side_px //= SCALE_RATIO
    return long_sides_px[::-1]


def _detect_in_tiles(detector: Detector, picture: np.ndarray, min_score: float) -> list[Detection]:
    """Detect the small faces that lie whole in a tile of a picture, highest score first."""
    height, width = picture.shape[:2]
    origins_px = [(left, top) for top in _tile_starts(height) for left in _tile_starts(width)]
    faces = []
    for first in range(0, len(origins_px), detector.batch_size):
        batch_px = origins_px[first : first + detector.batch_size]
        tiles = [picture[top : top + TILE_PX, left : left + TILE_PX] for left, top in batch_px]
        results = detector.detect(tiles, min_score)
        for origin_px, tile_faces in zip(batch_px, results, strict=True):
            small = [face for face in tile_faces if longer_side(face.box_px) <= TILE_MAX_FACE_PX]
            moved = [_move(face, origin_px) for face in small]
            faces += [face for face in moved if not _is_cut(face, origin_px, (width, height))]
    return _drop_duplicates(sorted(faces, key=lambda face: -face.score))


def _tile_starts(side_px: int) -> list[int]:
    """Starts of the tiles along one side of a picture; the tiles cover it evenly."""
    count = math.ceil(max(side_px - TILE_OVERLAP_PX, 1) / (TILE_PX - TILE_OVERLAP_PX))
    return [round(start) for start in np.linspace(0, max(side_px - TILE_PX, 0), count)]


def _move(face: Detection, origin_px: tuple[int, int]) -> Detection:
    """Convert a detection in a tile to pixels of the picture."""
    return Detection(
        box_px=face.box_px + np.tile(origin_px, 2),
        score=face.score,
        landmarks5_px=face.landmarks5_px + origin_px,
    )


def _is_cut(face: Detection, origin_px: tuple[int, int], size_px: tuple[int, int]) -> bool:
    """Whether a border of the tile at `origin_px`, inside the picture, may cut a face."""
    for axis in (0, 1):
        start, end = origin_px[axis], origin_px[axis] + TILE_PX
        low, high = face.box_px[axis], face.box_px[axis + 2]
        if (start > 0 and low < start + TILE_BORDER_PX) or (
            end < size_px[axis] and high > end - TILE_BORDER_PX
        ):
            return True
    return False


def _reduce(picture: np.ndarray, long_side_px: int) -> np.ndarray:
    """Scale a picture down so that its long side is at most `long_side_px`."""
    image = Image.fromarray(picture)
    image.thumbnail((long_side_px, long_side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)


def _scale_to_photo(faces: list[Detection], picture: np.ndarray, photo: Picture) -> list[Detection]:
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
