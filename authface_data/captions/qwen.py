"""Captions that came with AuthFace-HQ, written by Qwen, as rows of a captioner named `qwen`."""

from __future__ import annotations

from authface_data.captions.compose import caption_from_answers
from authface_data.faces.stage import aligned_face_id
from manifests.schema import CAPTIONS, PHOTOS
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

NAME, SOURCE = "qwen", "authface-hq"


def import_captions(workspace: Workspace) -> int:
    """Make captions of what the source's files say. Returns how many there are; those that are there already stay."""
    photos = Store(workspace, PHOTOS).read(["photo_id", "source", "source_tags"]).to_pylist()
    store = Store(workspace, CAPTIONS)
    there = store.read(["face_id", "captioner", "fingerprint"]).to_pylist()
    marks = {row["face_id"]: row["fingerprint"] for row in there if row["captioner"] == NAME}
    rows, count = [], 0
    for photo in photos:
        if photo["source"] != SOURCE or not photo["source_tags"]:
            continue
        count += 1
        face_id, mark = (
            aligned_face_id(photo["photo_id"]),
            fingerprint(captioner=NAME, tags=photo["source_tags"]),
        )
        if marks.get(face_id) == mark:
            continue
        said = ", ".join(photo["source_tags"])
        rows.append(
            {
                "face_id": face_id,
                "captioner": NAME,
                "raw_answers": [said],
                "model": "Qwen, as released with AuthFace-HQ",
                **caption_from_answers(said, "", [], workspace.settings.captions).columns(),
                "fingerprint": mark,
            }
        )
    store.append(rows)
    store.compact()
    return count
