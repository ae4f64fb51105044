"""Removing rows and crops of faces that have disappeared from `faces`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import CAPTIONS, FACES, SCORES, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace


def remove_orphans(workspace: Workspace) -> None:
    """Remove scores, captions, verdicts and crops of faces that are not in `faces`.

    Faces disappear when their photograph is processed again with other settings. Decisions of
    people are kept.
    """
    faces = Store(workspace, FACES).read(["face_id", "crop_path"])
    face_ids = faces["face_id"]

    def is_orphan(table: pa.Table) -> pa.Array:
        return pc.invert(pc.is_in(table["face_id"], face_ids))

    def is_orphan_verdict(table: pa.Table) -> pa.Array:
        is_face = pc.equal(table["subject"], "face")
        return pc.and_(is_face, pc.invert(pc.is_in(table["id"], face_ids)))

    Store(workspace, SCORES).compact(is_orphan)
    Store(workspace, CAPTIONS).compact(is_orphan)
    Store(workspace, VERDICTS).compact(is_orphan_verdict)
    workspace.remove_unlisted("faces", set(faces["crop_path"].to_pylist()))
