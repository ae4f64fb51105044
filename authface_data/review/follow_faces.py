"""Moves decisions to the new ids of faces: another detector gives the same face another id.

Decisions hold for the same picture without being moved (manifests/same_faces.py). The move lets the
reviewer see and correct them under the new id, and counts them in `review agreement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.faces.boxes import iou
from manifests.decisions import TAG_ID_PREFIX
from manifests.same_faces import MIN_IOU
from manifests.schema import DECISIONS, FACES
from manifests.store import Store
from manifests.workspace import Workspace


def follow_faces(workspace: Workspace) -> tuple[int, list[str]]:
    """Move decisions about missing faces to the faces that replaced them.

    Returns:
        Number of decisions that were moved, and the ids of faces that have no replacement.
    """
    store = Store(workspace, DECISIONS)
    decisions = store.read()
    if not decisions.num_rows:
        return 0, []

    new_ids, lost = _match_faces(workspace, decisions)
    if not new_ids:
        return 0, lost

    old_ids = pa.array(list(new_ids), pa.string())
    ids = [new_ids.get(face_id, face_id) for face_id in decisions["id"].to_pylist()]
    column = decisions.schema.get_field_index("id")
    moved = decisions.set_column(column, "id", pa.array(ids, pa.string()))
    moved = moved.filter(pc.is_in(decisions["id"], old_ids))
    store.compact(lambda part: pc.is_in(part["id"], old_ids), moved)
    return moved.num_rows, lost


def _match_faces(workspace: Workspace, decisions: pa.Table) -> tuple[dict[str, str], list[str]]:
    """Old face_id -> new face_id of missing faces, and the ids that have no match."""
    faces = Store(workspace, FACES).read(["face_id", "photo_id", "box_px"]).to_pylist()
    known = {face["face_id"] for face in faces}
    faces_of_photo: dict[str, list[dict]] = {}
    for face in faces:
        faces_of_photo.setdefault(face["photo_id"], []).append(face)

    new_ids: dict[str, str] = {}
    lost: dict[str, None] = {}  # a dict keeps the order
    for decision in decisions.select(["id", "photo_id", "box_px"]).to_pylist():
        old_id = decision["id"]
        is_settled = old_id in known or old_id in new_ids or old_id in lost
        if is_settled or old_id.startswith(TAG_ID_PREFIX):
            continue
        candidates = faces_of_photo.get(decision["photo_id"], [])
        new_id = _best_overlap(decision["box_px"], candidates)
        if new_id is None:
            lost[old_id] = None
        else:
            new_ids[old_id] = new_id
    return new_ids, list(lost)


def _best_overlap(box: Sequence[float] | None, faces: Sequence[Mapping]) -> str | None:
    """face_id of the face that overlaps a box most, or None if none overlaps by `MIN_IOU`."""
    if not box:
        return None
    overlapping = [face for face in faces if iou(face["box_px"], box) > MIN_IOU]
    if not overlapping:
        return None
    return max(overlapping, key=lambda face: iou(face["box_px"], box))["face_id"]
