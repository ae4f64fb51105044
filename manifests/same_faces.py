"""Faces that show the picture of a decided face: they have its decisions, whatever their ids.

A photograph that is renamed, collected from another source or encoded again has another photo_id,
and its faces have other ids. A decision holds for the picture, so the faces are matched by content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from manifests.fine_hash import FineHashes
from manifests.hamming import pairs_within_radius, parse_hash_column, parse_hashes
from manifests.schema import FACES, PHOTOS
from manifests.store import Store
from manifests.workspace import Workspace

MIN_IOU = 0.5
"""Boxes with a larger intersection over union are the same face of a photograph. The detectors'
non-maximum suppression leaves no two boxes of one photograph that overlap this much."""

CROP_RADIUS = 6
"""Largest number of differing bits of the perceptual hashes of two crops of one picture.

Measured on 239 faces of 151 public photographs, with retinaface-mobile and dlib, crops of 512 px.
Of copies that were detected again, 96 % are within 6 bits after JPEG of quality 85, 93 % after
resizing to 90 % as well, 88 % at 50 %, and 81 % if the borders were cut by 2 to 6 %. (Landmarks
jump in the others; `PHOTO_RADIUS` finds them.) Of 28,233 pairs of faces from different photographs,
one is at 8 bits and none below; from 224 px on, 14,602 pairs are at 12 bits or more. By the slope
of these counts, about one pair of different people in a million is within 6 bits.
"""

PHOTO_RADIUS = 4
"""Largest number of differing bits of the perceptual hashes of two copies of a photograph.

