"""Decisions and edits follow a face to its re-detected self: another detector gives the same face another id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import DECISIONS, FACES
from manifests.store import Store
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
    lost: list[str] = []
    for row in decisions.select(["id", "photo_id", "box_px"]).to_pylist():
        if row["id"] in known or row["id"] in moved or row["id"] in lost:
            continue
        nearest = max(there.get(row["photo_id"], []), key=lambda face: overlap(face["box_px"], row["box_px"]), default=None)
        if row["box_px"] and nearest and overlap(nearest["box_px"], row["box_px"]) > OVERLAP:
            moved[row["id"]] = nearest["face_id"]
        else:
            lost.append(row["id"])
    if not moved:
        return 0, lost
    ids = [moved.get(one, one) for one in decisions["id"].to_pylist()]
    follows = pc.is_in(decisions["id"], pa.array(list(moved), pa.string()))
    renamed = decisions.set_column(decisions.schema.get_field_index("id"), "id", pa.array(ids, pa.string())).filter(follows)
    store.compact(lambda part: pc.is_in(part["id"], pa.array(list(moved), pa.string())), renamed)
    return renamed.num_rows, lost


def overlap(box: list[float] | None, other: list[float] | None) -> float:
    """Intersection over union of two boxes [x0, y0, x1, y1]; 0 where one is not known."""
    if not box or not other:
        return 0.0
    a, b = np.array(box), np.array(other)
    inside = float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
    return inside / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inside)
