"""Decisions and edits follow a face to its re-detected self: another detector gives the same face another id."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from authface_data.faces.boxes import overlap
from manifests.schema import DECISIONS, FACES
from manifests.store import Store
from manifests.verdicts import TAG_ID_PREFIX
from manifests.workspace import Workspace

OVERLAP = 0.7


def follow_faces(workspace: Workspace) -> tuple[int, list[str]]:
    """Give decisions of faces that are gone the id of the face that is there now, where boxes overlap by more than .7 (IoU).

    Returns how many decisions followed, and the ids of faces that are gone and have none in their place.
    """
    store = Store(workspace, DECISIONS)
    decisions = store.read()
    if not decisions.num_rows:
        return 0, []
    faces = Store(workspace, FACES).read(["face_id", "photo_id", "box_px"]).to_pylist()
    known = {face["face_id"] for face in faces}
    there: dict[str, list[dict]] = {}
    for face in faces:
        there.setdefault(face["photo_id"], []).append(face)
    moved: dict[str, str] = {}
    lost: dict[str, None] = {}  # in the order that they come in
    for row in decisions.select(["id", "photo_id", "box_px"]).to_pylist():
        if (
            row["id"] in known
            or row["id"] in moved
            or row["id"] in lost
            or row["id"].startswith(TAG_ID_PREFIX)
        ):
            continue
        box = row["box_px"]
        near = [
            face
            for face in there.get(row["photo_id"], [])
            if box and overlap(face["box_px"], box) > OVERLAP
        ]
        if near:
            moved[row["id"]] = max(near, key=lambda face: overlap(face["box_px"], box))["face_id"]
        else:
            lost[row["id"]] = None
    if not moved:
        return 0, list(lost)
    ids = [moved.get(one, one) for one in decisions["id"].to_pylist()]
    follows = pc.is_in(decisions["id"], pa.array(list(moved), pa.string()))
    renamed = decisions.set_column(
        decisions.schema.get_field_index("id"), "id", pa.array(ids, pa.string())
    ).filter(follows)
    store.compact(lambda part: pc.is_in(part["id"], pa.array(list(moved), pa.string())), renamed)
    return renamed.num_rows, list(lost)