In the same measurement, different photographs are at 12 bits or more. Overlapping faces of copies
within 4 bits, together with `CROP_RADIUS`, find 100 % of the faces after JPEG of quality 85, 99 %
after resizing to 90 %, and 98 % at 50 %.
"""

Relation = Literal["own", "equal_pixels", "crop", "mirrored_crop", "photo"]
"""Why a decision about one face holds for another: it is the same face, the photographs have equal
pixels and the boxes overlap, the crops are near-duplicates, one crop is a near-duplicate of the
other's mirror image, or the photographs are near-duplicates and the boxes overlap. The first
relation that applies is given."""
RELATIONS: tuple[Relation, ...] = ("own", "equal_pixels", "crop", "mirrored_crop", "photo")


class Link(NamedTuple):
    """A face and a decided face that show the same picture.

    Attributes:
        face_id: A face of the workspace.
        decided_id: The face that was decided.
        relation: Why the decision holds for `face_id`.
        bits: Number of bits by which the perceptual hashes of crops or photographs differ; 0 for
            the relations without one.
        has_left: Whether `decided_id` is no longer in the workspace.
    """

    face_id: str
    decided_id: str
    relation: Relation
    bits: int
    has_left: bool


class _DecidedFace(NamedTuple):
    """A decided face: as it is in the workspace, else as its decision recorded it."""

    face_id: str
    photo_id: str | None
    box_px: np.ndarray | None
    crop_phash: str | None
    crop_fine_hash: str | None
    """Fine hash of the crop, if the face is in the workspace."""
    pixel_hash: str | None
    phash: str | None
    """Perceptual hash of the photograph, if the photograph is in the workspace."""
    size_px: tuple[int, int] | None
    """Width and height of the photograph, if it is in the workspace."""
    has_left: bool
    """Whether the face is no longer in the workspace."""

    def link(self, face_id: str, relation: Relation, bits: int = 0) -> Link:
        """Link another face to this one."""
        return Link(face_id, self.face_id, relation, bits, self.has_left)


def link_faces(workspace: Workspace, decisions: pd.DataFrame) -> list[Link]:
    """Find the faces of a workspace that show the picture of a decided face.

    Args:
        workspace: The workspace.
        decisions: Rows of `decisions` about faces with the columns id, photo_id, box_px,
            pixel_hash and crop_phash, oldest first.

    Returns:
        One link per pair of a face and a decided face, and a link of the relation "own" from every
        decided face to itself.
    """
    if decisions.empty:
        return []
    faces = Store(workspace, FACES).read(
        ["face_id", "photo_id", "box_px", "crop_phash", "crop_phash_mirrored", "crop_fine_hash"]
    )
    photos = Store(workspace, PHOTOS).read(["photo_id", "pixel_hash", "phash", "width", "height"])
    decided_faces = _read_decided_faces(decisions, faces, photos)

    links = {(face.face_id, face.face_id): face.link(face.face_id, "own") for face in decided_faces}
    for link in [
        *_links_by_photo(decided_faces, faces, photos),
        *_links_by_crop(decided_faces, faces),
    ]:
        key = (link.face_id, link.decided_id)
        known = links.get(key)
        if known is None or RELATIONS.index(link.relation) < RELATIONS.index(known.relation):
            links[key] = link
    return list(links.values())


def _read_decided_faces(
    decisions: pd.DataFrame, faces: pa.Table, photos: pa.Table
) -> list[_DecidedFace]:
    """The decided faces, each once; values that are not in the workspace come from decisions."""
    columns = ["photo_id", "box_px", "pixel_hash", "crop_phash"]
    recorded = decisions.groupby("id", sort=False)[columns].last()  # the last that is not null
    recorded = recorded.astype(object).where(recorded.notna(), None)
    face_of_id = _rows_by_key(faces, "face_id", recorded.index)
    photo_ids = {*recorded["photo_id"], *(face["photo_id"] for face in face_of_id.values())}
    photo_of_id = _rows_by_key(photos, "photo_id", photo_ids - {None})

    decided_faces = []
    for face_id, row in recorded.to_dict("index").items():  # iterrows would make None a float
        face = face_of_id.get(str(face_id), {})
        photo_id = face.get("photo_id") or row["photo_id"]
        photo = photo_of_id.get(photo_id, {})
        box = face.get("box_px") or row["box_px"]
        decided_faces.append(
            _DecidedFace(
                face_id=str(face_id),
                photo_id=photo_id,
                box_px=None if box is None else np.asarray(box, float),
                crop_phash=face.get("crop_phash") or row["crop_phash"],
                crop_fine_hash=face.get("crop_fine_hash"),
                pixel_hash=photo.get("pixel_hash") or row["pixel_hash"],
                phash=photo.get("phash"),
                size_px=_size_of(photo),
                has_left=not face,
            )
        )
    return decided_faces


def _rows_by_key(table: pa.Table, key: str, values: object) -> dict[str, dict]:
    """Key -> row, of the rows whose key is one of the values."""
    wanted = pa.array(list(values), pa.string())  # type: ignore[call-overload]
    rows = table.filter(pc.is_in(table[key], wanted)).to_pylist()
    return {row[key]: row for row in rows}


def _size_of(photo: dict) -> tuple[int, int] | None:
    if not (photo.get("width") and photo.get("height")):
        return None
    return photo["width"], photo["height"]


# By photograph and box


def _links_by_photo(
    decided_faces: list[_DecidedFace], faces: pa.Table, photos: pa.Table
) -> Iterator[Link]:
    """Links between overlapping faces of photographs with equal pixels, or of near-duplicates."""
    located = [face for face in decided_faces if face.box_px is not None]
    copies = [*_equal_photos(located, photos), *_near_photos(located, photos)]
    photo_ids = pa.array({photo["photo_id"] for _, photo, _ in copies}, pa.string())
    faces_of_photo: dict[str, list[dict]] = {}
    for face in faces.filter(pc.is_in(faces["photo_id"], photo_ids)).to_pylist():
        faces_of_photo.setdefault(face["photo_id"], []).append(face)

    for decided, photo, bits in copies:
        for face in faces_of_photo.get(photo["photo_id"], []):
            relation = _relation_in_copy(decided, face, photo, bits)
            if relation is not None:
                yield decided.link(face["face_id"], relation, bits or 0)


def _equal_photos(
    decided_faces: list[_DecidedFace], photos: pa.Table
) -> list[tuple[_DecidedFace, dict, int | None]]:
    """(decided face, row of a photograph with equal pixels, None)."""
    pixel_hashes = pa.array({face.pixel_hash for face in decided_faces} - {None}, pa.string())
    photo_ids = pa.array({face.photo_id for face in decided_faces} - {None}, pa.string())
    is_equal = pc.or_(
        pc.is_in(photos["pixel_hash"], pixel_hashes), pc.is_in(photos["photo_id"], photo_ids)
    )
    photos_of_hash: dict[str, list[dict]] = {}
    photo_of_id: dict[str, dict] = {}
    for photo in photos.filter(is_equal).to_pylist():
        photos_of_hash.setdefault(photo["pixel_hash"], []).append(photo)
        photo_of_id[photo["photo_id"]] = photo

    pairs: list[tuple[_DecidedFace, dict, int | None]] = []
    for face in decided_faces:
        equal = list(photos_of_hash.get(face.pixel_hash, [])) if face.pixel_hash else []
        # The pixels of an older workspace's photographs may not have been hashed.
        if face.photo_id in photo_of_id and photo_of_id[face.photo_id] not in equal:
            equal.append(photo_of_id[face.photo_id])
        pairs += [(face, photo, None) for photo in equal]
    return pairs


def _near_photos(
    decided_faces: list[_DecidedFace], photos: pa.Table
) -> list[tuple[_DecidedFace, dict, int | None]]:
    """(decided face, row of a near-duplicate of its photograph, number of differing bits)."""
    hashed = [face for face in decided_faces if face.phash and face.size_px is not None]
    near_rows = _near_rows([face.phash or "" for face in hashed], photos["phash"], PHOTO_RADIUS)
    rows = photos.take(pa.array([row for _, row, _ in near_rows], pa.int64())).to_pylist()
    return [
        (hashed[index], photo, bits)
        for (index, _, bits), photo in zip(near_rows, rows, strict=True)
    ]


def _relation_in_copy(
    decided: _DecidedFace, face: dict, photo: dict, bits: int | None
) -> Relation | None:
    """The relation of a face in a copy of the decided face's photograph, or None.

    Args:
        decided: The decided face; its box is known.
        face: Row of `faces` of a face in the copy.
        photo: Row of `photos` of the copy.
        bits: Number of differing bits of the photographs; None for equal pixels.
    """
    if not face["box_px"]:
        return None
    if bits is None:
        return "equal_pixels" if _iou(decided.box_px, face["box_px"]) > MIN_IOU else None

    size_px = _size_of(photo)
    if size_px is None or decided.size_px is None:
        return None
    # The copy may have another size, so the boxes are compared as shares of the photographs.
    box = np.asarray(face["box_px"]) / np.tile(size_px, 2)
    decided_box = np.asarray(decided.box_px) / np.tile(decided.size_px, 2)
    return "photo" if _iou(decided_box, box) > MIN_IOU else None


def _iou(box: object, other: object) -> float:
    """Intersection over union of two boxes [x0, y0, x1, y1]."""
    corners = np.array([box, other], float)
    sides = np.maximum(corners[:, 2:].min(0) - corners[:, :2].max(0), 0)
    intersection = sides.prod()
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    return float(intersection / (areas.sum() - intersection))


# By crop


def _links_by_crop(decided_faces: list[_DecidedFace], faces: pa.Table) -> Iterator[Link]:
    """Links between faces whose crops are near-duplicates, mirrored too."""
    hashed = [face for face in decided_faces if face.crop_phash]
    hashes = [face.crop_phash or "" for face in hashed]
    columns: tuple[tuple[Relation, str], ...] = (
        ("crop", "crop_phash"),
        ("mirrored_crop", "crop_phash_mirrored"),
    )
    fine_hashes = FineHashes.parse([face.crop_fine_hash for face in hashed])
    for relation, column in columns:
        near_rows = np.array(_near_rows(hashes, faces[column], CROP_RADIUS), int).reshape(-1, 3)
        near_faces = faces.select(["face_id", "crop_fine_hash"]).take(pa.array(near_rows[:, 1]))
        is_copy = fine_hashes.take(near_rows[:, 0]).confirm(
            FineHashes.parse(near_faces["crop_fine_hash"]), is_mirrored=relation == "mirrored_crop"
        )
        face_ids = near_faces["face_id"].to_pylist()
        for position in np.flatnonzero(is_copy).tolist():
            index, _, bits = near_rows[position].tolist()
            yield hashed[index].link(face_ids[position], relation, bits)


def _near_rows(
    hashes: list[str], column: pa.ChunkedArray, radius: int
) -> list[tuple[int, int, int]]:
    """(index of a hash, row of a near one in the column, differing bits); nulls are near none."""
    if not hashes:
        return []
    rows, candidates = parse_hash_column(column)
    pairs = pairs_within_radius(parse_hashes(hashes), candidates, radius)
    return [
        (int(index), int(rows[near]), int(bits))
        for index, near, bits in zip(pairs.first, pairs.second, pairs.distance, strict=True)
    ]
