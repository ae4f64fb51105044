"""Imports the captions released with AuthFace-HQ, as rows of the captioner `qwen`."""

from __future__ import annotations

from authface_data.captions.compose import caption_from_answers
from authface_data.faces.stage import aligned_face_id
from manifests.schema import CAPTIONS, PHOTOS
from manifests.store import Store
from manifests.support.fingerprint import fingerprint
from manifests.workspace import Workspace

CAPTIONER = "qwen"
SOURCE = "authface-hq"
MODEL = "Qwen, as released with AuthFace-HQ"


def import_captions(workspace: Workspace) -> int:
    """Store the captions that came with photos of AuthFace-HQ; skip those that are already stored.

    Args:
        workspace: The workspace, with collected photos of AuthFace-HQ.

    Returns:
        The number of photos with a released caption.
    """
    photos = Store(workspace, PHOTOS).read(["photo_id", "source", "source_tags"]).to_pylist()
    store = Store(workspace, CAPTIONS)
    stored = store.read(["face_id", "captioner", "fingerprint"]).to_pylist()
    fingerprint_of = {
        row["face_id"]: row["fingerprint"] for row in stored if row["captioner"] == CAPTIONER
    }

    rows = []
    captioned_count = 0
    for photo in photos:
        tags = photo["source_tags"]
        if photo["source"] != SOURCE or not tags:
            continue
        captioned_count += 1
        face_id = aligned_face_id(photo["photo_id"])
        row_fingerprint = fingerprint(captioner=CAPTIONER, tags=tags)
        if fingerprint_of.get(face_id) == row_fingerprint:
            continue
        answer = ", ".join(tags)
        caption = caption_from_answers(answer, "", [], workspace.settings.captions)
        rows.append(
            {
                "face_id": face_id,
                "captioner": CAPTIONER,
                "raw_answers": [answer],
                "model": MODEL,
                **caption.columns(),
                "fingerprint": row_fingerprint,
            }
        )
    store.append(rows)
    store.compact()
    return captioned_count
