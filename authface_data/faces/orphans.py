"""What is left of faces that are no longer in the manifest, after their photograph was looked at again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import CAPTIONS, FACES, SCORES, VERDICTS
from manifests.store import Store
from manifests.workspace import Workspace


def remove_orphans(workspace: Workspace) -> None:
    """Remove scores, captions, verdicts and crops of faces that `faces` does not hold. Human decisions stay."""
    faces = Store(workspace, FACES).read(["face_id", "crop_path"])
    known = faces["face_id"]

    def orphan(part: pa.Table) -> pa.Array:
        return pc.invert(pc.is_in(part["face_id"], known))

    def orphan_verdict(part: pa.Table) -> pa.Array:
        return pc.and_(pc.equal(part["subject"], "face"), pc.invert(pc.is_in(part["id"], known)))

    Store(workspace, SCORES).compact(orphan)
    Store(workspace, CAPTIONS).compact(orphan)
    Store(workspace, VERDICTS).compact(orphan_verdict)
    workspace.remove_all_but("faces", set(faces["crop_path"].to_pylist()))
